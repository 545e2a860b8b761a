"""Text as the library may have it: harmless characters, and short pieces so that every call takes turns with others."""

import re
from collections.abc import Iterator
from typing import NamedTuple

# About 30 s of speech, 1.3 MB and 30 ms of the library's time; 400 of the slowest characters make 9 minutes.
PIECE_CHARACTERS = 400

# NUL would end the text, U+0001 starts one of the library's inline commands, a lone surrogate is no UTF-8.
_UNSPEAKABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# Both crash espeak-ng 1.52. Nine marks with at most a letter between any two, as in an endless abbreviation, overrun
# its buffers; a hyphen that hangs between a sign and a letter makes it look for the word before the first.
_MARKS = ".,;:!?'\"()[]{}_-\u2013\u2014\u2018\u2019\u201c\u201d\u2026"
_MARK = f"[{re.escape(_MARKS)}]"
_OTHER_SIGNS = rf"(?:(?!{_MARK})\W){{0,99}}+"
_ENDLESS = re.compile(rf"(?:{_OTHER_SIGNS}(?:[^\W_]{_OTHER_SIGNS})?+{_MARK}){{9,}}")
_SPACES = str.maketrans(dict.fromkeys(_MARKS, " "))
_HANGING_HYPHEN = re.compile(r"(?<![\w\s])-(?=\D)")
_TAG = re.compile(r"(<!--.*?-->|<[^>]*>)", re.DOTALL)
# Where a text may be cut, best first, and whether the library pauses there.
_CUTS = (
    (re.compile(r"[.!?…]['\"”’)\]]*\s+|[。！？]+|\n\s*"), True),  # noqa: RUF001 - other scripts' full stops
    (re.compile(r"[,;:]\s+|[，；：、]"), True),  # noqa: RUF001 - other scripts' commas
    (re.compile(r"\s+"), False),
)


class Piece(NamedTuple):
    """A stretch of the text: where it starts, and whether a pause belongs after it."""

    text: str
    offset: int
    end_pause: bool


def speakable(text: str) -> str:
    """Return the text with a space in place of each character that the library must not see there."""
    text = _HANGING_HYPHEN.sub(" ", _UNSPEAKABLE.sub(" ", text))
    return _ENDLESS.sub(lambda run: run[0].translate(_SPACES), text)


def speakable_markup(text: str) -> str:
    """Return marked-up text made speakable between the tags; in the tags only what is no text is replaced."""
    parts = _TAG.split(text)
    parts[::2] = map(speakable, parts[::2])
    return _UNSPEAKABLE.sub(" ", "".join(parts))


def without_tags(text: str) -> str:
    """Return marked-up text with spaces in place of the tags, every other character where it was."""
    return _TAG.sub(lambda tag: " " * len(tag[0]), text)


def cut(text: str, limit: int = PIECE_CHARACTERS) -> Iterator[Piece]:
    """Yield pieces of at most `limit` characters that together are the text, cut after sentences where possible."""
    start = 0
    while len(text) - start > limit:
        end, pause = _cut_before(text, start, start + limit)
        yield Piece(text[start:end], start, pause)
        start = end
    if start < len(text):
        yield Piece(text[start:], start, end_pause=False)


def _cut_before(text: str, start: int, limit: int) -> tuple[int, bool]:
    for pattern, pause in _CUTS:
        ends = [match.end() for match in pattern.finditer(text, start, limit)]
        if ends:
            return ends[-1], pause
    return limit, False
