"""What plugins share that compute with torch, which they bring: its threads, its devices, what a CPU is quick at."""

import os
from typing import TYPE_CHECKING

from yapit.errors import LoadError

if TYPE_CHECKING:  # nothing in the core imports it
    import torch


def before_torch() -> None:
    """Let idle threads sleep: on busy cores, threads that spin make a small model a hundred times slower.

    OpenMP reads this when torch is imported, and never again.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def device_of(wanted: str) -> "torch.device":
    """Return the device that `auto`, `cpu`, `cuda`, `cuda:N` or `mps` means here.

    Raises:
        LoadError: there is none of that kind.
    """
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    expected = f"There is no device '{wanted}': expected auto, cpu, cuda, cuda:N or mps."
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise LoadError(expected) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise LoadError(expected)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise LoadError(f"There is no device '{wanted}': this machine has {count} CUDA devices.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise LoadError("There is no device 'mps' on this machine.")
    return device


def fast_bfloat16() -> bool:
    """Tell whether this CPU computes in bfloat16 itself; others are slower in it than in float32."""
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)
