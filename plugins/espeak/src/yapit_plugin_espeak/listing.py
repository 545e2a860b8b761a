"""Writes `models.yaml` from what the installed library lists: `python -m yapit_plugin_espeak.listing > models.yaml`."""

import ctypes
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import espeakng_loader

from yapit_plugin_espeak import library as native

_HEAD = """\
# Written by `python -m yapit_plugin_espeak.listing` from what espeak-ng lists; a test fails when they differ.
- id: espeak
  backend: espeak
  tasks: [synthesize]
  description: espeak-ng 1.52, a formant synthesizer of {count} languages and accents; no download, no GPU
  licence: GPL-3.0-or-later
  sample_rate: 22050
  memory_bytes: 12_000_000
  defaults: {{voice: en-us}}
  speed_range: [0.5, 4.0]
"""
# OpenAI's names, each with the pitch and manner people know it by; then two names that espeak-ng itself lists.
_ALIASES = {
    "alloy": "en-us+f2",
    "ash": "en-us+m3",
    "ballad": "en+m2",
    "coral": "en-us+f3",
    "echo": "en-us+m1",
    "fable": "en+m7",
    "onyx": "en-us+m5",
    "nova": "en-us+f4",
    "sage": "en-us+f1",
    "shimmer": "en-us+f5",
    "verse": "en-us+m4",
    "marin": "en+f2",
    "cedar": "en-us+m8",
    "en-gb": "en",
    "fr-fr": "fr",
}
# Tags that are not well-formed BCP 47 as the library writes them.
_TAGS = {"chr-us-qaaa-x-west": "chr-Qaaa-US-x-west", "en-us-nyc": "en-US-x-nyc", "ru-cl": "ru-x-cl"}
_GENDERS = {1: "male", 2: "female"}
_SCRIPT, _REGION = 4, 2


class Listed(NamedTuple):
    """A voice of the library: the file name that chooses it, in lower case, and what it says of itself."""

    id: str
    name: str
    languages: list[str]
    gender: str | None


class _Voice(ctypes.Structure):
    """`espeak_VOICE` as far as it is read here; `languages` is a list of (priority byte, tag, NUL), then a NUL."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


def listed_voices(library: ctypes.CDLL) -> Iterator[Listed]:
    """Yield the voices that `espeak_ListVoices` has, less the few that have no dictionary in the shipped data."""
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    voices = library.espeak_ListVoices(None)
    index = 0
    while voices[index]:
        voice = voices[index].contents
        index += 1
        name = voice.identifier.decode().rpartition("/")[2].lower()
        if _has_dictionary(name.partition("-")[0]):
            tags = [_canonical(tag) for tag in _tags(voice.languages)]
            yield Listed(name, voice.name.decode().strip(), tags, _GENDERS.get(voice.gender))


def listed_variants() -> list[str]:
    """Return the names of the variants as they are written after `+`; the library tells upper from lower case."""
    return sorted(path.name for path in (Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir())


def render(library: ctypes.CDLL) -> str:
    """Return the text of `models.yaml`."""
    voices = list(listed_voices(library))
    languages = sorted({tag for voice in voices for tag in voice.languages})
    lines = [_HEAD.format(count=len(voices)), f"  languages: {_flow(languages)}\n"]
    lines.append(f"  voice_variants: {_flow(listed_variants())}\n")
    lines.append(f"  voice_aliases: {_flow(_ALIASES)}\n  voices:\n")
    for voice in voices:
        known = {key: value for key, value in voice._asdict().items() if value is not None}
        lines.append(f"    - {_flow(known)}\n")
    return "".join(lines)


def _has_dictionary(language: str) -> bool:
    shared = {"nb": "no", "hyw": "hy", "ltg": "lv"}  # voices that use another language's
    return (Path(espeakng_loader.get_data_path()) / f"{shared.get(language, language)}_dict").exists()


def _tags(address: int) -> Iterator[str]:
    while ctypes.string_at(address, 1) != b"\0":
        tag = ctypes.string_at(address + 1)
        yield tag.decode()
        address += len(tag) + 2


def _canonical(tag: str) -> str:
    """Return the tag in the case of BCP 47: en-US, zh-Latn, en-GB-x-rp."""
    if tag.lower() in _TAGS:
        return _TAGS[tag.lower()]
    public, private, rest = tag.lower().partition("-x-")
    first, *others = public.split("-")
    cased = [{_REGION: part.upper(), _SCRIPT: part.title()}.get(len(part), part) for part in others]
    return "-".join([first, *cased]) + private + rest


def _flow(value: object) -> str:
    """Return the value as JSON, which is YAML in flow style."""
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(render(native.load()))
