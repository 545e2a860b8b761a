"""Which items run together: what each costs, which are near in length, and what a batch may cost now."""

import asyncio
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Protocol, TypeVar

_BYTES_PER_TOKEN = 4  # of text in Latin letters; others have fewer tokens a byte, or as many
_IMAGE_TOKENS = 256
_COOL_DOWN_S = 60.0  # after running out of memory, until batches may be twice as large again
_PADDING = 1 / 8  # of a batch at most: below it, another batch costs more than what it saves …
_SMALL_TOKENS = 256  # … and so does a batch for less padding than this


class Sized(Protocol):
    """What has a length."""

    @property
    def tokens(self) -> int:
        """Its length, at least 1."""


SizedT = TypeVar("SizedT", bound=Sized)


def tokens(value: Any) -> int:
    """Return about how many tokens an item has; of a list of tokens, exactly; at least 1."""
    if is_token_list(value):
        return max(1, len(value))
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 1
    if isinstance(value, tuple):
        return sum(map(tokens, value))
    return _IMAGE_TOKENS


def is_token_list(value: Any) -> bool:
    """Return whether the item's tokens are known and not guessed."""
    return isinstance(value, tuple) and all(isinstance(token, int) for token in value)


def cost(items: Iterable[Sized]) -> int:
    """Return the tokens of a batch, padding counted."""
    lengths = [item.tokens for item in items]
    return len(lengths) * max(lengths)


def nearest(head: SizedT, pool: Iterable[SizedT], limit: int) -> list[SizedT]:
    """Return the head and those of the pool that are nearest to it in length, sorted by length.

    Args:
        head: one of the pool; it is taken even if it is over the limit by itself.
        pool: those to choose from.
        limit: what they may cost together.
    """
    line = sorted(pool, key=lambda item: item.tokens)
    before = [0, *accumulate(item.tokens for item in line)]

    def fit(left: int, right: int) -> bool:
        whole = (right - left) * line[right - 1].tokens
        padding = whole - (before[right] - before[left])
        return whole <= limit and padding <= max(_SMALL_TOKENS, whole * _PADDING)

    left = line.index(head)
    right = left + 1
    while True:
        shorter = left > 0 and fit(left - 1, right)
        longer = right < len(line) and fit(left, right + 1)
        if shorter and longer:
            shorter = head.tokens - line[left - 1].tokens <= line[right].tokens - head.tokens
        if shorter:
            left -= 1
        elif longer:
            right += 1
        else:
            return line[left:right]


class Budget:
    """What a batch may cost: less for a while after the memory did not suffice.

    Args:
        full: tokens, padding counted.
    """

    def __init__(self, full: int) -> None:
        self.full = full
        self._now = full
        self._cool_at = 0.0  # time of the event loop

    def now(self) -> int:
        """Return the tokens of a batch now."""
        time = asyncio.get_running_loop().time()
        while self._now < self.full and time >= self._cool_at:
            self._now = min(2 * self._now, self.full)
            self._cool_at += _COOL_DOWN_S
        return self._now

    def halve(self, spent: int) -> None:
        """Note that a batch that cost so much was too large."""
        self._now = max(1, min(self._now, spent) // 2)
        self._cool_at = asyncio.get_running_loop().time() + _COOL_DOWN_S
