"""Log-probabilities as the routes tell them."""

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate

from msgspec import Struct, field

from yapit.schemas import LikelyToken, TokenLogprob

_IMPOSSIBLE = -9999.0  # JSON has no infinity


class Token(Struct, frozen=True):
    """A token, its natural log-probability and its UTF-8."""

    token: str
    logprob: float
    utf8: list[int] = field(name="bytes")


class WrittenToken(Struct, frozen=True):
    """A token that was written, and the likeliest ones at its place."""

    token: str
    logprob: float
    utf8: list[int] = field(name="bytes")
    top_logprobs: list[Token] = field()


def written(tokens: Iterable[TokenLogprob]) -> list[WrittenToken]:
    """Return the tokens as chat and responses tell them."""
    return [
        WrittenToken(token.text, finite(token.logprob), _utf8(token), [_token(likely) for likely in token.top])
        for token in tokens
    ]


def finite(logprob: float) -> float:
    """Return the log-probability as JSON can say it."""
    return max(logprob, _IMPOSSIBLE)


def _token(token: LikelyToken) -> Token:
    return Token(token.text, finite(token.logprob), _utf8(token))


def _utf8(token: LikelyToken) -> list[int]:
    return list(token.data or token.text.encode())


class ListedTokens(Struct, frozen=True, kw_only=True):
    """The tokens as completions tell them: lists side by side; `text_offset` counts characters of the text.

    What has no log-probability, as the first token of a prompt, has null.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


def listed(tokens: Sequence[TokenLogprob], offset: int = 0) -> ListedTokens:
    """Return the tokens as completions tell them, beginning at character `offset`."""
    offsets = accumulate((len(token.text) for token in tokens), initial=offset)
    return ListedTokens(
        tokens=[token.text for token in tokens],
        token_logprobs=[None if math.isnan(token.logprob) else finite(token.logprob) for token in tokens],
        top_logprobs=[None if math.isnan(token.logprob) else _likeliest(token) for token in tokens],
        text_offset=list(offsets)[:-1],
    )


def _likeliest(token: TokenLogprob) -> dict[str, float]:
    """Return the likeliest tokens and the one that was written."""
    found = {token.text: finite(token.logprob)}
    for likely in token.top:
        found.setdefault(likely.text, finite(likely.logprob))
    return found
