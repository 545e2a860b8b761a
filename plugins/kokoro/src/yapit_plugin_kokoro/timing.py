"""When each word of a piece is heard, from the frames that the model gives each phoneme."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

_HALVES_PER_S = 80  # half frames: the space between two words belongs to both
_ONSET = 3  # frames that a word's sound begins before its own frames, as Kokoro's package counts


class Clock:
    """The times of the phonemes of one call.

    Args:
        phonemes: of the call.
        frames: of each phoneme that the model knows, and of the silences around them.
        vocabulary: the phonemes that the model knows.
    """

    def __init__(self, phonemes: str, frames: Sequence[int], vocabulary: Mapping[str, int]) -> None:
        known = iter(frames[1:-1])
        self._spaces = [character == " " for character in phonemes]
        self._frames = [next(known, 0) if character in vocabulary else 0 for character in phonemes]
        begin = 2 * max(0, frames[0] - _ONSET)
        self._edges = list(accumulate((2 * count for count in self._frames), initial=begin))

    def start_s(self, place: int) -> float:
        """Return when the word begins whose first phoneme is at `place`: in the middle of the space before it."""
        before = self._frames[place - 1] if place > 0 and self._spaces[place - 1] else 0
        return (self._edges[place] - before) / _HALVES_PER_S

    def end_s(self, place: int) -> float:
        """Return when the word ends whose last phoneme is before `place`: in the middle of the space after it."""
        after = self._frames[place] if place < len(self._frames) and self._spaces[place] else 0
        return (self._edges[place] + after) / _HALVES_PER_S
