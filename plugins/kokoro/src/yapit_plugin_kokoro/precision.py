"""In which precision the sound is made: the fastest one whose sound cannot be told from float32's."""

import math
from typing import Any

import structlog
import torch

from yapit.computing import fast_bfloat16

BOUND_DB = 1.0  # between log-mel spectrograms, on average; less than anybody hears
_FLOOR_DB = 80.0  # below the loudest; what is softer is not compared
_SAMPLE_RATE, _WINDOW, _HOP, _BANDS = 24_000, 1024, 256, 80
_log = structlog.get_logger(__name__)


class Rounded(torch.nn.Module):  # type: ignore[misc]  # torch's types are not read
    """A module that computes in a smaller dtype, and gives float32.

    Args:
        inner: the module.
        dtype: of what may be rounded; the rest stays float32.
    """

    def __init__(self, inner: torch.nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = inner
        self.dtype = dtype

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return what the module makes of these."""
        with torch.autocast(inputs[0].device.type, self.dtype):
            return self.inner(*inputs).float()


def candidates(wanted: str, device: torch.device) -> list[torch.dtype]:
    """Return the dtypes to try before float32, fastest first."""
    if wanted != "auto":
        return [] if wanted == "float32" else [getattr(torch, wanted)]
    if device.type == "cuda":
        return [torch.float16, torch.bfloat16] if torch.cuda.is_bf16_supported() else [torch.float16]
    if device.type == "cpu" and fast_bfloat16():
        return [torch.bfloat16]
    return []


def difference_db(made: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the mean absolute difference of two sounds' log-mel spectrograms; infinite if one is no sound."""
    if made.shape != reference.shape or not (made.isfinite().all() and reference.isfinite().all()):
        return math.inf
    powers = torch.stack([_mel_power(made), _mel_power(reference)])
    loudest = float(powers[1].max())
    if loudest <= 0:
        return math.inf
    levels = 10 * torch.log10(powers.clamp_min(loudest * 10 ** (-_FLOOR_DB / 10)))
    return float((levels[0] - levels[1]).abs().mean())


def _mel_power(sound: torch.Tensor) -> torch.Tensor:
    window = torch.hann_window(_WINDOW)
    spectrum = torch.stft(sound.float().cpu(), _WINDOW, _HOP, window=window, return_complex=True)
    return _filters() @ spectrum.abs().square()


def _filters() -> torch.Tensor:
    """Return triangles on the mel scale, [bands, frequencies]."""
    top = 2595 * math.log10(1 + _SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, _BANDS + 2) / 2595) - 1)
    frequencies = torch.linspace(0, _SAMPLE_RATE / 2, _WINDOW // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp_min(0)
