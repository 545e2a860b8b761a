"""The voices of a model: tables of styles, one row for each count of phonemes, and mixtures of them."""

from pathlib import Path

import torch

from yapit import InvalidInputError, LoadError, Model
from yapit.blends import Share, is_blend, read_blend
from yapit.errors import did_you_mean

_STYLE = 256


class Voices:
    """Reads the voices when they are asked for, and mixes them.

    Args:
        model: the catalog entry.
        files: of the voices, by name.
    """

    def __init__(self, model: Model, files: dict[str, Path]) -> None:
        self._model = model
        self._files = files
        self._read: dict[str, torch.Tensor] = {}

    def shares(self, wanted: str | None, letter: str | None = None) -> tuple[Share, ...]:
        """Return the voices that a request's `voice` names, and how much of each.

        Args:
            wanted: a name, an alias or a blend; the default when None …
            letter: … or the first voice of the language that has this letter.

        Raises:
            InvalidInputError: there is no such voice; the message names the closest.
        """
        if wanted is None:
            default = self._model.defaults.get("voice")
            if letter is not None and not str(default).startswith(letter):
                default = next((name for name in self._files if name.startswith(letter)), default)
            wanted = str(default) if default is not None else next(iter(self._files))
        if wanted in self._files:
            return (Share(wanted, 1.0),)
        wanted = self._aliases.get(wanted.casefold(), wanted)
        shares = read_blend(wanted) if is_blend(wanted) else (Share(wanted, 1.0),)
        return tuple(share._replace(voice=self._known(share.voice)) for share in shares)

    def style(self, shares: tuple[Share, ...], phonemes: int) -> torch.Tensor:
        """Return the style for so many phonemes: the voices' weighted mean, [1, 256]."""
        total = sum(abs(share.weight) for share in shares)
        mixed = sum(self._table(share.voice)[phonemes - 1] * share.weight for share in shares)
        style: torch.Tensor = mixed / total
        return style

    @property
    def _aliases(self) -> dict[str, str]:
        return {alias.casefold(): target for alias, target in self._model.voice_aliases.items()}

    def _known(self, name: str) -> str:
        folded = {known.casefold(): known for known in self._files}
        meant = self._aliases.get(name.casefold(), name).casefold()
        if meant not in folded:
            hint = did_you_mean(name, [*self._files, *self._model.voice_aliases])
            raise InvalidInputError(f"The model '{self._model.id}' has no voice '{name}'. {hint}", param="voice")
        return folded[meant]

    def _table(self, name: str) -> torch.Tensor:
        """Return the styles of a voice, [510, 1, 256]."""
        if name not in self._read:
            try:
                table = torch.load(self._files[name], map_location="cpu", weights_only=True)
                self._read[name] = table.float().reshape(-1, 1, _STYLE)
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                raise LoadError(f"The voice '{name}' of '{self._model.id}' cannot be read: {reason}") from error
        return self._read[name]
