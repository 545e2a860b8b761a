"""The engine: one `stream(task, model, request)` over all models, each loaded once and never run beyond its slots."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import structlog

from yapit.adapters import Context
from yapit.catalog import Catalog, Model
from yapit.errors import CapacityError, UnsupportedTaskError
from yapit.executors import Executor, executor
from yapit.plugins import Plugins
from yapit.schemas import Chunk, Request
from yapit.settings import Settings
from yapit.tasks import Task

State = Literal["available", "unserved", "loading", "loaded"]
_log = structlog.get_logger(__name__)


class _Resident:
    """A model that is loaded, or being loaded, for one task."""

    def __init__(self, task: Task, model: Model, loading: asyncio.Task[asyncio.Semaphore]) -> None:
        self.task = task
        self.model = model
        self.loading = loading
        self.running = 0


class Engine:
    """Loads models on first use and runs calls on them.

    Args:
        settings: the effective settings.
        plugins: the registered plugins.
        catalog: the models that are served.
    """

    def __init__(self, settings: Settings, plugins: Plugins, catalog: Catalog) -> None:
        self.settings = settings
        self.plugins = plugins
        self.catalog = catalog
        self._context = Context(
            device=settings.device, data_dir=Path(settings.data_dir), plugin_settings=settings.plugin_settings
        )
        self._executors: dict[str, Executor] = {}
        self._residents: dict[tuple[str, str], _Resident] = {}
        self._closed = False

    async def stream(self, task: Task, model: Model, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of one call; load the model first if need be, and wait for a free slot.

        Raises:
            UnsupportedTaskError: the model does not do this task.
            LoadError: the model could not be loaded.
            CapacityError: the engine is being closed.
        """
        resident = await self._resident(task, model)
        async with resident.loading.result():
            self._check_open()
            resident.running += 1
            try:
                chunks = self._executor(model).stream(task, model, request)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        yield chunk
            finally:
                resident.running -= 1

    async def load(self, task: Task, model: Model) -> None:
        """Load the model for the task, if it is not loaded."""
        await self._resident(task, model)

    async def unload(self, task: Task, model: Model) -> None:
        """Give back what the loaded model takes; the caller makes sure that no call runs."""
        if self._residents.pop((task.name, model.id), None) is not None:
            await self._executor(model).unload(task, model)
            _log.info("model_unloaded", task=task.name, model=model.id)

    def state(self, model: Model) -> State:
        """Return whether the model is loaded, or at least seems to have a plugin that serves it."""
        residents = [resident for (_, name), resident in self._residents.items() if name == model.id]
        if any(resident.loading.done() for resident in residents):
            return "loaded"
        if residents:
            return "loading"
        return "available" if self.plugins.serves(model) else "unserved"

    def running(self) -> int:
        """Return how many calls run now."""
        return sum(resident.running for resident in self._residents.values())

    async def close(self) -> None:
        """Unload everything; calls that come later get `CapacityError`."""
        self._closed = True
        for resident in self._residents.values():
            resident.loading.cancel()
        await asyncio.gather(*(resident.loading for resident in self._residents.values()), return_exceptions=True)
        for task, model in [(resident.task, resident.model) for resident in self._residents.values()]:
            await self.unload(task, model)

    async def _resident(self, task: Task, model: Model) -> _Resident:
        key = (task.name, model.id)
        resident = self._residents.get(key)
        if resident is None:
            self._check(task, model)
            resident = _Resident(task, model, asyncio.create_task(self._load(task, model), name=f"load {model.id}"))
            # Read here too: when every client left, nobody else asks how the load ended.
            resident.loading.add_done_callback(lambda load: load.cancelled() or load.exception())
            self._residents[key] = resident
        if not resident.loading.done():
            # Waited for and not awaited: a client that leaves must not stop the load that others wait for.
            await asyncio.wait([resident.loading])
        if resident.loading.cancelled():
            self._check_open()
        resident.loading.result()
        return resident

    async def _load(self, task: Task, model: Model) -> asyncio.Semaphore:
        try:
            slots = await self._executor(model).load(task, model)
        except BaseException as error:
            self._residents.pop((task.name, model.id), None)
            if isinstance(error, Exception):
                # The chain below holds what the plugin raised.
                _log.error("model_load_failed", task=task.name, model=model.id, exc_info=error)
            raise
        _log.info("model_loaded", task=task.name, model=model.id, max_concurrency=slots)
        return asyncio.Semaphore(slots)

    def _executor(self, model: Model) -> Executor:
        """Return the executor of the kind that the model's entry names, one for all models of that kind."""
        if model.executor not in self._executors:
            self._executors[model.executor] = executor(model.executor, self.plugins, self._context)
        return self._executors[model.executor]

    def _check_open(self) -> None:
        if self._closed:
            raise CapacityError("The server is shutting down.", retry_after_s=1)

    def _check(self, task: Task, model: Model) -> None:
        self._check_open()
        if task.name not in model.tasks:
            does = ", ".join(model.tasks)
            message = f"The model '{model.id}' does not {task.name}; it does: {does}."
            raise UnsupportedTaskError(message, param="model")
