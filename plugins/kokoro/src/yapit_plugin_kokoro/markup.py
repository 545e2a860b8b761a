"""From a request's text to what is said of it: pauses, passages, and words whose phonemes or stress are given.

[pause:0.5s]                silence, also in ms; at most ten seconds
[Kokoro](/kˈOkəɹO/)         a word and its phonemes, as misaki writes them
[can](+2)                   a word and by how much its stress is raised, or lowered; in English
"""

# ruff: noqa: RUF002 - phonemes are meant

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from yapit import text as sentences

_LONGEST_PAUSE_S = 10.0
_BLOCK = 400  # characters that are read together; what they sound like is cut again where it is too long
_PAUSE = r"\[pause:\s*(?P<count>\d{1,6}(?:\.\d{0,6})?|\.\d{1,6})\s*(?P<unit>ms|s)\s*\]"
_LINK = r"\[(?P<word>[^\[\]]+)\]\((?:/(?P<phonemes>[^/()]*)/|(?P<stress>[+-]?(?:[0-2]|0?\.5)))\)"
_MARKUP = re.compile(f"{_PAUSE}|{_LINK}", re.IGNORECASE)
_PARAGRAPH = re.compile(r"[^\S\r\n]*(?:\r\n|\r|\n)\s*(?:\r\n|\r|\n)\s*")
_SILENT = {"Cc", "Cf", "Cs", "Co", "Cn"}  # characters that no voice says, …
_JOINERS = "\u200c\u200d"  # … but for those that shape Indic letters


class Pause(NamedTuple):
    """Silence."""

    seconds: float


class Given(NamedTuple):
    """The phonemes of the characters from `start` to before `stop` of a passage; or how their stress changes."""

    start: int
    stop: int
    phonemes: str
    stress: float | None = None


class Passage(NamedTuple):
    """Text that is read at once.

    Args:
        text: without markup, its white space single spaces.
        places: for each of its characters, the index in the request's text.
        given: words whose phonemes or stress are known, in order.
    """

    text: str
    places: Sequence[int]
    given: tuple[Given, ...] = ()

    def cut(self, start: int, stop: int) -> "Passage":
        """Return the passage from `start` to before `stop`, without white space at its edges."""
        while start < stop and self.text[start] == " ":
            start += 1
        while start < stop and self.text[stop - 1] == " ":
            stop -= 1
        given = tuple(
            each._replace(start=each.start - start, stop=each.stop - start)
            for each in self.given
            if start <= each.start and each.stop <= stop
        )
        return Passage(self.text[start:stop], self.places[start:stop], given)


def read(text: str, *, markup: bool, lexicon: Mapping[str, str]) -> Iterator[Pause | Passage]:
    """Yield what is to be said and where to be silent, in order.

    Args:
        text: of the request.
        markup: whether brackets mean anything.
        lexicon: words, and the phonemes that are said for them; the exact spelling goes first, then any case.
    """
    words = _finder(lexicon)
    writing = _Writing()
    at = 0
    for match in _MARKUP.finditer(text) if markup else ():
        writing.add(text, at, match.start())
        at = match.end()
        if match["count"] is None:
            stress = None if match["stress"] is None else float(match["stress"])
            writing.give(text, *match.span("word"), match["phonemes"] or "", stress)
            continue
        yield from _blocks(writing.take(), words, lexicon)
        yield Pause(min(float(match["count"]) / (1000 if match["unit"].casefold() == "ms" else 1), _LONGEST_PAUSE_S))
    writing.add(text, at, len(text))
    yield from _blocks(writing.take(), words, lexicon)


class _Writing:
    """Collects characters, their places, and where paragraphs end."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._characters: list[str] = []
        self._places: list[int] = []
        self._given: list[Given] = []
        self._ends: list[int] = []

    def add(self, text: str, start: int, stop: int) -> None:
        """Add what stands from `start` to before `stop`: single spaces for white space, and nothing for no sound."""
        for match in _PARAGRAPH.finditer(text, start, stop):
            self._line(text, start, match.start())
            self._ends.append(len(self._characters))
            start = match.end()
        self._line(text, start, stop)

    def give(self, text: str, start: int, stop: int, phonemes: str, stress: float | None = None) -> None:
        """Add a word and its phonemes, or its stress."""
        begin = len(self._characters)
        self._line(text, start, stop)
        stop = len(self._characters)
        while begin < stop and self._characters[begin] == " ":
            begin += 1
        while begin < stop and self._characters[stop - 1] == " ":
            stop -= 1
        if begin < stop:
            self._given.append(Given(begin, stop, phonemes, stress))

    def take(self) -> list[Passage]:
        """Return the paragraphs and forget them."""
        whole = Passage("".join(self._characters), self._places, tuple(self._given))
        edges = [0, *self._ends, len(self._characters)]
        self._clear()
        return [whole.cut(start, stop) for start, stop in pairwise(edges)]

    def _line(self, text: str, start: int, stop: int) -> None:
        for place in range(start, stop):
            character = text[place]
            if character.isspace():
                if not self._characters or self._characters[-1] == " ":
                    continue
                character = " "
            elif unicodedata.category(character) in _SILENT and character not in _JOINERS:
                continue
            self._characters.append(character)
            self._places.append(place)


def _blocks(passages: list[Passage], words: re.Pattern[str] | None, lexicon: Mapping[str, str]) -> Iterator[Passage]:
    for passage in passages:
        looked_up = _with_lexicon(passage, words, lexicon)
        for start, stop in _sentences(looked_up):
            block = looked_up.cut(start, stop)
            if block.text:
                yield block


def _sentences(passage: Passage) -> Iterator[tuple[int, int]]:
    """Yield the edges of stretches of whole sentences, each as long as may be."""
    start = end = stop = 0  # of the stretch, of the sentences in it, of what was looked at
    for piece in sentences.split(passage.text, first_chars=_BLOCK, max_chars=_BLOCK):
        if stop + len(piece) - start > _BLOCK and end > start:
            yield start, end
            start = end
        stop += len(piece)
        # A word with phonemes is never cut.
        if not any(given.start < stop < given.stop for given in passage.given):
            end = stop
    if stop > start:
        yield start, stop


def _finder(lexicon: Mapping[str, str]) -> re.Pattern[str] | None:
    if not lexicon:
        return None
    longest_first = sorted(lexicon, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)


def _with_lexicon(passage: Passage, words: re.Pattern[str] | None, lexicon: Mapping[str, str]) -> Passage:
    if words is None:
        return passage
    folded = {word.casefold(): phonemes for word, phonemes in lexicon.items()}
    found = [
        Given(match.start(), match.end(), lexicon.get(match[0]) or folded.get(match[0].casefold(), ""))
        for match in words.finditer(passage.text)
    ]
    free = (
        each
        for each in found
        if not any(each.start < other.stop and other.start < each.stop for other in passage.given)
    )
    return passage._replace(given=tuple(sorted((*passage.given, *free))))
