"""Which models are loaded: on first use, for as long as they are asked for, within what the devices have."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from time import monotonic, perf_counter, time

import structlog

from yapit.catalog import Model
from yapit.engine.meters import Meters
from yapit.engine.residency import devices
from yapit.engine.residency.deaths import Deaths
from yapit.engine.residency.history import Happening, History
from yapit.engine.residency.residents import Gone, Key, Resident, Runner
from yapit.engine.residency.room import Room
from yapit.errors import (
    CapacityError,
    ConflictError,
    InvalidInputError,
    WorkerDiedError,
    YapitError,
    shutting_down,
)
from yapit.executors import Executor
from yapit.quantities import seconds, size, written
from yapit.settings import EngineSettings
from yapit.tasks import Task
from yapit.tickets import current

_SHARE = "90%"  # of a device, where the settings do not name it
_log = structlog.get_logger(__name__)


class Residency:
    """Loads models, keeps them, and lets them go.

    Args:
        settings: the limits.
        device: where models run that do not say.
        executor_of: returns what runs a model.
        runner_of: returns what runs the calls of a loaded model, given its slots.
        meters: where loads and evictions are measured.
    """

    def __init__(
        self,
        settings: EngineSettings,
        device: str,
        executor_of: Callable[[Model], Executor],
        runner_of: Callable[[Resident, int], Runner],
        meters: Meters,
    ) -> None:
        self._settings = settings
        self._device = device
        self._executor_of = executor_of
        self._runner_of = runner_of
        self._meters = meters
        self._budgets = {devices.named(name): limit for name, limit in settings.memory.items()}
        self._room = Room(settings.max_loaded, self.budget)
        self._residents: dict[Key, Resident] = {}
        self._peaks: dict[Key, int] = {}
        self._deaths = Deaths()
        self._tasks = set[asyncio.Task[None]]()
        self._changed = asyncio.Event()
        self._closed = False
        self.history = History()

    def all(self) -> list[Resident]:
        """Return what is loaded or on its way."""
        return list(self._residents.values())

    def of(self, model: Model) -> list[Resident]:
        """Return what is loaded of one model, for any task."""
        return [resident for resident in self._residents.values() if resident.model.id == model.id]

    def budget(self, device: str) -> int | None:
        """Return the bytes that models may take of a device; None where nothing limits them."""
        return size(self._budgets.get(device, _SHARE), devices.total_bytes(device))

    def check_open(self) -> None:
        """Raise `CapacityError` when the engine is being closed."""
        if self._closed:
            raise shutting_down()

    @asynccontextmanager
    async def use(self, task: Task, model: Model) -> AsyncIterator[Resident]:
        """Hold a loaded model; load it first if need be. Nobody evicts it meanwhile.

        Raises:
            LoadError: it cannot be loaded.
            CapacityError: it is not loaded in time, or not again yet after it died, or the engine is being closed.
        """
        ticket = current()
        nested = (task.name, model.id) in ticket.held
        resident = await self._enter(task, model, nested=nested)
        resident.nested += nested
        ticket.held.add(resident.key)
        try:
            yield resident
        finally:
            resident.nested -= nested
            if not nested:
                ticket.held.discard(resident.key)
            self._leave(resident, ticket.keep_alive_s)

    async def unload(self, task: Task, model: Model, reason: str = "asked to") -> None:
        """Give back what the model takes.

        Raises:
            InvalidInputError: it is not loaded.
            ConflictError: requests wait for it or run on it.
        """
        resident = self._residents.get((task.name, model.id))
        if resident is None:
            message = f"The model '{model.id}' is not loaded."
            raise InvalidInputError(message, param="model", code="model_not_loaded")
        if resident.users:
            message = f"The model '{model.id}' serves {resident.requests} requests; unload it when they have ended."
            raise ConflictError(message, param="model", code="model_busy")
        if resident.state == "loaded":
            self._evict(resident, "unloaded", reason)
        elif resident.state == "loading" and resident.loading is not None:
            resident.state = "unloading"
            resident.loading.cancel()
        while self._residents.get(resident.key) is resident:
            await self._next_change()

    def outdate(self, models: Mapping[str, Model]) -> None:
        """Unload what is none of these models any more: now, or when nobody uses it; who comes next gets the new one.

        Args:
            models: those that are served now, by id.
        """
        for resident in self.all():
            served = models.get(resident.model.id)
            if served is resident.model or served == resident.model:
                resident.outdated = ""
                continue
            resident.outdated = "it is not served any more" if served is None else "its catalog entry has changed"
            if resident.state == "loaded" and not resident.users:
                self._evict(resident, "unloaded", resident.outdated)
        self._change()  # one that others wait to see go may stay after all

    def died(self, task: Task, model: Model, error: WorkerDiedError) -> None:
        """Note that a loaded model is gone; the next request loads it again, later and later if it happens again."""
        resident = self._residents.get((task.name, model.id))
        if resident is not None:
            self.lost(resident, error)

    def lost(self, resident: Resident, error: WorkerDiedError) -> None:
        """Note that this one is gone, if that is not known yet."""
        if resident.state == "loaded":
            self._deaths.add(resident.key)
            resident.meter.restarts.inc()
            self._evict(resident, "died", error.message)

    def succeeded(self, resident: Resident) -> None:
        """Note that a call went well: the model is sound."""
        self._deaths.forgive(resident.key)

    async def close(self) -> None:
        """Unload everything; whoever waits gets `CapacityError`."""
        self._closed = True
        for resident in self.all():
            resident.stop_timer()
            if resident.loading is not None:
                resident.loading.cancel()
            if resident.runner is not None:
                resident.runner.refuse(shutting_down())
        loads = [resident.loading for resident in self.all() if resident.loading is not None]
        await asyncio.gather(*loads, return_exceptions=True)
        for resident in self.all():
            if resident.state == "loaded":
                self._evict(resident, "unloaded", "the server ends")
        await asyncio.gather(*self._tasks)

    # ── one more user, one fewer ──────────────────────────────────────────────────────────────────────────────────────
    async def _enter(self, task: Task, model: Model, *, nested: bool) -> Resident:
        key = (task.name, model.id)
        until = monotonic() + self._settings.load_wait_s
        while True:
            self.check_open()
            resident = self._residents.get(key)
            if resident is None:
                self._deaths.check(key)
                resident = self._start(task, model)
            leaves = resident.claims or resident.outdated
            if resident.state == "unloading" or (leaves and not nested):
                await self._go_by(resident, until)
                continue
            resident.users += 1
            try:
                await self._loaded(resident, until)
            except BaseException:
                self._leave(resident, None)
                raise
            return resident

    def _leave(self, resident: Resident, keep_alive_s: float | None) -> None:
        resident.users -= 1
        resident.touch()
        if resident.state != "loaded":
            self._change()  # a load that waits for room may see that nobody waits for it
            return
        resident.keep_alive_s = self._keep_alive_s(resident.model, keep_alive_s)
        self._measure(resident)
        if resident.users:
            return
        if resident.claims:
            wanted = min(resident.claims, key=lambda claim: claim.used)
            self._evict(resident, "evicted", _making_room(wanted))
        elif resident.outdated:
            self._evict(resident, "unloaded", resident.outdated)
        elif resident.keep_alive_s == 0:
            self._evict(resident, "expired", "keep_alive is 0")
        else:
            self._expire_after(resident, resident.keep_alive_s)

    def _expire_after(self, resident: Resident, wait_s: float) -> None:
        """Look after it at that time; a timer that runs out before stays, and is set anew then."""
        loop = asyncio.get_running_loop()
        if resident.expiry is not None and resident.expiry.when() <= loop.time() + wait_s:
            return
        resident.stop_timer()
        if not math.isinf(wait_s):
            resident.expiry = loop.call_later(wait_s, self._expire, resident)

    def _expire(self, resident: Resident) -> None:
        resident.expiry = None
        if resident.users or resident.state != "loaded":
            return
        remaining_s = resident.used + resident.keep_alive_s - monotonic()
        if remaining_s > 0:
            self._expire_after(resident, remaining_s)
        else:
            self._evict(resident, "expired", f"idle for {resident.keep_alive_s:g} s")

    async def _loaded(self, resident: Resident, until: float) -> None:
        """Wait until it is loaded; a client that leaves does not stop the load that others wait for."""
        loading = resident.loading
        if loading is None:
            return
        if not loading.done():
            await asyncio.wait([loading], timeout=max(0.0, until - monotonic()))
        if not loading.done():
            waits = f": it waits for {resident.waits_for}" if resident.waits_for else ""
            message = f"The model '{resident.model.id}' is still loading{waits}."
            raise CapacityError(message, code="model_loading", retry_after_s=5)
        if loading.cancelled():
            self.check_open()
            message = f"The model '{resident.model.id}' was unloaded before it was loaded."
            raise CapacityError(message, code="model_loading", retry_after_s=1)
        loading.result()

    async def _go_by(self, resident: Resident, until: float) -> None:
        """Wait until one that is leaving has gone, or stays after all."""
        try:
            async with asyncio.timeout(max(0.0, until - monotonic())):
                await self._next_change()
        except TimeoutError:
            message = f"The model '{resident.model.id}' is unloaded first: {resident.outdated or 'others need room'}."
            raise CapacityError(message, code="model_loading", retry_after_s=5) from None

    def _keep_alive_s(self, model: Model, wanted: float | None) -> float:
        if model.pin:
            return math.inf
        if wanted is not None:
            return wanted
        return seconds(self._settings.keep_alive if model.keep_alive is None else model.keep_alive)

    def _measure(self, resident: Resident) -> None:
        """Correct the estimate by what was measured, and keep to the budget then."""
        if resident.measure() is not None:
            self._peaks[resident.key] = resident.memory_bytes
            for other in self._room.excess(resident.device, self.all()):
                self._evict(other, "evicted", f"the models on {resident.device} take more than was estimated")

    # ── loading ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def _start(self, task: Task, model: Model) -> Resident:
        executor = self._executor_of(model)
        device = devices.named(model.device or self._device)
        resident = Resident(task, model, executor, device, self._meters.of(task, model))
        resident.memory_bytes = self._peaks.get(resident.key, model.memory_bytes or 0)
        resident.keep_alive_s = self._keep_alive_s(model, None)
        self._residents[resident.key] = resident
        resident.loading = asyncio.create_task(self._load(resident), name=f"load {model.id}")
        # Read here too: when every client left, nobody else asks how the load ended.
        resident.loading.add_done_callback(lambda load: load.cancelled() or load.exception())
        return resident

    async def _load(self, resident: Resident) -> None:
        try:
            await self._make_room(resident)
            began = perf_counter()
            slots = await resident.executor.load(resident.task, resident.model)
            elapsed_s = perf_counter() - began
        except BaseException as error:
            del self._residents[resident.key]
            if isinstance(error, WorkerDiedError):
                self._deaths.add(resident.key)
                resident.meter.restarts.inc()
            if isinstance(error, Exception) and not isinstance(error, CapacityError):
                self.history.add(
                    resident.task, resident.model, "failed" if resident.admitted else "refused", str(error)
                )
                # The chain below holds what the plugin raised.
                _log.error("model_load_failed", task=resident.task.name, model=resident.model.id, exc_info=error)
            self._change()
            raise
        limit = resident.model.max_concurrency
        slots = slots if limit is None else min(slots, limit)
        resident.runner = self._runner_of(resident, slots)
        resident.state = "loaded"
        resident.loaded_at = time()
        resident.touch()
        resident.meter.load.observe(elapsed_s)
        self._measure(resident)
        self.history.add(resident.task, resident.model, "loaded", f"took {elapsed_s:.1f} s")
        _log.info("model_loaded", task=resident.task.name, model=resident.model.id, max_concurrency=slots)
        self._change()
        if not resident.users:
            resident.users = 1
            self._leave(resident, None)

    async def _make_room(self, resident: Resident) -> None:
        """Return when nothing keeps the model from being loaded; ask those to leave that do."""
        try:
            while victims := self._room.victims(resident, self.all()):
                for victim in victims:
                    if victim.state == "loaded" and not victim.users:
                        self._evict(victim, "evicted", _making_room(resident))
                    else:
                        victim.claims.add(resident)
                busy = ", ".join(f"'{victim.model.id}' ({written(victim.memory_bytes)})" for victim in victims)
                resident.waits_for = f"room on {resident.device}, where {busy} must leave"
                await self._next_change()
                if not resident.users:
                    raise CapacityError(f"Nobody waits for the model '{resident.model.id}' any more.", retry_after_s=1)
        finally:
            for other in self.all():
                other.claims.discard(resident)
            self._change()
        resident.admitted = True
        resident.waits_for = ""

    # ── unloading ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _evict(self, resident: Resident, event: Happening, reason: str) -> None:
        """Begin to unload; whoever still waits for a turn asks for the model anew."""
        resident.stop_timer()
        resident.state = "unloading"
        resident.meter.evicted(event)
        self.history.add(resident.task, resident.model, event, reason)
        if resident.runner is not None:
            resident.runner.refuse(Gone())
        unloading = asyncio.create_task(self._unload(resident, event, reason), name=f"unload {resident.model.id}")
        self._tasks.add(unloading)
        unloading.add_done_callback(self._tasks.discard)

    async def _unload(self, resident: Resident, event: Happening, reason: str) -> None:
        try:
            if resident.runner is not None:
                await resident.runner.close()
            await resident.executor.unload(resident.task, resident.model)
        except YapitError as error:
            _log.error("model_unload_failed", model=resident.model.id, reason=error.message)
        finally:
            del self._residents[resident.key]
            task, model = resident.task.name, resident.model.id
            _log.info("model_unloaded", task=task, model=model, event_kind=event, reason=reason)
            self._change()

    # ── changes ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def _change(self) -> None:
        """Wake everybody who waits for something to be different."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _next_change(self) -> None:
        await self._changed.wait()


def _making_room(wanted: Resident) -> str:
    needs = f", which needs {written(wanted.memory_bytes)} of {wanted.device}" if wanted.memory_bytes else ""
    return f"to make room for '{wanted.model.id}'{needs}"
