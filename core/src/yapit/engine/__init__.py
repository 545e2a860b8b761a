"""The engine: one `stream(task, model, request)` over all models, whatever has to happen before and after the call."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from msgspec import Struct

from yapit.adapters import Context
from yapit.catalog import Catalog, Model
from yapit.engine.batching import Batcher
from yapit.engine.cache import Cache, Layer
from yapit.engine.cache.keys import Keys
from yapit.engine.meters import Gauge, Meters
from yapit.engine.residency import Residency
from yapit.engine.residency.history import Event
from yapit.engine.residency.residents import Gone, Resident, Runner
from yapit.engine.turns import Limits, Line, Slots
from yapit.errors import UnsupportedTaskError, WorkerDiedError, YapitError
from yapit.executors import Executor, executor
from yapit.plugins import Plugins
from yapit.schemas import Chunk, Request
from yapit.settings import Settings
from yapit.tasks import TASKS, Task
from yapit.tickets import Ticket, current

__all__ = ["Engine", "Event", "Resident", "Status"]


class Status(Struct, frozen=True, kw_only=True):
    """How a model is: `value` is unloaded, loading, loaded, unloading, failed or unserved; `reason` says why."""

    value: str
    reason: str | None = None


class Engine:
    """Loads models on first use and runs calls on them.

    Args:
        settings: the effective settings.
        plugins: the registered plugins.
        catalog: the models that are served, or what returns those that are served now.
        ready: is awaited before a model is loaded: returns when its weights are here, or raises.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: Plugins,
        catalog: Catalog | Callable[[], Catalog],
        ready: Callable[[Model], Awaitable[None]] | None = None,
    ) -> None:
        self.settings = settings
        self.plugins = plugins
        self._catalog = catalog
        self._ready = ready
        self._context = Context(
            device=settings.device, data_dir=Path(settings.data_dir), plugin_settings=settings.plugin_settings
        )
        self._executors: dict[str, Executor] = {}
        self.meters = Meters(plugins.owner, self._gauges)
        self.residency = Residency(settings.engine, settings.device, self._executor, self._runner, self.meters)
        self.keys = Keys(plugins, settings.plugin_settings)
        self.cache = Cache(settings.cache, Path(settings.data_dir) / "cache")

    @property
    def catalog(self) -> Catalog:
        """The models that are served now."""
        return self._catalog if isinstance(self._catalog, Catalog) else self._catalog()

    def catch_up(self) -> None:
        """Let loaded models go whose entries have changed, or are gone: at once, or when nobody uses them any more."""
        self.residency.outdate({model.id: model for model in self.catalog})

    def check(self, task: Task, model: Model) -> None:
        """Refuse calls that could not be served.

        Raises:
            UnsupportedTaskError: the model does not do this task.
            CapacityError: the engine is being closed.
        """
        self.residency.check_open()
        if task.name not in model.tasks:
            does = ", ".join(model.tasks) or "nothing that is known; its entry in a models file may name its 'tasks'"
            message = f"The model '{model.id}' does not {task.name}; it does: {does}."
            raise UnsupportedTaskError(message, param="model")

    async def stream(self, task: Task, model: Model, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of one call; load the model first if need be, and wait for its turn.

        Raises:
            UnsupportedTaskError: the model does not do this task.
            LoadError: the model could not be loaded.
            CapacityError: it took too long until the call's turn came, or the engine is being closed.
            RateLimitError: too many wait for the model.
        """
        self.check(task, model)
        call = self.meters.of(task, model).call(request)
        outcome = "cancelled"
        try:
            answer = self._cached if self.cache.on else self._run
            async with aclosing(answer(task, model, request)) as chunks:
                async for chunk in chunks:
                    call.chunk(chunk)
                    yield chunk
            outcome = "ok"
        except YapitError as error:
            outcome = error.code or error.type
            raise
        finally:
            stopped = current().reason if outcome == "cancelled" else None
            call.end(outcome if stopped is None else stopped.code or outcome)

    @asynccontextmanager
    async def hold(self, task: Task, model: Model) -> AsyncIterator[None]:
        """Keep the model loaded for several calls that belong together."""
        self.check(task, model)
        await self._arrive(model)
        async with self.residency.use(task, model):
            yield

    async def knows(self, task: Task, model: Model, request: Request) -> bool:
        """Tell whether the cache has the answer, so that the model need not be loaded for it."""
        return self.cache.on and await self.cache.has(await self.keys.of(task, model, request))

    async def load(self, task: Task, model: Model) -> None:
        """Load the model for the task, if it is not loaded."""
        async with self.hold(task, model):
            pass

    async def unload(self, task: Task, model: Model) -> None:
        """Give back what the loaded model takes.

        Raises:
            InvalidInputError: it is not loaded.
            ConflictError: requests wait for it or run on it.
        """
        await self.residency.unload(task, model)

    async def warm_up(self, model: Model) -> None:
        """Load the model for its tasks, and try those that have a request to try them with."""
        for task in (TASKS[name] for name in model.tasks):
            if task.warm_up is None:
                await self.load(task, model)
                continue
            # What the cache has says nothing of the model.
            with Ticket(current().id, store=False).bound():
                async with aclosing(self.stream(task, model, task.warm_up)) as chunks:
                    async for _ in chunks:
                        pass

    def status(self, model: Model) -> Status:
        """Return whether the model is loaded and, if it is not, what happened to it last."""
        states = {resident.state for resident in self.residency.of(model)}
        for state in ("loaded", "loading", "unloading"):
            if state in states:
                waits = [resident.waits_for for resident in self.residency.of(model) if resident.waits_for]
                return Status(value=state, reason=f"waits for {waits[0]}" if waits else None)
        if not self.plugins.serves(model):
            return Status(value="unserved", reason=self.plugins.unserved(model))
        last = self.residency.history.last(model)
        if last is None:
            return Status(value="unloaded")
        value = "failed" if last.event in ("failed", "died", "refused") else "unloaded"
        return Status(value=value, reason=f"{last.event}: {last.reason}")

    def running(self) -> int:
        """Return how many requests are being served now; those that wait for a model or a slot are not."""
        return sum(resident.running for resident in self.residency.all())

    async def close(self) -> None:
        """Unload everything; calls that come later get `CapacityError`."""
        await self.residency.close()
        await self.cache.close()

    def kill(self) -> None:
        """End the models' processes at once."""
        for made in self._executors.values():
            made.kill()

    async def _cached(self, task: Task, model: Model, request: Request) -> AsyncGenerator[Chunk, None]:
        """Answer from the cache, or together with an equal call; else run the call."""
        key = await self.keys.of(task, model, request)
        layer = Layer(task.chunk, self.meters.of(task, model).cached)
        async with aclosing(self.cache.stream(key, layer, lambda: self._run(task, model, request))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _run(self, task: Task, model: Model, request: Request) -> AsyncGenerator[Chunk, None]:
        """Run the call on the loaded model; if that goes away before the call's turn comes, on its successor."""
        while True:
            await self._arrive(model)
            async with self.residency.use(task, model) as resident:
                if resident.runner is None:
                    continue
                begun = False
                try:
                    async with aclosing(resident.runner.stream(request)) as chunks:
                        async for chunk in chunks:
                            begun = True
                            yield chunk
                    self.residency.succeeded(resident)
                except Gone:
                    if begun:
                        raise
                    continue
                except WorkerDiedError as error:
                    # It may have died before it was known to be loaded.
                    self.residency.lost(resident, error)
                    raise
                return

    async def _arrive(self, model: Model) -> None:
        """Wait until the weights of a model are here that is not loaded; it may be unloaded again meanwhile."""
        if self._ready is not None and not self.residency.of(model):
            await self._ready(model)

    def _runner(self, resident: Resident, slots: int) -> Runner:
        """Return what runs the calls of a model that has just been loaded."""
        task, model, limits = resident.task, resident.model, self.settings.engine
        queue = limits.max_queue if model.max_queue is None else model.max_queue
        line = Line(Limits(model=model.id, max_queue=queue, timeout_s=limits.queue_timeout_s), slots, resident.meter)

        def run(request: Request) -> AsyncGenerator[Chunk, None]:
            return resident.executor.stream(task, model, request)

        if not task.items:
            return _OneByOne(resident, Slots(line))
        return Batcher(task, model, run, line, model.batch_tokens or limits.batch_tokens, limits.batch_window_s)

    def _executor(self, model: Model) -> Executor:
        """Return the executor that the model's calls go through, one of each kind."""
        name = self._executor_name(model)
        if name not in self._executors:
            made = executor(name, self.plugins, self._context)
            made.on_death = self.residency.died
            self._executors[name] = made
        return self._executors[name]

    def _executor_name(self, model: Model) -> str:
        """Return what the model says, or else the settings for its backend, or for all, or what the backend needs."""
        if model.python is not None:
            return "process"
        backend = self.plugins.backends().get(model.backend)
        natural = "process" if backend is not None and backend.heavy else "thread"
        chosen = self.settings.engine
        return model.executor or chosen.executors.get(model.backend) or chosen.executor or natural

    def _gauges(self) -> list[Gauge]:
        return [
            Gauge(
                labels=resident.meter.labels,
                loaded=resident.state == "loaded",
                running=resident.running,
                queued=resident.queued,
                memory_bytes=resident.memory_bytes,
            )
            for resident in self.residency.all()
        ]


class _OneByOne:
    """Runs each call by itself, as soon as there is a slot for it."""

    def __init__(self, resident: Resident, slots: Slots) -> None:
        self._resident = resident
        self._slots = slots

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self._slots.queued

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of one call, when its turn comes."""
        resident = self._resident
        async with self._slots.slot():
            if resident.state != "loaded":
                # It died between the call's turn and this moment.
                raise Gone
            async with aclosing(resident.executor.stream(resident.task, resident.model, request)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def refuse(self, error: Exception) -> None:
        """Send those that wait away."""
        self._slots.refuse(error)

    async def close(self) -> None:
        """Return at once: a call that runs holds the model, and who holds it keeps it from being unloaded."""
