"""The devices of this machine and how much memory each has."""

from functools import cache

import psutil

_CPUS = ("cpu", "mps")  # a Mac's GPU has the main memory


@cache
def default() -> str:
    """Return the device that `auto` probably means: the first NVIDIA GPU if there is one, else the processor."""
    return "cuda:0" if _cuda_bytes(0) else "cpu"


def named(device: str) -> str:
    """Return the one name of a device: `auto` and `cuda` are resolved, the others are taken as they are."""
    return {"auto": default(), "cuda": "cuda:0"}.get(device, device)


@cache
def total_bytes(device: str) -> int | None:
    """Return the memory of a device, or None where it is not known."""
    if device in _CPUS:
        return int(psutil.virtual_memory().total)
    kind, _, index = device.partition(":")
    return _cuda_bytes(int(index)) if kind == "cuda" and index.isdecimal() else None


@cache
def _cuda_bytes(index: int) -> int | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index)).total)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
