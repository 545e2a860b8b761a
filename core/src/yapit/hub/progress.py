"""How far a transfer is."""

import time
from collections import deque

from msgspec import Struct

from yapit.hub.layout import kept_bytes
from yapit.hub.repositories import File, Plan

_WINDOW_S = 5.0  # over which the rate is measured


class Progress(Struct, frozen=True, kw_only=True):
    """How far a transfer is.

    Args:
        files_done: that are whole, those that were here too.
        files_total: of the snapshot.
        bytes_done: that are here, those that were here too.
        bytes_total: of the snapshot.
        bytes_per_s: that came over the last few seconds.
        eta_s: seconds until the end at this rate; None while nothing comes.
    """

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    bytes_per_s: float = 0.0
    eta_s: float | None = None


class Rate:
    """How fast bytes come."""

    def __init__(self) -> None:
        self._received = 0
        self._samples = deque([(time.monotonic(), 0)])

    def received(self, count: int) -> None:
        """Note that so many bytes came over the network."""
        self._received += count

    def bytes_per_s(self) -> float:
        """Return what came over the last few seconds."""
        now = time.monotonic()
        self._samples.append((now, self._received))
        while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW_S:  # noqa: PLR2004 - a rate needs two
            self._samples.popleft()
        since, before = self._samples[0]
        return (self._received - before) / max(now - since, 1e-3)


class Meter:
    """Counts what comes.

    Args:
        plan: what the transfer will do.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._files_done = len(plan.here)
        # What is here of each content that was missing.
        missing = {file.etag: file for file in plan.files if file.name not in plan.here}
        self._parts = {etag: kept_bytes(plan.repository, file) for etag, file in missing.items()}
        self._rate = Rate()

    def at(self, file: File, size_bytes: int) -> None:
        """Note how much of a content is here."""
        self._parts[file.etag] = size_bytes

    def received(self, count: int) -> None:
        """Note that so many bytes came over the network."""
        self._rate.received(count)

    def whole(self, files: int) -> None:
        """Note that so many more files are whole."""
        self._files_done += files

    def progress(self) -> Progress:
        """Return how far the transfer is."""
        rate = self._rate.bytes_per_s()
        done = self._plan.bytes_here + sum(self._parts.values())
        left = self._plan.bytes_total - done
        return Progress(
            files_done=self._files_done,
            files_total=len(self._plan.files),
            bytes_done=done,
            bytes_total=self._plan.bytes_total,
            bytes_per_s=rate,
            eta_s=0.0 if left <= 0 else left / rate if rate else None,
        )
