"""What a model needs on this machine: whoever fetches it asks here, and so do those who load it; no torch here."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import structlog

from yapit import Model, Weights, YapitError
from yapit.catalog import folder_of
from yapit.weights import is_url

_log = structlog.get_logger(__name__)
# The vocoder that families need and bring not; the option names another one.
VOCODERS = {
    "speecht5": "microsoft/speecht5_hifigan",
    "fastspeech2_conformer": "espnet/fastspeech2_conformer_hifigan",
}
_CONFIG = "config.json"
_CODECS = ("processor_config.json", "audio_tokenizer_config.json")  # in the first one, as a part


def needs(model: Model) -> list[Weights]:
    """Return what has to be here before the model can be loaded: repositories, and the file of a URL.

    What its options name is known from them; what its repository's small files say is read there, or asked of the hub.
    """
    if model.options.get("skip_download"):
        return []
    source = model.source or model.id
    if model.source is None and "hub_code" in model.options:
        return []  # the code brings them
    if is_url(source):
        return [Weights(source=source, kind="file", sha256=_text(model.options.get("sha256")))]
    found = [] if _is_here(source) else [repository(source, model.revision)]
    if "synthesize" in model.tasks:
        found += _for_speech(model, source)
    return found


def repository(source: str, revision: str | None = None, kind: Literal["model", "dataset"] = "model") -> Weights:
    """Return what is needed of a repository: of a model the weights once, of a data set all but other software's."""
    from yapit.hub import without_copies, without_foreign

    choose = without_copies if kind == "model" else without_foreign
    return Weights(source=source, revision=revision, kind=kind, choose=choose)


def vocoder_of(kind: object, option: str | None) -> str | None:
    """Return the folder or the repository of the vocoder for a family; None where none is needed."""
    needed = VOCODERS.get(str(kind))
    return needed and (option or needed)


def codec_of(files: Mapping[str, Any]) -> str | None:
    """Return the folder or the repository of the codec that a processor loads; None if it needs none.

    Args:
        files: what the files `processor_config.json` and `audio_tokenizer_config.json` say, those that there are.
    """
    part, alone = (files.get(name) or {} for name in _CODECS)
    return _text((alone or part.get("audio_tokenizer") or {}).get("audio_tokenizer_name_or_path"))


def _for_speech(model: Model, source: str) -> list[Weights]:
    options = model.options
    files = _small(source, model.revision, (_CONFIG, *_CODECS))
    others = [vocoder_of(files.get(_CONFIG, {}).get("model_type"), _text(options.get("vocoder"))), codec_of(files)]
    found = [repository(each) for each in others if each is not None and not _is_here(each)]
    voices = _text(options.get("speaker_embeddings"))
    if voices is not None and not Path(voices).expanduser().exists():
        found.append(repository(voices, kind="dataset"))
    return found


def _small(source: str, revision: str | None, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what small files say; nothing of those that there are not, or that cannot be had now."""
    from yapit.hub import Repository, here, is_repo_id

    folder = folder_of(source)
    if folder is None and is_repo_id(source):
        wanted = repository(source, revision)
        folder = here(Repository(source=source, revision=revision, choose=wanted.choose))
    found: Mapping[str, bytes] = {}
    if folder is not None:
        found = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    elif is_repo_id(source):
        try:
            found = _asked(source, revision, tuple(names))
        except YapitError as error:
            # Whoever fetches the repository is told the same.
            _log.info("needs_unknown", source=source, reason=error.message)
    return {name: said for name, data in found.items() if isinstance(said := _decoded(data), dict)}


@cache
def _asked(source: str, revision: str | None, names: tuple[str, ...]) -> Mapping[str, bytes]:
    """Ask the hub, once: each request asks what is needed while a model is fetched."""
    from yapit.hub import small_files

    return small_files(source, revision, names)


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _is_here(source: str) -> bool:
    return folder_of(source) is not None or Path(source).is_file()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
