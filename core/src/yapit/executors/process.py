"""Each model in a process of its own: what it does to memory, or to itself, does not reach the server."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import structlog

from yapit import __version__
from yapit.catalog import Model
from yapit.errors import BackendError, WorkerDiedError
from yapit.executors import Executor, Footprint
from yapit.executors.child import Child
from yapit.executors.wire import Load
from yapit.schemas import Chunk, Request
from yapit.settling import settle
from yapit.tasks import Task

_log = structlog.get_logger(__name__)


class ProcessExecutor(Executor):
    """One child per loaded model; when it dies its calls fail, and the model must be loaded again."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._children: dict[tuple[str, str], Child] = {}
        self._alive = set[Child]()  # those that start or end, too

    async def load(self, task: Task, model: Model) -> int:
        """Start the child and wait until it has loaded the model."""
        await self.unload(task, model)
        context = self.context_of(model)
        child = Child(task, model, self._died)
        self._alive.add(child)
        try:
            slots = await child.start(
                Load(
                    version=__version__,
                    task=task.name,
                    model=model,
                    device=context.device,
                    data_dir=str(context.data_dir),
                    plugin_settings={name: dict(section) for name, section in context.plugin_settings.items()},
                    # An environment of its own has its own plugins, which its owner chose.
                    plugins=None if model.python else tuple(self.plugins.names),
                )
            )
        except BaseException:
            await self._end(child)
            raise
        self._children[task.name, model.id] = child
        return slots

    async def stream(self, task: Task, model: Model, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of one call; the child has let go of it when this ends."""
        child = self._children.get((task.name, model.id))
        if child is None:
            # It died, and was unloaded before this call had begun.
            raise WorkerDiedError(f"The process that ran the model '{model.id}' is gone.")
        call = child.call(request)
        try:
            while (body := await call.bodies.get()) is not None:
                yield _decode(body, task, model)
                if (more := call.took()) is not None:
                    child.send(more)
            if call.error is not None:
                raise call.error
        finally:
            await settle(asyncio.ensure_future(child.leave(call)))

    async def unload(self, task: Task, model: Model) -> None:
        """End the child, so that everything it took is given back."""
        child = self._children.pop((task.name, model.id), None)
        if child is not None:
            await self._end(child)

    def footprint(self, task: Task, model: Model) -> Footprint:
        """Return what the child has said of itself."""
        child = self._children.get((task.name, model.id))
        return Footprint() if child is None else child.footprint

    def kill(self) -> None:
        """Kill the children."""
        for child in list(self._alive):
            child.kill()

    async def _end(self, child: Child) -> None:
        """End the child, also while being cancelled: nobody else will."""
        try:
            await settle(asyncio.ensure_future(child.end()))
        finally:
            self._alive.discard(child)

    def _died(self, task: Task, model: Model, error: WorkerDiedError) -> None:
        if self.on_death is not None:
            self.on_death(task, model, error)


def _decode(body: msgspec.Raw, task: Task, model: Model) -> Chunk:
    try:
        chunk: Chunk = msgspec.msgpack.decode(body, type=task.chunk)
    except msgspec.DecodeError as error:
        _log.exception("chunk_unreadable", task=task.name, model=model.id)
        raise BackendError(f"The model '{model.id}' yielded a {task.chunk.__name__} that cannot be read.") from error
    return chunk
