"""From a repository of which nothing is said to the entry of a model that speaks: its backend, vocoder and voices."""

import json
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from yapit import InvalidInputError
from yapit.catalog import entry_of, folder_of, read_models
from yapit_plugin_hf_generic.describing import FILES, Evidence, describe_files
from yapit_plugin_hf_generic.needs import vocoder_of

_PRESETS = "speaker_embeddings_path.json"  # of Bark
_PRESET = re.compile(r"(?:v2/)?([a-z]{2})_speaker_\d+")
_KOKORO = {"istftnet", "plbert", "vocab"}
_SPEECHT5_WIDTH = 512  # of the voices that its authors published
_VOICES = {"kokoro": (".pt",), "pocket_tts": (".safetensors", ".wav", ".flac", ".mp3", ".ogg")}
_MANY = 1000  # voices are listed


def describe_speech(source: str, revision: str | None = None) -> dict[str, Any]:
    """Return what an entry leaves out whose source speaks: the backend, what it needs besides, and its voices.

    Args:
        source: a folder, or the id of a repository, of which the small files are asked of the hub.
        revision: the newest when None.

    Raises:
        InvalidInputError: it does not speak, or a plugin is missing that lets it.
        YapitError: the hub refuses it, or cannot be reached.
    """
    small, names = _read(source, revision)
    try:
        found = Evidence.of(small)
    except ValueError as error:
        message = f"What '{source}' is cannot be told: {error}"
        raise InvalidInputError(message, param="model_id") from error
    if found.config.keys() >= _KOKORO:
        return _kokoro(source, names)
    entry = describe_files(source, found)
    if entry["tasks"] != ["synthesize"]:
        raise InvalidInputError(f"The model '{source}' does not speak, as far as its files tell.", param="model_id")
    kind = str(found.config.get("model_type", ""))
    entry |= {"backend": "hf-generic"}
    vocoder = vocoder_of(kind, None)
    if vocoder is not None:
        entry["options"] = {"vocoder": vocoder}
    if kind == "speecht5" and found.config.get("speaker_embedding_dim", _SPEECHT5_WIDTH) == _SPEECHT5_WIDTH:
        entry |= _published_voices()
    voices = _voices(kind, found.config, small, names)
    return entry | ({"voices": voices} if voices else {})


def _read(source: str, revision: str | None) -> tuple[Mapping[str, bytes], list[str]]:
    """Return the small files, and the names of all."""
    wanted = (*FILES, _PRESETS)
    folder = folder_of(source)
    if folder is not None:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        return {name: (folder / name).read_bytes() for name in wanted if name in names}, names
    from yapit.hub import Repository, plan, small_files

    listing = plan(Repository(source=source, revision=revision, choose=lambda _: ())).listing
    return small_files(source, revision, wanted), [file.name for file in listing]


def _kokoro(source: str, names: list[str]) -> dict[str, Any]:
    if "kokoro" not in entry_points(group="yapit.plugins").names:
        message = f"The model '{source}' is a Kokoro; try: pip install yapit-plugin-kokoro"
        raise InvalidInputError(message, param="model_id")
    entry = {"backend": "kokoro", "tasks": ["synthesize"], "sample_rate": 24_000, "voice_blends": True, "markup": True}
    return entry | {"speed_range": [0.5, 2.0], "voices": _in_folder("kokoro", names)}


def _published_voices() -> dict[str, Any]:
    """Return what this plugin's own entry of SpeechT5 says of voices."""
    models = read_models(files(__package__) / "models.yaml")
    known = entry_of(next(model for model in models if model.id == "microsoft/speecht5_tts"))
    return {name: known[name] for name in ("options", "voices", "defaults") if name in known}


def _voices(kind: str, config: Mapping[str, Any], small: Mapping[str, bytes], names: list[str]) -> list[dict[str, Any]]:
    if kind == "bark":
        return _presets(small.get(_PRESETS, b"{}"))
    if kind == "vits" and isinstance(count := config.get("num_speakers"), int) and 1 < count <= _MANY:
        return [{"id": str(number)} for number in range(count)]
    return _in_folder(kind, names)


def _presets(data: bytes) -> list[dict[str, Any]]:
    try:
        said = json.loads(data)
    except ValueError:
        return []
    matches = {name: _PRESET.fullmatch(name) for name in said} if isinstance(said, dict) else {}
    return [{"id": name, "languages": [match[1]]} for name, match in matches.items() if match is not None][:_MANY]


def _in_folder(kind: str, names: list[str]) -> list[dict[str, Any]]:
    paths = [PurePosixPath(name) for name in names]
    found = [path.stem for path in paths if path.parts[:-1] == ("voices",) and path.suffix in _VOICES.get(kind, ())]
    return [{"id": name} for name in sorted(set(found))][:_MANY]
