"""Cutting a long request into pieces that run one after the other, and their answers back into order."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch

ResultT = TypeVar("ResultT")

_DEFAULT_TOKENS = 16_384
# Above a thousand tokens a CPU gains nothing more from a larger piece; a smaller one is answered, or cancelled, sooner.
_CPU_TOKENS = 2048
_PADDING = 1 / 8  # of a piece at most; another piece costs less …
_SMALL_TOKENS = 256  # … unless what is padded is as little as this


def tokens_at_once(batch_tokens: int | None, device: torch.device) -> int:
    """Return what a piece may cost: tokens, padding counted."""
    limit = batch_tokens or _DEFAULT_TOKENS
    return min(limit, _CPU_TOKENS) if device.type == "cpu" else limit


def groups(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Yield the places of inputs that run together, the shortest first.

    An input over the limit runs alone.

    Args:
        lengths: tokens of each input.
        limit: what a group may cost: its size times its longest input.
    """
    group: list[int] = []
    used = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[place]
        whole = (len(group) + 1) * length
        padding = whole - used - length
        if group and (whole > limit or padding > max(_SMALL_TOKENS, whole * _PADDING)):
            yield group
            group, used = [], 0
        group.append(place)
        used += length
    if group:
        yield group


def in_order(results: Iterable[tuple[int, ResultT]]) -> Iterator[ResultT]:
    """Yield results by their place, each as soon as those before it are there."""
    early: dict[int, ResultT] = {}
    following = 0
    for place, result in results:
        early[place] = result
        while following in early:
            yield early.pop(following)
            following += 1
