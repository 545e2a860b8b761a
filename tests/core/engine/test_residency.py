"""Which models are loaded, for how long, beside which others, and why not."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from structlog.testing import capture_logs

from loops import PATIENCE_S, run, turns
from yapit import (
    Backend,
    CapacityError,
    Context,
    GenerateRequest,
    LoadError,
    Model,
    TextChunk,
    TextGenerator,
    YapitError,
    hookimpl,
)
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.errors import ConflictError, InvalidInputError, WorkerDiedError
from yapit.executors import Executor, Footprint
from yapit.plugins import Plugins
from yapit.settings import EngineSettings, Settings
from yapit.tasks import GENERATE
from yapit.tickets import Ticket

GB = 1_000_000_000
FAKE = {"fake:0": "8GB"}


class Hall:
    """A plugin whose models answer when they are let; made inside the loop."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.closed: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.load_gates: dict[str, threading.Event] = {}
        self.inside: list[str] = []

    @hookimpl
    def register_backends(self) -> list[Backend]:
        return [Backend(name="hall")]

    @hookimpl
    def generate(self, model: Model, context: Context) -> TextGenerator | None:
        if model.id in self.load_gates:
            assert self.load_gates[model.id].wait(PATIENCE_S)
        if model.options.get("broken"):
            raise ValueError("secret")
        self.loaded.append(model.id)
        return Guest(self, model)

    def gate(self, model: str) -> asyncio.Event:
        return self.gates.setdefault(model, asyncio.Event())


class Guest(TextGenerator):
    def __init__(self, hall: Hall, model: Model) -> None:
        self.hall, self.model = hall, model

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        """Say one word; `wait` waits at the model's gate first."""
        if request.prompt == "wait":
            self.hall.inside.append(self.model.id)
            await self.hall.gate(self.model.id).wait()
        yield TextChunk(text=self.model.id)

    def close(self) -> None:
        self.hall.closed.append(self.model.id)


def model(name: str, gigabytes: float = 0, **fields: Any) -> Model:
    size = round(gigabytes * GB) or None
    return Model(id=name, backend="hall", tasks=("generate",), device="fake:0", memory_bytes=size, **fields)


def engine(hall: object, *models: Model, **settings: Any) -> Engine:
    plugins = Plugins()
    plugins.register("hall", hall)
    return Engine(Settings(engine=EngineSettings(**{"memory": FAKE, **settings})), plugins, Catalog(models))


async def ask(made: Engine, name: str, prompt: str = "", **ticket: Any) -> str:
    """Return what the model says to a client of its own."""
    with Ticket(**ticket).bound():
        async with aclosing(made.stream(GENERATE, made.catalog[name], GenerateRequest(prompt=prompt))) as chunks:
            return "".join([chunk.text async for chunk in chunks if isinstance(chunk, TextChunk)])


def loaded(made: Engine) -> list[str]:
    return [resident.model.id for resident in made.residency.all() if resident.state == "loaded"]


def reasons(made: Engine) -> list[tuple[str, str, str]]:
    """Return what happened and why, loads excepted."""
    return [(e.model, e.event, e.reason) for e in [*made.residency.history][::-1] if e.event != "loaded"]


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - bounded by the time that `run` gives the test
        await asyncio.sleep(0.001)


# ── memory ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_idle_model_is_evicted_for_another_and_the_reason_is_told() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("five", 5), model("four", 4))
        assert await ask(made, "five") == "five"
        with capture_logs() as lines:
            assert await ask(made, "four") == "four"
        assert (loaded(made), hall.closed) == (["four"], ["five"])
        why = "to make room for 'four', which needs 4.0 GB of fake:0"
        assert reasons(made) == [("five", "evicted", why)]
        assert [line["reason"] for line in lines if line["event"] == "model_unloaded"] == [why]
        assert made.status(made.catalog["five"]).value == "unloaded"
        assert made.status(made.catalog["five"]).reason == f"evicted: {why}"
        await made.close()

    run(main())


def test_a_busy_model_is_never_evicted_and_who_waits_for_its_room_gets_it_when_it_is_idle() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("five", 5), model("four", 4))
        busy = asyncio.create_task(ask(made, "five", "wait"))
        await until(lambda: hall.inside)
        waiting = asyncio.create_task(ask(made, "four"))
        await turns(50)
        assert (loaded(made), hall.closed) == (["five"], [])
        status = made.status(made.catalog["four"])
        assert (status.value, status.reason) == (
            "loading",
            "waits for room on fake:0, where 'five' (5.0 GB) must leave",
        )
        hall.gate("five").set()
        assert [await busy, await waiting] == ["five", "four"]
        assert (loaded(made), hall.closed) == (["four"], ["five"])
        await made.close()

    run(main())


def test_a_model_that_is_always_asked_for_does_not_keep_others_out() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("five", 5), model("four", 4))
        first = asyncio.create_task(ask(made, "five", "wait"))
        await until(lambda: hall.inside)
        other = asyncio.create_task(ask(made, "four", "wait"))
        await turns(50)
        late = asyncio.create_task(ask(made, "five"))
        await turns(50)
        hall.gate("five").set()
        await first
        await until(lambda: hall.inside == ["five", "four"])
        assert not late.done()
        hall.gate("four").set()
        assert [await other, await late] == ["four", "five"]
        assert hall.loaded == ["five", "four", "five"]
        await made.close()

    run(main())


def test_a_wait_for_room_is_bounded_and_says_what_it_waits_for() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("five", 5), model("four", 4), load_wait_s=0.05)
        busy = asyncio.create_task(ask(made, "five", "wait"))
        await until(lambda: hall.inside)
        with pytest.raises(CapacityError, match=r"'four' is still loading: it waits for room .* 'five'") as caught:
            await ask(made, "four")
        assert (caught.value.code, caught.value.status) == ("model_loading", 503)
        assert caught.value.retry_after_s
        await until(lambda: len(made.residency.all()) == 1)
        late = asyncio.create_task(ask(made, "five"))
        hall.gate("five").set()
        assert [await busy, await late] == ["five"] * 2
        assert (hall.loaded, hall.closed) == (["five"], []), "nobody waits for its room any more"
        await made.close()

    run(main())


def test_the_longest_unused_model_goes_first_and_no_more_than_must() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a", 3), model("b", 3), model("c", 2), model("d", 2))
        for name in ("a", "b", "c", "a"):
            await ask(made, name)
        await ask(made, "d")
        assert (loaded(made), hall.closed) == (["a", "c", "d"], ["b"])
        await made.close()

    run(main())


def test_an_idle_model_goes_before_a_busy_one_that_was_used_earlier() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("busy", 4), model("idle", 4), model("new", 4))
        running = asyncio.create_task(ask(made, "busy", "wait"))
        await until(lambda: hall.inside)
        await ask(made, "idle")
        assert await ask(made, "new") == "new"
        assert (loaded(made), hall.closed) == (["busy", "new"], ["idle"])
        hall.gate("busy").set()
        await running
        await made.close()

    run(main())


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ([], "it needs 9.0 GB of fake:0, whose budget is 8.0 GB"),
        (["pinned"], "it needs 9.0 GB of fake:0, whose budget is 8.0 GB, of which pinned models take 1.0 GB"),
    ],
)
def test_a_model_that_can_never_fit_is_refused_at_once(beside: list[str], reason: str) -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("nine", 9), model("pinned", 1, pin=True))
        for name in beside:
            await ask(made, name)
        with capture_logs(), pytest.raises(LoadError, match=reason):
            await ask(made, "nine")
        assert [(name, what) for name, what, _ in reasons(made)] == [("nine", "refused")]
        assert made.status(made.catalog["nine"]).value == "failed"
        assert loaded(made) == beside
        await made.close()

    run(main())


def test_models_on_other_devices_are_not_in_the_way() -> None:
    async def main() -> None:
        hall = Hall()
        elsewhere = Model(id="far", backend="hall", tasks=("generate",), device="fake:1", memory_bytes=7 * GB)
        made = engine(hall, model("near", 7), elsewhere, memory={"fake:0": "8GB", "fake:1": 8 * GB})
        await ask(made, "near")
        await ask(made, "far")
        assert loaded(made) == ["near", "far"]
        await made.close()

    run(main())


class Measured(Executor):
    """Says that a model takes what its options say."""

    async def load(self, task: Any, model: Model) -> int:
        return 1

    async def stream(self, task: Any, model: Model, request: Any) -> Any:
        yield TextChunk(text=model.id)

    async def unload(self, task: Any, model: Model) -> None:
        pass

    def footprint(self, task: Any, model: Model) -> Footprint:
        return Footprint(device=model.device, memory_bytes=round(model.options["takes"] * GB), pid=1)


def test_what_was_measured_corrects_the_estimate() -> None:
    async def main() -> None:
        made = engine(Hall(), model("a", 2, options={"takes": 5}), model("b", 2, options={"takes": 4}))
        made._executors["thread"] = Measured(made.plugins, Context())
        await ask(made, "a")
        (resident,) = made.residency.all()
        assert (resident.memory_bytes, resident.measured) == (5 * GB, True)
        await ask(made, "b")
        await until(lambda: len(made.residency.all()) == 1)
        assert loaded(made) == ["b"], "together they turned out to take 9 GB"
        assert reasons(made) == [("a", "evicted", "the models on fake:0 take more than was estimated")]
        await ask(made, "a")
        assert reasons(made)[-1] == ("b", "evicted", "to make room for 'a', which needs 5.0 GB of fake:0")
        await made.close()

    run(main())


# ── numbers and groups ────────────────────────────────────────────────────────────────────────────────────────────────
def test_no_more_models_are_loaded_than_may_be() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a"), model("b"), model("c"), max_loaded=2)
        for name in ("a", "b", "a", "c"):
            await ask(made, name)
        assert loaded(made) == ["a", "c"]
        await made.close()

    run(main())


def test_of_an_exclusive_group_one_model_is_loaded() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a", exclusive="big"), model("b", exclusive="big"), model("c", exclusive="other"))
        for name in ("a", "c", "b"):
            await ask(made, name)
        assert loaded(made) == ["c", "b"]
        await made.close()

    run(main())


def test_a_pinned_model_stays_and_what_it_excludes_is_refused() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a", pin=True, exclusive="x", keep_alive=0), model("b", exclusive="x"), model("c"))
        await ask(made, "a")
        with capture_logs(), pytest.raises(LoadError, match="may not be loaded beside 'a', which is pinned"):
            await ask(made, "b")
        assert await ask(made, "c") == "c"
        assert loaded(made) == ["a", "c"]
        await made.close()

    run(main())


# ── keep_alive ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_idle_model_leaves_after_its_time() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a"), keep_alive="20ms")
        await ask(made, "a")
        await until(lambda: hall.closed)
        assert reasons(made) == [("a", "expired", "idle for 0.02 s")]
        assert await ask(made, "a") == "a"
        assert hall.loaded == ["a", "a"]
        await made.close()

    run(main())


def test_a_timer_that_runs_out_too_early_is_set_anew() -> None:
    async def main() -> None:
        made = engine(Hall(), model("a"))
        await ask(made, "a")
        (resident,) = made.residency.all()
        made.residency._expire(resident)
        assert loaded(made) == ["a"]
        assert resident.expiry is not None
        first = resident.expiry
        await ask(made, "a")
        assert resident.expiry is first, "no timer for each request"
        await ask(made, "a", keep_alive_s=1.0)
        assert resident.expiry.when() < first.when()
        await made.close()

    run(main())


@pytest.mark.parametrize(
    ("settings", "entry", "request_s", "expected"),
    [
        ("5m", None, None, 300),
        ("5m", "1h", None, 3600),
        ("5m", "1h", 7.0, 7),
        (-1, None, None, None),
        (-1, None, 7.0, 7),
        ("5m", -1, None, None),
    ],
)
def test_the_request_s_time_wins_over_the_model_s_and_that_over_the_settings_(
    settings: Any, entry: Any, request_s: float | None, expected: float | None
) -> None:
    async def main() -> None:
        made = engine(Hall(), model("a", keep_alive=entry), keep_alive=settings)
        await ask(made, "a", keep_alive_s=request_s)
        (resident,) = made.residency.all()
        expires = resident.expires_at
        assert (None if expires is None else round(expires - resident.used_at)) == expected
        await made.close()

    run(main())


def test_keep_alive_0_unloads_when_the_last_request_has_ended() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a", max_concurrency=1))
        first = asyncio.create_task(ask(made, "a", "wait", keep_alive_s=0.0))
        await until(lambda: hall.inside)
        second = asyncio.create_task(ask(made, "a", keep_alive_s=0.0))
        await turns()
        hall.gate("a").set()
        await asyncio.gather(first, second)
        await until(lambda: hall.closed)
        assert (hall.loaded, reasons(made)) == (["a"], [("a", "expired", "keep_alive is 0")])
        await made.close()

    run(main())


def test_a_busy_model_does_not_expire() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a"), keep_alive=0.001)
        busy = asyncio.create_task(ask(made, "a", "wait"))
        await until(lambda: hall.inside)
        await asyncio.sleep(0.01)
        assert loaded(made) == ["a"]
        assert made.residency.all()[0].expires_at is None
        hall.gate("a").set()
        await busy
        await until(lambda: hall.closed)
        await made.close()

    run(main())


def test_calls_that_belong_together_hold_the_model_between_them() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("five", 5), model("four", 4), keep_alive=0)
        with Ticket().bound():
            async with made.hold(GENERATE, made.catalog["five"]):
                other = asyncio.create_task(ask(made, "four"))
                await turns(50)
                for _ in range(3):
                    chunks = made.stream(GENERATE, made.catalog["five"], GenerateRequest(prompt=""))
                    async with aclosing(chunks):
                        assert len([chunk async for chunk in chunks]) == 1
                    await turns(50)
                assert loaded(made) == ["five"]
        assert await other == "four"
        assert hall.loaded == ["five", "four"]
        await made.close()

    run(main())


# ── by hand ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_unloading_a_busy_model_is_a_conflict_and_an_absent_one_an_error() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a"))
        with pytest.raises(InvalidInputError, match="not loaded"):
            await made.unload(GENERATE, made.catalog["a"])
        busy = asyncio.create_task(ask(made, "a", "wait"))
        await until(lambda: hall.inside)
        with pytest.raises(ConflictError, match="serves 1 requests"):
            await made.unload(GENERATE, made.catalog["a"])
        hall.gate("a").set()
        await busy
        await made.unload(GENERATE, made.catalog["a"])
        assert (made.residency.all(), hall.closed) == ([], ["a"])
        assert reasons(made) == [("a", "unloaded", "asked to")]
        await made.close()

    run(main())


def test_unloading_what_loads_for_nobody_any_more_stops_the_load() -> None:
    async def main() -> None:
        hall = Hall()
        hall.load_gates["a"] = threading.Event()
        made = engine(hall, model("a"))
        leaving = asyncio.create_task(ask(made, "a"))
        await turns()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        unloading = asyncio.create_task(made.unload(GENERATE, made.catalog["a"]))
        late = asyncio.create_task(ask(made, "a"))
        await asyncio.sleep(0)
        hall.load_gates["a"].set()
        await unloading
        assert await late == "a", "who comes meanwhile loads it anew"
        await made.close()

    run(main())


def test_a_request_that_comes_while_the_model_is_unloaded_loads_it_anew() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a"))
        await ask(made, "a")
        unloading = asyncio.create_task(made.unload(GENERATE, made.catalog["a"]))
        await asyncio.sleep(0)
        assert await ask(made, "a") == "a"
        await unloading
        assert (hall.loaded, hall.closed) == (["a", "a"], ["a"])
        await made.close()

    run(main())


# ── deaths ────────────────────────────────────────────────────────────────────────────────────────────────────────────
class Mortal(Executor):
    """Dies when it is asked to, before or after it is loaded."""

    dies_loading = False
    loads = 0

    async def load(self, task: Any, model: Model) -> int:
        self.loads += 1
        if self.dies_loading:
            raise WorkerDiedError("It exited with 3.")
        return 1

    async def stream(self, task: Any, model: Model, request: Any) -> Any:
        if request.prompt == "die":
            error = WorkerDiedError("It was ended by SIGKILL.")
            if self.on_death is not None:
                self.on_death(task, model, error)
            raise error
        if request.prompt == "die after":
            await turns()  # while another one gets in line
        yield TextChunk(text="alive")
        if request.prompt == "die after":
            assert self.on_death is not None
            asyncio.get_running_loop().call_soon(self.on_death, task, model, WorkerDiedError("It is gone."))

    async def unload(self, task: Any, model: Model) -> None:
        pass


def mortal(made: Engine) -> Mortal:
    executor = Mortal(made.plugins, Context())
    executor.on_death = made.residency.died
    made._executors["thread"] = executor
    return executor


def test_a_model_whose_process_died_is_loaded_again_and_later_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        now = [1000.0]
        monkeypatch.setattr("yapit.engine.residency.deaths.monotonic", lambda: now[0])
        made = engine(Hall(), model("a"))
        executor = mortal(made)
        for wait_s in (0, 1, 2, 4):
            with pytest.raises(WorkerDiedError, match="SIGKILL"):
                await ask(made, "a", "die")
            assert made.status(made.catalog["a"]).value in ("unloading", "failed")
            await until(lambda: not made.residency.all())
            assert "SIGKILL" in str(made.status(made.catalog["a"]).reason)
            if wait_s:
                with pytest.raises(CapacityError, match="has died") as caught:
                    await ask(made, "a")
                assert (caught.value.code, caught.value.retry_after_s) == ("worker_backoff", wait_s)
            now[0] += wait_s
        assert executor.loads == 4
        assert await ask(made, "a") == "alive"
        with pytest.raises(WorkerDiedError):
            await ask(made, "a", "die")
        assert await ask(made, "a") == "alive", "a call that goes well forgives the deaths before it"
        await made.close()

    run(main())


def test_a_model_that_died_before_it_was_known_to_be_loaded_is_loaded_again() -> None:
    async def main() -> None:
        made = engine(Hall(), model("a"))
        executor = mortal(made)
        executor.on_death = None  # it was called too early
        with pytest.raises(WorkerDiedError):
            await ask(made, "a", "die")
        assert await ask(made, "a") == "alive"
        assert executor.loads == 2
        await made.close()

    run(main())


def test_deaths_while_loading_count_too() -> None:
    async def main() -> None:
        made = engine(Hall(), model("a"))
        executor = mortal(made)
        executor.dies_loading = True
        with capture_logs():
            for error in (WorkerDiedError, WorkerDiedError, CapacityError):
                with pytest.raises(error):
                    await ask(made, "a")
        assert executor.loads == 2
        await made.close()

    run(main())


def test_who_waits_in_line_for_a_model_that_dies_is_served_by_the_next_one() -> None:
    async def main() -> None:
        made = engine(Hall(), model("a"))
        mortal(made)
        dying = asyncio.create_task(ask(made, "a", "die"))
        behind = [asyncio.create_task(ask(made, "a")) for _ in range(3)]
        with pytest.raises(WorkerDiedError):
            await dying
        assert await asyncio.gather(*behind) == ["alive"] * 3
        await made.close()

    run(main())


def test_whose_turn_comes_when_the_model_has_just_died_is_served_by_the_next_one() -> None:
    async def main() -> None:
        made = engine(Hall(), model("a"))
        executor = mortal(made)
        first = asyncio.create_task(ask(made, "a", "die after"))
        second = asyncio.create_task(ask(made, "a"))
        assert [await first, await second] == ["alive", "alive"]
        assert executor.loads == 2
        await made.close()

    run(main())


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_catalog_s_limits_are_kept() -> None:
    async def main() -> None:
        hall = Hall()
        made = engine(hall, model("a", max_queue=1, max_concurrency=1))
        running = asyncio.create_task(ask(made, "a", "wait"))
        await until(lambda: hall.inside)
        queued = asyncio.create_task(ask(made, "a"))
        await turns()
        with pytest.raises(YapitError) as caught:
            await ask(made, "a")
        assert (caught.value.status, caught.value.code) == (429, "queue_full")
        hall.gate("a").set()
        assert [await running, await queued] == ["a", "a"]
        await made.close()

    run(main())


@pytest.mark.parametrize(
    ("entry", "settings", "heavy", "expected"),
    [
        ({}, {}, False, "thread"),
        ({}, {}, True, "process"),
        ({}, {"executor": "thread"}, True, "thread"),
        ({}, {"executor": "thread", "executors": {"hall": "process"}}, False, "process"),
        ({"executor": "thread"}, {"executors": {"hall": "process"}}, True, "thread"),
        ({"python": "/venv/bin/python"}, {"executor": "thread"}, False, "process"),
    ],
)
def test_the_executor_is_the_model_s_or_its_backend_s_or_everybody_s(
    entry: dict[str, Any], settings: dict[str, Any], heavy: object, expected: str
) -> None:
    class Plugin:
        @hookimpl
        def register_backends(self) -> list[Backend]:
            return [Backend(name="hall", heavy=bool(heavy))]

    made = engine(Plugin(), model("a", **entry), **settings)
    assert made._executor_name(made.catalog["a"]) == expected
