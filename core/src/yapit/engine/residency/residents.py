"""A model that is loaded, or on its way, and what happened to it."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from typing import Literal, Protocol

from yapit.catalog import Model
from yapit.engine.meters import Meter
from yapit.executors import Executor
from yapit.schemas import Chunk, Request
from yapit.tasks import Task

State = Literal["loading", "loaded", "unloading"]
Key = tuple[str, str]  # task and model


class Gone(Exception):  # noqa: N818 - no failure: whoever waits asks for the model anew
    """The loaded model went away before a call that waited for it had begun."""


class Runner(Protocol):
    """What runs the calls of one loaded model, within its slots."""

    @property
    def queued(self) -> int:
        """How many requests wait."""

    def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of one call, when its turn comes."""

    def refuse(self, error: Exception) -> None:
        """Send those that wait away."""

    async def close(self) -> None:
        """Return when nothing runs any more."""


class Resident:
    """A model that is loaded for one task, or being loaded or unloaded.

    Args:
        task: the task.
        model: the model.
        executor: what runs it.
        device: where it is, as far as is known.
        meter: where it is measured.
    """

    def __init__(self, task: Task, model: Model, executor: Executor, device: str, meter: Meter) -> None:
        self.task = task
        self.model = model
        self.executor = executor
        self.device = device
        self.meter = meter
        self.key: Key = (task.name, model.id)
        self.state: State = "loading"
        self.loading: asyncio.Task[None] | None = None
        self.runner: Runner | None = None
        self.users = 0  # calls that wait for it or run on it, and holds
        self.nested = 0  # of these, calls of requests that hold it
        self.claims = set[Resident]()  # loads that wait until this one has gone
        self.outdated = ""  # why it is not the model that the catalog has now
        self.admitted = False  # counts against the limits
        self.memory_bytes = 0  # measured, or else estimated
        self.measured = False
        self.waits_for = ""  # what keeps it from being loaded
        self.loaded_at: float | None = None
        self.used = time.monotonic()
        self.used_at = time.time()
        self.keep_alive_s = math.inf
        self.expiry: asyncio.TimerHandle | None = None
        self.pid: int | None = None

    @property
    def queued(self) -> int:
        """How many requests wait for a slot."""
        return self.runner.queued if self.runner is not None else 0

    @property
    def running(self) -> int:
        """How many requests are being served."""
        return self.requests - self.queued if self.state == "loaded" else 0

    @property
    def requests(self) -> int:
        """How many requests are being served, those that wait included."""
        return self.users - self.nested

    @property
    def expires_at(self) -> float | None:
        """When it is unloaded if nobody asks for it, in seconds since 1970."""
        return None if self.users or math.isinf(self.keep_alive_s) else self.used_at + self.keep_alive_s

    def touch(self) -> None:
        """Note that it is used now."""
        self.used, self.used_at = time.monotonic(), time.time()

    def stop_timer(self) -> None:
        """Let it not expire."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None

    def measure(self) -> int | None:
        """Take over what the executor knows; return the memory, if that is measured."""
        footprint = self.executor.footprint(self.task, self.model)
        self.pid = footprint.pid
        if footprint.memory_bytes is not None:
            self.memory_bytes, self.measured = footprint.memory_bytes, True
            self.device = footprint.device or self.device
        return footprint.memory_bytes
