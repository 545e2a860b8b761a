"""The voice map: names that clients know ("alloy") for voices that the models have."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from yapit.blends import expand, is_blend, read_blend, spell_blend
from yapit.catalog import Model
from yapit.errors import InvalidInputError, SettingsError
from yapit.settings import SpeechSettings

_log = structlog.get_logger(__name__)


class VoiceMap:
    """Voice names in any case, from the settings and from a file that is read again when it changes.

    A file that has become unreadable is reported once, and the last good map stays in force.

    Args:
        fixed: the map of the settings.
        file: YAML or JSON mapping of names to voices; its entries win.

    Raises:
        SettingsError: the file is missing or wrong at the start.
    """

    def __init__(self, fixed: Mapping[str, str], file: Path | None = None) -> None:
        self._fixed = _folded(fixed)
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._map = self._fixed
        if file is not None:
            self._seen = _stamp(file)
            self._map = {**self._fixed, **_read(file)}

    @classmethod
    def of(cls, settings: SpeechSettings) -> "VoiceMap":
        """Return the map that the settings describe."""
        return cls(settings.voice_map, Path(settings.voice_map_file) if settings.voice_map_file else None)

    def resolve(self, model: Model, wanted: str | None, language: str | None = None) -> str | None:
        """Return the model's voice that `wanted` names, by the map or directly; or the blend, each name by the map.

        Without a name but with a language it is None: the adapter takes a voice of that language.

        Raises:
            InvalidInputError: neither the map nor the model knows it.
        """
        if not wanted and language:
            return None
        self._refresh()
        if wanted and self._is_blend(model, wanted):
            shares = expand(read_blend(wanted), lambda name: self._one(model, name) if self._has(name) else None)
            return model.voice(spell_blend(shares))
        return self._one(model, wanted)

    def _has(self, name: str) -> bool:
        return name.casefold() in self._map

    def _is_blend(self, model: Model, wanted: str) -> bool:
        """Tell whether it is a blend with a name of the map in it, and no name itself."""
        if not (model.voice_blends and is_blend(wanted)) or self._has(wanted):
            return False
        names = (*model.voice_aliases, *(voice.id for voice in model.voices))
        if wanted.casefold() in map(str.casefold, names):
            return False
        return any(self._has(share.voice) for share in read_blend(wanted))

    def _one(self, model: Model, wanted: str | None) -> str | None:
        mapped = self._map.get(wanted.casefold()) if wanted else None
        if mapped is not None:
            try:
                return model.voice(mapped)
            except InvalidInputError:
                # The map serves all models, and this one has other voices.
                return model.voice(wanted)
        return model.voice(wanted)

    def _refresh(self) -> None:
        if self._file is None:
            return
        stamp = _stamp(self._file)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._map = {**self._fixed, **_read(self._file)}
        except SettingsError as error:
            _log.warning("voice_map_kept", reason=str(error))


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _read(file: Path) -> dict[str, str]:
    try:
        return _folded(msgspec.yaml.decode(file.read_bytes(), type=dict[str, str]))
    except (msgspec.MsgspecError, OSError) as error:
        raise SettingsError(f"speech.voice_map_file '{file}': {' '.join(str(error).split())}") from error


def _folded(names: Mapping[str, str]) -> dict[str, str]:
    return {name.casefold(): voice for name, voice in names.items()}
