"""How many parameters a model has, as the heads of its safetensors files say."""

import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

_LENGTH = 8  # bytes that say how long the head is
_LONGEST = 100_000_000  # bytes of a head, as the format allows
_INDEX = "model.safetensors.index.json"
# What packs several numbers into one of a tensor: who counts those is wrong.
_PACKED = (".qweight", ".weight_packed", ".quant_map", ".absmax", "_blocks")


class _Tensor(msgspec.Struct):
    shape: list[int]


def parameters(places: Iterable[Path]) -> int | None:
    """Return the parameters of files, and of the files in folders; None if they cannot be counted.

    Args:
        places: what a model needs, as it is on this machine; what is no safetensors is not counted.
    """
    counts = [_counted(file) for place in places for file in _files(place)]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _files(place: Path) -> list[Path]:
    """Return the files of a place: those that its index names, or all that lie there."""
    if place.suffix == ".safetensors" and place.is_file():
        return [place]
    try:
        index = msgspec.json.decode((place / _INDEX).read_bytes())
        return sorted({place / name for name in index["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        whole = place / "model.safetensors"
        return [whole] if whole.is_file() else sorted(place.glob("*.safetensors"))


def _counted(file: Path) -> int | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return _of_file(file.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1000)
def _of_file(file: Path, _mtime_ns: int, size: int) -> int | None:
    """Return the parameters of a file, which is read again only when it is another one."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(_LENGTH), "little")
            if length > min(_LONGEST, size):
                return None
            head: dict[str, Any] = msgspec.json.decode(opened.read(length))
        head.pop("__metadata__", None)
        tensors = msgspec.convert(head, dict[str, _Tensor])
    except (OSError, ValueError, AttributeError):
        return None
    if any(name.endswith(_PACKED) for name in tensors):
        return None
    return sum(math.prod(tensor.shape) for tensor in tensors.values())
