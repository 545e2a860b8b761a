"""Tokens as text and bytes, and words in their places in a segment."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from yapit import LikelyToken, Word

_LEAST = 1e-30  # a probability whose logarithm is a number


class Speller:
    """Spells a model's tokens.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes = {letter: byte for byte, letter in bytes_to_unicode().items()}

    def likely(self, tokens: Iterable[tuple[int, float]]) -> tuple[LikelyToken, ...]:
        """Return tokens with their log-probabilities."""
        return tuple(self._token(token, probability) for token, probability in tokens)

    def _token(self, token: int, probability: float) -> LikelyToken:
        letters = self._tokenizer.id_to_token(token) or ""
        data = bytes(self._bytes[letter] for letter in letters if letter in self._bytes)
        return LikelyToken(text=data.decode("utf-8", "replace"), logprob=math.log(max(probability, _LEAST)), data=data)


class Place(NamedTuple):
    """Where a chapter lies in its recording, in seconds; what is in it does not last longer than it."""

    start_s: float
    end_s: float

    def time_s(self, inside_s: float) -> float:
        """Return a time of the chapter as a time of the recording."""
        return min(float(self.start_s + inside_s), self.end_s)


def words_in(text: str, found: Iterable[Any], chapter: Place) -> tuple[Word, ...]:
    """Return faster-whisper's words of a segment, with their places in its text.

    Args:
        text: of the segment.
        found: its words.
        chapter: that they are in.
    """
    words, place = [], 0
    for word in found:
        spelt = word.word.strip()
        offset = text.find(spelt, place)
        rest = text[place:].strip()
        if offset < 0 and rest and spelt.startswith(rest):  # its end belongs to the next segment's text
            spelt, offset = rest, text.find(rest, place)
        if not spelt or offset < 0:
            continue
        place = offset + len(spelt)
        start_s, end_s = chapter.time_s(word.start), chapter.time_s(word.end)
        words.append(Word(text=spelt, start_s=start_s, end_s=end_s, offset=offset))
    return tuple(words)
