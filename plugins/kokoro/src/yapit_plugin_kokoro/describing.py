"""What a catalog can say of a Kokoro before it is loaded, from its small files; nothing heavy is imported here."""

import json
from typing import Any

from yapit.catalog import folder_of
from yapit_plugin_kokoro.languages import LANGUAGES

_GENDERS = {"f": "female", "m": "male"}


def describe(source: str) -> dict[str, Any] | None:
    """Return what an entry with this source leaves out, None if it is not known to be a Kokoro.

    Args:
        source: a folder, or the id of a repository, whose name then says it.
    """
    folder = folder_of(source)
    if folder is None:
        if not source.rpartition("/")[2].casefold().startswith("kokoro-82m") or "onnx" in source.casefold():
            return None
        return _entry()
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    if not is_kokoro(config):
        return None
    voices = [_voice(path.stem) for path in sorted((folder / "voices").glob("*.pt"))]
    languages = [voice["languages"][0] for voice in voices if voice.get("languages")]
    return {**_entry(), "voices": voices, "languages": [*dict.fromkeys(languages)]}


def is_kokoro(config: Any) -> bool:
    """Tell whether this is what a Kokoro's `config.json` says."""
    return isinstance(config, dict) and {"istftnet", "plbert", "vocab"} <= config.keys()


def _entry() -> dict[str, Any]:
    return {
        "backend": "kokoro",
        "tasks": ["synthesize"],
        "sample_rate": 24_000,
        "memory_bytes": 1_100_000_000,
        "speed_range": [0.5, 2.0],
        "voice_blends": True,
        "markup": True,
    }


def _voice(name: str) -> dict[str, Any]:
    voice: dict[str, Any] = {"id": name}
    language, gender = LANGUAGES.get(name[:1]), _GENDERS.get(name[1:2])
    if name[2:3] != "_" or language is None or gender is None:
        return voice
    base = language.tag.partition("-")[0]
    return {**voice, "languages": [*dict.fromkeys((language.tag, base))], "gender": gender}
