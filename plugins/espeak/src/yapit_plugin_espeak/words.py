"""From the library's marks to words of the text.

The library marks where it begins to speak something, which is rarely a whole word: "1984" has three marks, "don't" one
that is three characters long, an emoji one on the space behind it. So a word here is what stands between spaces, and in
scripts that write none, what stands between two marks.
"""

import unicodedata
from collections.abc import Iterable

from yapit import Word
from yapit_plugin_espeak.engine import Mark
from yapit_plugin_espeak.library import EVENT_CLAUSE_END, SAMPLE_RATE


class WordTracker:
    """Turns the marks of one piece of text into words, each as soon as its end is known.

    Args:
        text: the piece, with spaces in place of what is no text.
        offset: index of its first character in the request's text.
        start: samples of audio before it.
    """

    def __init__(self, text: str, offset: int, start: int) -> None:
        self._text = text
        self._offset = offset
        self._start = start
        self._begin: int | None = None  # index of the word being spoken
        self._begin_s = self._heard_s = start / SAMPLE_RATE
        self._floor = 0  # no later word starts before this index

    def hear(self, marks: Iterable[Mark]) -> tuple[Word, ...]:
        """Return the words that these marks complete, in order; words never overlap, in text or in time."""
        words: list[Word | None] = []
        for mark in marks:
            self._heard_s = time_s = max(self._heard_s, (self._start + mark.sample) / SAMPLE_RATE)
            if mark.kind == EVENT_CLAUSE_END:
                words.append(self._finish(mark.position, time_s))
                self._floor = max(self._floor, mark.position)
            elif self._begins(index := mark.position - 1):
                start = self._word_start(index)
                words.append(self._finish(index, time_s))
                self._begin, self._begin_s = start, time_s
                self._floor = index + 1
        return tuple(word for word in words if word is not None)

    def _begins(self, index: int) -> bool:
        """Tell whether a mark at this character begins a word, or is a further one in the word being spoken."""
        if not self._floor <= index < len(self._text) or self._text[index].isspace():
            return False
        if self._begin is None or any(map(_stands_alone, self._text[index - 1 : index + 1])):
            return True
        return any(map(str.isspace, self._text[self._begin : index]))

    def _word_start(self, index: int) -> int:
        """Return where the word around this character starts: long numbers are marked one digit late."""
        start = index
        while start > self._floor:
            before = self._text[start - 1]
            if before.isspace() or _stands_alone(before):
                return start
            start -= 1
        return index if self._begin is not None else start

    def _finish(self, limit: int, end_s: float) -> Word | None:
        """Return the word being spoken, which reaches no further than `limit`; None if it has no letter or sign."""
        if self._begin is None:
            return None
        start, self._begin = self._begin, None
        end = start
        while end < min(limit, len(self._text)) and not self._text[end].isspace():
            end += 1
        while start < end and _is_punctuation(self._text[start]):
            start += 1
        while end > start and _is_punctuation(self._text[end - 1]):
            end -= 1
        if start == end:
            return None
        return Word(text=self._text[start:end], start_s=self._begin_s, end_s=end_s, offset=self._offset + start)


def _stands_alone(character: str) -> bool:
    """Tell whether the character is of a script without spaces, where every mark is a word: Han, kana, Hangul."""
    return unicodedata.category(character) == "Lo" and unicodedata.east_asian_width(character) == "W"


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PCZ"
