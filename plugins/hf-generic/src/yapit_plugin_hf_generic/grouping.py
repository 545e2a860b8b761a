"""Cutting a long request into pieces that run one after the other, and their answers back into order."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from msgspec import Struct

ResultT = TypeVar("ResultT")

_DEFAULT_TOKENS = 16_384
# Above a thousand tokens a CPU gains nothing more from a larger piece; a smaller one is answered, or cancelled, sooner.
_CPU_TOKENS = 2048
# What another piece costs by itself, in tokens. A small transformer takes 65 µs of a CPU for a token and 1.5 ms for a
# piece, a larger one more for a token; a GPU is about as long at a piece of a thousand tokens as at one of a hundred.
_CPU_PADDING, _GPU_PADDING = 48, 512
_PADDING = 1 / 8  # of a large piece at most


class Piece(Struct, frozen=True):
    """What may run together: `tokens` at most, padding counted, of which `padding` is less than another piece costs."""

    tokens: int
    padding: int


def piece(batch_tokens: int | None, device: torch.device) -> Piece:
    """Return what runs together on a device, with the limit of a model's entry."""
    limit = batch_tokens or _DEFAULT_TOKENS
    return Piece(min(limit, _CPU_TOKENS), _CPU_PADDING) if device.type == "cpu" else Piece(limit, _GPU_PADDING)


def groups(lengths: Sequence[int], most: Piece) -> Iterator[list[int]]:
    """Yield the places of inputs that run together, the shortest first.

    An input over the limit runs alone.

    Args:
        lengths: tokens of each input.
        most: that a group may have: its size times its longest input.
    """
    group: list[int] = []
    used = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[place]
        whole = (len(group) + 1) * length
        padding = whole - used - length
        if group and (whole > most.tokens or padding > max(most.padding, whole * _PADDING)):
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
