"""How a call reaches its adapter: an executor loads adapters somewhere and streams their chunks back."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from importlib.metadata import entry_points
from typing import Any

import msgspec
from msgspec import Struct

from yapit.adapters import Context
from yapit.catalog import Model
from yapit.errors import LoadError, WorkerDiedError, did_you_mean
from yapit.plugins import Plugins
from yapit.schemas import Chunk, Request
from yapit.tasks import Task

GROUP = "yapit.executors"


def ahead(task: Task) -> int:
    """Return how many chunks an adapter may be ahead of their reader.

    The parts of a long answer wait for a reader, who may be slow; the answers to items are as many as were asked for.
    """
    return 512 if task.items else 16


class Footprint(Struct, frozen=True, kw_only=True):
    """What a loaded model takes, as far as its executor can tell.

    Args:
        device: where it turned out to be.
        memory_bytes: the most it has taken of that device so far.
        pid: the process that has it.
    """

    device: str | None = None
    memory_bytes: int | None = None
    pid: int | None = None


class Executor(ABC):
    """Runs adapters; one object serves all models of a process that use this kind.

    `on_death` is called when a loaded model is gone without having been unloaded: it must be loaded again.
    """

    on_death: Callable[[Task, Model, WorkerDiedError], None] | None = None

    def __init__(self, plugins: Plugins, context: Context) -> None:
        self.plugins = plugins
        self.context = context

    @abstractmethod
    async def load(self, task: Task, model: Model) -> int:
        """Load the model for the task and return its `max_concurrency`; the caller loads each pair once.

        Raises:
            LoadError: no plugin serves it, or loading failed.
            WorkerDiedError: the process that was to run it ended.
        """

    @abstractmethod
    def stream(self, task: Task, model: Model, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of one call to a loaded model.

        Closing the generator closes the adapter's iterator, and returns when the adapter has let go.
        """

    @abstractmethod
    async def unload(self, task: Task, model: Model) -> None:
        """Close the adapter; the caller makes sure that no call runs."""

    def footprint(self, task: Task, model: Model) -> Footprint:  # noqa: ARG002 - nothing is known by default
        """Return what is known of the loaded model's needs."""
        return Footprint()

    def kill(self) -> None:  # noqa: B027 - most executors have nothing that lives on without them
        """End at once whatever would outlive the server, without waiting."""

    def context_of(self, model: Model) -> Context:
        """Return the context with the model's own device, if it has one."""
        return self.context if model.device is None else msgspec.structs.replace(self.context, device=model.device)


def executor(name: str, plugins: Plugins, context: Context) -> Executor:
    """Return a new executor of the kind that the entry-point group `yapit.executors` knows as `name`.

    Raises:
        LoadError: nobody brings such an executor.
    """
    # Imported here: 40 ms that `import yapit` need not pay.
    from stevedore import DriverManager
    from stevedore.exception import NoMatches

    try:
        kind: Any = DriverManager(GROUP, name).driver
    except NoMatches as error:
        known = sorted(entry.name for entry in entry_points(group=GROUP))
        raise LoadError(f"executor '{name}' is not installed. {did_you_mean(name, known)}") from error
    made: Executor = kind(plugins, context)
    return made
