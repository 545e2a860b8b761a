"""Recordings as samples, cut into windows."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yapit.audio import Resampler

Samples = NDArray[np.float32]
SHORTEST_S = 0.1
SILENCE = 10 ** (-60 / 20)  # of full scale: models write down what they make up when nothing is louder
_QUIET_S = 0.1  # of the least sound, where a recording is cut


class Window(NamedTuple):
    """Some of a recording: its samples and the number of the first of them.

    `before` and `after` of them are heard for context and belong to the neighbours.
    """

    samples: Samples
    start: int
    before: int = 0
    after: int = 0


def resampled(samples: NDArray[np.int16], rate: int, wanted: int) -> Samples:
    """Return sound as floats in [-1, 1] at the rate that is wanted."""
    if rate != wanted:
        resampler = Resampler(rate, wanted)
        samples = np.frombuffer(resampler.process(samples.tobytes()) + resampler.finish(), "<i2")
    return samples.astype(np.float32) / np.float32(32768)


def overlapping(samples: Samples, length: int, context: int) -> Iterator[tuple[Window, bool]]:
    """Yield windows that have `context` samples in common with each neighbour's own, and whether it is the last."""
    for start in range(0, len(samples), length - 2 * context):
        part = samples[start : start + length]
        last = start + length >= len(samples)
        before = 0 if start == 0 else context
        yield Window(part, start, before, 0 if last else context), last
        if last:
            return


def quiet_cuts(samples: Samples, rate: int, window_s: float) -> Iterator[Window]:
    """Yield windows, each cut at the quietest place of its last third."""
    start, length, width = 0, round(window_s * rate), round(_QUIET_S * rate)
    while len(samples) - start > length:
        tail = samples[start + length * 2 // 3 : start + length]
        power = np.convolve(tail**2, np.ones(width, np.float32), "valid")
        end = start + length * 2 // 3 + int(power.argmin()) + width // 2
        yield Window(samples[start:end], start)
        start = end
    yield Window(samples[start:], start)


def sounding(samples: Samples, rate: int) -> tuple[int, int]:
    """Return where the first and the last sound is, equal if there is none."""
    loud = np.flatnonzero(np.abs(samples) >= max(SILENCE, float(np.abs(samples).max()) / 100))
    if not len(loud) or len(samples) < SHORTEST_S * rate:
        return 0, 0
    return int(loud[0]), int(loud[-1]) + 1
