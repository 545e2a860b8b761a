import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from loops import PATIENCE_S, run, turns
from yapit import (
    BackendError,
    CapacityError,
    Context,
    Embedder,
    Embedding,
    EmbedRequest,
    GenerateRequest,
    InvalidInputError,
    LoadError,
    Model,
    TextChunk,
    TextGenerator,
    echo,
    hookimpl,
)
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.errors import UnsupportedTaskError
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import CLASSIFY, EMBED, GENERATE

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="none")


class Rig:
    """A plugin whose loads and calls a test holds and lets go; made inside the loop."""

    def __init__(self, slots: int = 1, failures: int = 0, *, gated: bool = False) -> None:
        self.slots, self.failures, self.gated = slots, failures, gated
        self.contexts: list[Context] = []
        self.batches: list[int] = []
        self.closed = self.inside = self.most = self.calls = 0
        self.loading, self.started, self.go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.load_on = threading.Event()
        self._loop = asyncio.get_running_loop()

    def load(self, context: Context) -> None:
        self.contexts.append(context)
        self._loop.call_soon_threadsafe(self.loading.set)
        if self.gated:
            assert self.load_on.wait(PATIENCE_S)
        if len(self.contexts) <= self.failures:
            raise ValueError("secret")

    @hookimpl
    def generate(self, model: Model, context: Context) -> TextGenerator | None:
        self.load(context)
        return Rigged(self)

    @hookimpl
    def embed(self, model: Model, context: Context) -> Embedder | None:
        self.load(context)
        return Embeds(self)

    @property
    def loads(self) -> int:
        return len(self.contexts)


class Rigged(TextGenerator):
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.max_concurrency = rig.slots

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        """Yield one chunk for each word; `hold` waits first, `fail` raises."""
        self.rig.calls += 1
        self.rig.inside += 1
        self.rig.most = max(self.rig.most, self.rig.inside)
        try:
            for word in str(request.prompt).split():
                if word == "hold":
                    self.rig.started.set()
                    await self.rig.go_on.wait()
                if word == "fail":
                    raise ValueError("secret")
                yield TextChunk(text=word)
        finally:
            self.rig.inside -= 1

    def close(self) -> None:
        self.rig.closed += 1


class Embeds(Embedder):
    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def embed(self, request: EmbedRequest) -> Any:
        self.rig.batches.append(len(request.inputs))
        return (Embedding(index=index, vector=b"", tokens=1) for index, _ in enumerate(request.inputs))


class Tells:
    """Says which request its thread works for."""

    @hookimpl
    def generate(self, model: Model, context: Context) -> TextGenerator | None:
        return TellsHow()


class TellsHow(TextGenerator):
    def generate(self, request: GenerateRequest) -> Any:
        return iter([TextChunk(text=REQUEST_ID.get())])


MODEL = Model(id="m", backend="rig", tasks=("generate", "embed"))


def engine(plugin: object, model: Model = MODEL, settings: Settings | None = None) -> Engine:
    plugins = Plugins()
    plugins.register("rig", plugin)
    return Engine(settings or Settings(), plugins, Catalog([model]))


async def ask(made: Engine, *words: str, model: Model = MODEL) -> int:
    """Return the number of chunks of one call."""
    prompt = " ".join(words or ("a",))
    async with aclosing(made.stream(GENERATE, model, GenerateRequest(prompt=prompt))) as chunks:
        return len([chunk async for chunk in chunks])


# ── loading ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_model_is_loaded_by_its_first_request_and_stays() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        assert rig.loads == 0
        assert [await ask(made, "a", "b") for _ in range(3)] == [2, 2, 2]
        assert (rig.loads, rig.calls) == (1, 3)
        await made.close()

    run(main())


def test_the_settings_reach_the_factory() -> None:
    async def main() -> None:
        rig = Rig()
        settings = Settings(device="cuda:1", data_dir="/data", plugin_settings={"rig": {"a": 1}})
        made = engine(rig, settings=settings)
        await made.load(GENERATE, MODEL)
        assert rig.contexts == [
            Context(device="cuda:1", data_dir=Path("/data"), plugin_settings={"rig": {"a": 1}}),
        ]
        await made.close()

    run(main())


def test_first_requests_at_once_share_one_load() -> None:
    async def main() -> None:
        rig = Rig(slots=5, gated=True)
        made = engine(rig)
        requests = [asyncio.create_task(ask(made)) for _ in range(5)]
        await rig.loading.wait()
        await turns()
        rig.load_on.set()
        assert await asyncio.gather(*requests) == [1] * 5
        assert rig.loads == 1
        await made.close()

    run(main())


def test_a_failed_load_fails_all_that_wait_for_it_and_the_next_request_tries_again() -> None:
    async def main() -> None:
        rig = Rig(failures=1, gated=True)
        made = engine(rig)
        requests = [asyncio.create_task(ask(made)) for _ in range(3)]
        await rig.loading.wait()
        rig.load_on.set()
        with capture_logs() as lines:
            failed = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(error) for error in failed] == [LoadError] * 3
        assert "secret" not in str(failed)
        (line,) = lines
        assert (line["event"], line["model"]) == ("model_load_failed", "m")
        assert repr(line["exc_info"].__cause__) == "ValueError('secret')", "the log shows it in full"
        assert made.status(MODEL).value == "failed"
        assert "cannot be loaded (ValueError)" in str(made.status(MODEL).reason)
        assert await ask(made) == 1
        assert rig.loads == 2
        await made.close()

    run(main())


@pytest.mark.parametrize("staying", [0, 1])
def test_a_client_that_leaves_does_not_stop_the_load_for_others(staying: int) -> None:
    async def main() -> None:
        rig = Rig(gated=True)
        made = engine(rig)
        leaving = asyncio.create_task(ask(made))
        await rig.loading.wait()
        stays = [asyncio.create_task(ask(made)) for _ in range(staying)]
        await turns()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert made.status(MODEL).value == "loading"
        rig.load_on.set()
        assert await asyncio.gather(*stays) == [1] * staying
        assert await ask(made) == 1
        assert rig.loads == 1
        await made.close()

    run(main())


def test_a_load_that_fails_after_its_client_left_is_logged_and_forgotten() -> None:
    async def main() -> None:
        rig = Rig(failures=1, gated=True)
        made = engine(rig)
        leaving = asyncio.create_task(ask(made))
        await rig.loading.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        with capture_logs() as lines:
            rig.load_on.set()
            while made.status(MODEL).value == "loading":  # noqa: ASYNC110 - bounded by the time that `run` gives the test
                await asyncio.sleep(0)
        assert [line["event"] for line in lines] == ["model_load_failed"]
        assert await ask(made) == 1
        await made.close()

    run(main())


def test_what_a_model_does_not_do_is_refused_before_anything_is_loaded() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        with pytest.raises(UnsupportedTaskError, match="'m' does not classify; it does: generate, embed") as caught:
            await made.load(CLASSIFY, MODEL)
        assert caught.value.param == "model"
        assert rig.loads == 0
        await made.close()

    run(main())


def test_two_tasks_of_a_model_are_two_adapters() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        await made.load(GENERATE, MODEL)
        await made.load(EMBED, MODEL)
        assert rig.loads == 2
        await made.close()

    run(main())


def test_an_unloaded_model_is_closed_and_loaded_anew_when_asked() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        await ask(made)
        await made.unload(GENERATE, MODEL)
        with pytest.raises(InvalidInputError, match="is not loaded"):
            await made.unload(GENERATE, MODEL)
        assert (rig.closed, made.status(MODEL).value) == (1, "unloaded")
        assert await ask(made) == 1
        assert rig.loads == 2
        await made.close()
        assert rig.closed == 2

    run(main())


def test_the_state_follows_the_model() -> None:
    async def main() -> None:
        rig = Rig(gated=True)
        made = engine(rig)
        assert made.status(Model(id="x", backend="nobody", tasks=("embed",))).value == "unserved"
        assert made.status(MODEL).value == "unloaded"
        loading = asyncio.create_task(made.load(GENERATE, MODEL))
        await rig.loading.wait()
        assert made.status(MODEL).value == "loading"
        rig.load_on.set()
        await loading
        assert made.status(MODEL).value == "loaded"
        await made.close()
        assert made.status(MODEL).value == "unloaded"

    run(main())


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_calls_run_than_the_adapter_has_slots(slots: int) -> None:
    async def main() -> None:
        rig = Rig(slots)
        made = engine(rig)
        calls = [asyncio.create_task(ask(made, "a", "hold", "b")) for _ in range(10)]
        await rig.started.wait()
        await turns(50)
        assert (rig.inside, made.running()) == (slots, slots)
        rig.go_on.set()
        assert await asyncio.gather(*calls) == [3] * 10
        assert (rig.most, rig.calls, made.running()) == (slots, 10, 0)
        await made.close()

    run(main())


def test_a_client_that_leaves_the_queue_takes_no_slot_along() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        running = asyncio.create_task(ask(made, "hold"))
        await rig.started.wait()
        leaving, staying = asyncio.create_task(ask(made)), asyncio.create_task(ask(made))
        await turns()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        rig.go_on.set()
        assert [await running, await staying] == [1, 1]
        assert rig.calls == 2, "the adapter never heard of the one that left"
        await made.close()

    run(main())


def test_a_stream_that_is_closed_early_gives_its_slot_back() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        chunks = made.stream(GENERATE, MODEL, GenerateRequest(prompt="a b"))
        await anext(chunks)
        assert (rig.inside, made.running()) == (1, 1)
        await chunks.aclose()
        assert (rig.inside, made.running()) == (0, 0)
        assert await ask(made) == 1
        await made.close()

    run(main())


def test_a_call_that_is_cancelled_gives_its_slot_back() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        call = asyncio.create_task(ask(made, "hold"))
        await rig.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (rig.inside, made.running()) == (0, 0)
        assert await ask(made) == 1
        await made.close()

    run(main())


def test_a_call_that_fails_gives_its_slot_back_and_is_logged_in_full() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        with capture_logs() as lines, pytest.raises(BackendError, match=r"'m' failed \(ValueError\)"):
            await ask(made, "a", "fail")
        failed = [line for line in lines if line["event"] == "adapter_failed"]
        assert [(line["task"], line["model"], line["exc_info"]) for line in failed] == [("generate", "m", True)]
        assert await ask(made) == 1
        await made.close()

    run(main())


def test_what_is_bound_to_a_request_reaches_the_adapter_s_thread() -> None:
    async def main() -> None:
        made = engine(Tells())

        async def tell(name: str) -> str:
            REQUEST_ID.set(name)
            async with aclosing(made.stream(GENERATE, MODEL, GenerateRequest(prompt=""))) as chunks:
                return "".join([chunk.text async for chunk in chunks if isinstance(chunk, TextChunk)])

        names = [f"req_{number}" for number in range(5)]
        assert await asyncio.gather(*(asyncio.create_task(tell(name)) for name in names)) == names
        await made.close()

    run(main())


def test_requests_with_lists_of_many_clients_are_joined_and_each_has_its_own_answer() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)

        async def embed(count: int) -> list[int]:
            request = EmbedRequest(inputs=("x",) * count)
            async with aclosing(made.stream(EMBED, MODEL, request)) as chunks:
                return [chunk.index async for chunk in chunks if isinstance(chunk, Embedding)]

        counts = [1, 2, 3, 1, 2, 3]
        assert await asyncio.gather(*map(embed, counts)) == [[*range(count)] for count in counts]
        assert rig.batches == [1, 11], "the first one found the model idle"
        await made.close()

    run(main())


# ── closing ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_closed_engine_has_closed_its_adapters_and_takes_no_calls() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        await ask(made)
        await made.close()
        await made.close()
        assert rig.closed == 1
        for late in (ask(made), made.load(EMBED, MODEL)):
            with pytest.raises(CapacityError, match="shutting down") as caught:
                await late
            assert caught.value.retry_after_s == 1
        assert rig.loads == 1

    run(main())


def test_who_waits_for_a_load_when_the_engine_closes_is_told_so() -> None:
    async def main() -> None:
        rig = Rig(gated=True)
        made = engine(rig)
        waiting = asyncio.create_task(ask(made))
        await rig.loading.wait()
        await made.close()
        with pytest.raises(CapacityError):
            await waiting
        assert not waiting.cancelled()
        rig.load_on.set()
        rigs.append(rig)

    rigs: list[Rig] = []
    run(main())
    assert (rigs[0].loads, rigs[0].closed) == (1, 1), "what was loaded after all is closed too"


def test_who_waits_for_a_slot_when_the_engine_closes_is_told_so() -> None:
    async def main() -> None:
        rig = Rig()
        made = engine(rig)
        running = asyncio.create_task(ask(made, "hold"))
        await rig.started.wait()
        queued = asyncio.create_task(ask(made))
        await turns()
        closing = asyncio.create_task(made.close())
        await turns()
        rig.go_on.set()
        with pytest.raises(CapacityError):
            await queued
        await asyncio.gather(running, closing)
        assert rig.calls == 1

    run(main())


# ── with the built-in plugin ──────────────────────────────────────────────────────────────────────────────────────────
def test_many_calls_of_a_waiting_adapter_run_on_the_loop_alone() -> None:
    async def main() -> None:
        (model,) = echo.register_models()
        made = engine(echo, model)
        await made.load(GENERATE, model)
        before = threading.active_count()
        words = [str(number) for number in range(20)]  # and the usage, in a chunk of its own
        assert await asyncio.gather(*(ask(made, *words, model=model) for _ in range(200))) == [21] * 200, (
            "20 words and the usage"
        )
        assert threading.active_count() == before
        await made.close()

    run(main())
