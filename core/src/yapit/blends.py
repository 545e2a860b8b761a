"""Mixtures of voices, in the three spellings that clients of Kokoro use.

af_bella,af_sky             equal shares
af_bella:60,af_sky:40       shares after a colon
af_bella(2)+af_sky(1)       shares in brackets, 1 where there are none; `-` takes a voice away
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from yapit.errors import InvalidInputError

_MOST = 32  # voices in one
_NAME, _NUMBER = r"[^\s,:()+-]+", r"\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}"
_SHARE = re.compile(
    rf"\s*(?P<sign>[-+,]?)\s*(?P<voice>{_NAME})\s*(?:\(\s*(?P<inner>{_NUMBER})\s*\)|:\s*(?P<after>{_NUMBER}))?\s*"
)
_MARKS = re.compile(r"[,:()+-]")


class Share(NamedTuple):
    """A voice and how much of it is in a blend; what is taken away has a negative weight."""

    voice: str
    weight: float


def is_blend(name: str) -> bool:
    """Tell whether a name has a mark of a blend in it."""
    return _MARKS.search(name) is not None


def read_blend(text: str) -> tuple[Share, ...]:
    """Return the voices of a blend in the order they are written, the smallest weight being 1.

    The name of a voice is a blend of it alone. Two spellings of one blend have the same shares.

    Raises:
        InvalidInputError: it is no blend, or nothing is in it.
    """
    shares, at = list[Share](), 0
    while at < len(text) and len(shares) < _MOST:
        match = _SHARE.match(text, at)
        if match is None or bool(match["sign"]) != bool(shares):
            break
        weight = float(match["inner"] or match["after"] or 1)
        shares.append(Share(match["voice"], -weight if match["sign"] == "-" else weight))
        at = match.end()
    if at < len(text) or not any(share.weight for share in shares):
        raise InvalidInputError(
            f"The voice '{text[:100]}' is neither a voice nor a blend such as 'one,two', 'one:60,two:40' or "
            f"'one(2)+two(1)' of at most {_MOST} voices with some weight.",
            param="voice",
        )
    return _scaled(shares)


def expand(shares: tuple[Share, ...], meaning: Callable[[str], str | None]) -> tuple[Share, ...]:
    """Return a blend in which names are replaced by what they stand for.

    Args:
        shares: of the blend.
        meaning: returns the voice or the blend that a name stands for, None for itself. A blend has the same weight in
            all as the name had.
    """
    expanded = list[Share]()
    for share in shares:
        inner = read_blend(meaning(share.voice) or share.voice)
        total = sum(abs(each.weight) for each in inner)
        expanded += [Share(each.voice, share.weight * each.weight / total) for each in inner]
    return _scaled(expanded)


def _scaled(shares: Sequence[Share]) -> tuple[Share, ...]:
    smallest = min(abs(share.weight) for share in shares if share.weight)
    return tuple(share._replace(weight=share.weight / smallest) for share in shares)


def spell_blend(shares: tuple[Share, ...]) -> str:
    """Return the one spelling of a blend that all others stand for."""
    if len(shares) == 1 and shares[0].weight > 0:
        return shares[0].voice
    parts = (f"{'-' if weight < 0 else '+'}{voice}({abs(weight):.9g})" for voice, weight in shares)
    return "".join(parts).removeprefix("+")
