"""What every executor promises, whatever carries its calls.

The adapters are driven by steps that stand in the request, and they tell what they do through files: they may run in
this process or in another one.
"""

import asyncio
import os
import select
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from loops import PATIENCE_S, run, turns
from yapit import (
    AudioChunk,
    BackendError,
    CapacityError,
    Context,
    DeadlineError,
    GenerateRequest,
    InvalidInputError,
    LoadError,
    Model,
    RateLimitError,
    RemoteError,
    TextChunk,
    TextGenerator,
    YapitError,
    hookimpl,
)
from yapit.executors import Executor, executor
from yapit.plugins import Plugins
from yapit.schemas import Chunk
from yapit.tasks import GENERATE

EXECUTORS = ["thread"]
COLOURS = ["generator", "iterator", "async generator", "async iterator"]
COMPUTING = COLOURS[:2]
AHEAD = 10  # chunks that an adapter may be ahead of its reader
Steps = list[tuple[str, Any]]


class Stage:
    """What a test and its adapters tell each other: notes in a file, and gates that are named pipes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._gates: dict[str, int] = {}

    def note(self, line: str) -> None:
        with (self.folder / "notes").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def notes(self) -> list[str]:
        with suppress(FileNotFoundError):
            return (self.folder / "notes").read_text("utf-8").splitlines()
        return []

    def open(self, gate: str, times: int = 1) -> None:
        """Let `times` callers through, now or when they come."""
        os.write(self._gate(gate), b"." * times)

    def pass_(self, gate: str) -> None:
        """Block until the gate is opened."""
        descriptor = self._gate(gate)
        if not select.select([descriptor], [], [], PATIENCE_S)[0]:
            raise TimeoutError(gate)
        os.read(descriptor, 1)

    async def passed(self, gate: str) -> None:
        """Wait until the gate is opened."""
        loop, descriptor, opened = asyncio.get_running_loop(), self._gate(gate), asyncio.Event()
        loop.add_reader(descriptor, opened.set)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await opened.wait()
            os.read(descriptor, 1)
        finally:
            loop.remove_reader(descriptor)

    def close(self) -> None:
        for descriptor in self._gates.values():
            os.close(descriptor)

    def _gate(self, gate: str) -> int:
        if gate not in self._gates:
            path = self.folder / f"gate-{gate}"
            with suppress(FileExistsError):
                os.mkfifo(path)
            self._gates[gate] = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # both ends, so that no open waits
        return self._gates[gate]


# ── the adapters ──────────────────────────────────────────────────────────────────────────────────────────────────────
ERRORS: dict[str, BaseException] = {
    "value": ValueError("secret"),
    "lookup": KeyError("secret"),
    "exit": SystemExit("secret"),
    "stop": StopIteration("secret"),
    "input": InvalidInputError("No such voice.", param="voice"),
    "capacity": CapacityError("Full.", retry_after_s=2.5),
    "rate": RateLimitError("Slower.", code="queue_full", retry_after_s=1),
    "remote": RemoteError("Gone."),
    "deadline": DeadlineError("Too long."),
}


def here() -> str:
    return f"{os.getpid()}-{threading.get_ident()}"


def act(stage: Stage, verb: str, value: Any) -> Iterator[Chunk]:
    """Do one step that does not wait."""
    match verb:
        case "say":
            yield TextChunk(text=value)
        case "count":
            yield from (TextChunk(text=str(number)) for number in range(value))
        case "wrong":
            yield AudioChunk(pcm=b"", sample_rate=1)
        case "open":
            stage.open(value)
        case "note":
            stage.note(value)
        case "here":
            stage.note(f"call {here()}")
        case "raise":
            raise ERRORS[value]


def play(stage: Stage, steps: Steps) -> Iterator[Chunk]:
    try:
        for verb, value in steps:
            if verb == "pass":
                stage.pass_(value)
            else:
                yield from act(stage, verb, value)
    finally:
        stage.note("let go")


async def play_waiting(stage: Stage, steps: Steps) -> AsyncIterator[Chunk]:
    try:
        for verb, value in steps:
            if verb == "pass":
                await stage.passed(value)
            for chunk in act(stage, verb, value):
                yield chunk
    finally:
        await asyncio.sleep(0)  # letting go may take a turn of the loop
        stage.note("let go")


class Scripted(TextGenerator):
    """An adapter whose method returns what the model's colour says."""

    def __init__(self, model: Model) -> None:
        self.stage = Stage(Path(model.options["folder"]))
        self.max_concurrency = model.options.get("slots", 1)
        self.model = model
        self.stage.note(f"load {here()}")
        if model.options.get("gated"):
            self.stage.open("loading")
            self.stage.pass_("go")

    def generate(self, request: GenerateRequest) -> Any:
        """Return, without being a generator itself, an iterator of either kind."""
        steps = request.options["steps"]
        early = request.options["early"]
        if early == "none":
            return None
        if early:
            raise ERRORS[early]
        if self.model.options["colour"] == "list":
            return iter([TextChunk(text=value) for _, value in steps])
        return (play_waiting if "async" in self.model.options["colour"] else play)(self.stage, steps)

    def close(self) -> None:
        self.stage.note(f"close {here()}")
        self.stage.close()
        if self.model.options.get("stuck"):
            raise ValueError("secret")


class Computing(Scripted):
    def generate(self, request: GenerateRequest) -> Iterator[TextChunk]:
        chunks: Any = play(self.stage, request.options["steps"])
        yield from chunks


class Waiting(Scripted):
    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        chunks: Any = play_waiting(self.stage, request.options["steps"])
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk


class ScriptedPlugin:
    @hookimpl
    def generate(self, model: Model, context: Context) -> TextGenerator | None:
        if model.backend != "scripted":
            return None
        if failure := model.options.get("failure"):
            raise ERRORS[failure]
        return {"generator": Computing, "async generator": Waiting}.get(model.options["colour"], Scripted)(model)


# ── the bench ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(params=EXECUTORS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


class Bench:
    """One executor with one scripted model."""

    def __init__(self, kind: str, stage: Stage, colour: str, **options: Any) -> None:
        plugins = Plugins()
        plugins.register("scripted", ScriptedPlugin())
        self.executor: Executor = executor(kind, plugins, Context())
        options |= {"folder": str(stage.folder), "colour": colour}
        self.model = Model(id="m", backend="scripted", tasks=("generate",), options=options)

    async def load(self) -> int:
        return await self.executor.load(GENERATE, self.model)

    async def unload(self) -> None:
        await self.executor.unload(GENERATE, self.model)

    def ask(self, *steps: tuple[str, Any], early: str | None = None) -> AsyncGenerator[Chunk, None]:
        request = GenerateRequest(prompt="", options={"steps": steps, "early": early})
        return self.executor.stream(GENERATE, self.model, request)

    async def say(self, *steps: tuple[str, Any], early: str | None = None) -> list[str]:
        """Return the texts of one call."""
        async with aclosing(self.ask(*steps, early=early)) as chunks:
            return [text(chunk) async for chunk in chunks]


@asynccontextmanager
async def loaded(kind: str, stage: Stage, colour: str, **options: Any) -> AsyncIterator[Bench]:
    bench = Bench(kind, stage, colour, **options)
    await bench.load()
    try:
        yield bench
    finally:
        await bench.unload()


def text(chunk: Chunk) -> str:
    assert isinstance(chunk, TextChunk)
    return chunk.text


# ── chunks ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_chunks_come_all_and_in_order(kind: str, stage: Stage, colour: str) -> None:
    async def main() -> None:
        async with loaded(kind, stage, colour) as bench:
            assert await bench.say(("count", 50)) == [str(number) for number in range(50)]
            assert await bench.say() == []
            assert await bench.say(("say", "a"), ("say", ""), ("say", "b")) == ["a", "", "b"]
        assert stage.notes().count("let go") == 3

    run(main())


def test_a_list_s_iterator_is_one_too(kind: str, stage: Stage) -> None:
    async def main() -> None:
        async with loaded(kind, stage, "list") as bench:
            assert await bench.say(("say", "a"), ("say", "b")) == ["a", "b"]
            async with aclosing(bench.ask(("say", "a"), ("say", "b"))) as chunks:
                assert text(await anext(chunks)) == "a"

    run(main())


LARGE = "x" * (2 << 20)


@pytest.mark.parametrize("step", [("count", 10_000), ("say", LARGE)], ids=["many", "large"])
def test_many_and_large_chunks(kind: str, stage: Stage, colour: str, step: tuple[str, Any]) -> None:
    async def main() -> None:
        async with loaded(kind, stage, colour) as bench:
            wanted = [LARGE] if step[0] == "say" else [str(number) for number in range(10_000)]
            assert await bench.say(step) == wanted

    run(main())


def test_an_adapter_is_not_far_ahead_of_its_reader(kind: str, stage: Stage, colour: str) -> None:
    aloud = [("note", "made"), ("say", "a")] * 2_000

    async def main() -> None:
        async with loaded(kind, stage, colour) as bench, aclosing(bench.ask(*aloud)) as chunks:
            for read in range(1, 30):
                await anext(chunks)
                await turns(100)  # in which an adapter that nothing holds back makes hundreds
                assert stage.notes().count("made") <= read + AHEAD
        assert stage.notes()[-2] == "let go"

    run(main())


def test_calls_do_not_mix(kind: str, stage: Stage, colour: str) -> None:
    async def main() -> None:
        async with loaded(kind, stage, colour, slots=4) as bench:
            words = [f"call {number}" for number in range(4)]
            calls = [bench.say(*[("say", word)] * 25) for word in words]
            assert await asyncio.gather(*calls) == [[word] * 25 for word in words]

    run(main())


# ── closing and cancelling ────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("read", [1, 5, 30])
def test_closing_early_returns_when_the_adapter_has_let_go(kind: str, stage: Stage, colour: str, read: int) -> None:
    async def main() -> None:
        async with loaded(kind, stage, colour) as bench:
            chunks = bench.ask(("count", 10_000))
            for _ in range(read):
                await anext(chunks)
            await chunks.aclose()
            assert stage.notes()[1:] == ["let go"]
            assert await bench.say(("say", "again")) == ["again"]

    run(main())


def test_closing_before_the_first_chunk_asks_nothing(kind: str, stage: Stage, colour: str) -> None:
    async def main() -> None:
        async with loaded(kind, stage, colour) as bench:
            await bench.ask(("note", "asked")).aclose()
        assert "asked" not in stage.notes()

    run(main())


def test_cancelling_while_the_adapter_works_on_a_chunk(kind: str, stage: Stage, colour: str) -> None:
    async def main() -> None:
        async with loaded(kind, stage, colour) as bench:
            reader = asyncio.create_task(bench.say(("say", "a"), ("open", "busy"), ("pass", "go"), ("say", "b")))
            await stage.passed("busy")
            reader.cancel()
            stage.open("go")  # what computes cannot be broken off within a step
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert stage.notes()[1:] == ["let go"]
            assert await bench.say(("say", "again")) == ["again"]

    run(main())


def test_cancelling_twice_still_waits_for_the_adapter(kind: str, stage: Stage) -> None:
    async def main() -> None:
        async with loaded(kind, stage, "generator") as bench:
            reader = asyncio.create_task(bench.say(("open", "busy"), ("pass", "go")))
            await stage.passed("busy")
            for _ in range(3):
                reader.cancel()
                await turns()
            assert not reader.done()
            stage.open("go")
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert stage.notes()[1:] == ["let go"]

    run(main())


def test_cancelling_between_chunks(kind: str, stage: Stage, colour: str) -> None:
    async def main() -> None:
        async def slow_reader() -> None:
            async with aclosing(bench.ask(("count", 100))) as chunks:
                async for _ in chunks:
                    reading.set()
                    await asyncio.Event().wait()

        reading = asyncio.Event()
        async with loaded(kind, stage, colour) as bench:
            reader = asyncio.create_task(slow_reader())
            await reading.wait()
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert stage.notes()[1:] == ["let go"]

    run(main())


def test_a_call_that_is_left_while_it_waits_for_the_thread_never_starts(kind: str, stage: Stage) -> None:
    async def main() -> None:
        async with loaded(kind, stage, "generator") as bench:
            first = asyncio.create_task(bench.say(("open", "busy"), ("pass", "go"), ("say", "first")))
            await stage.passed("busy")
            second = asyncio.create_task(bench.say(("note", "second")))
            await turns()
            second.cancel()
            await turns()
            stage.open("go")
            with pytest.raises(asyncio.CancelledError):
                await second
            assert await first == ["first"]
        assert "second" not in stage.notes()

    run(main())


def test_an_adapter_may_let_go_while_it_is_being_closed_and_fail(kind: str, stage: Stage) -> None:
    async def main() -> None:
        async with loaded(kind, stage, "generator") as bench:
            reader = asyncio.create_task(bench.say(("open", "busy"), ("pass", "go"), ("raise", "value")))
            await stage.passed("busy")
            reader.cancel()
            stage.open("go")
            with capture_logs(), pytest.raises(asyncio.CancelledError):
                await reader
            assert await bench.say(("say", "again")) == ["again"]

    run(main())


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", [name for name, error in ERRORS.items() if isinstance(error, YapitError)])
def test_an_error_meant_for_the_client_passes(kind: str, stage: Stage, colour: str, name: str) -> None:
    async def main() -> None:
        wanted = ERRORS[name]
        assert isinstance(wanted, YapitError)
        async with loaded(kind, stage, colour) as bench:
            with pytest.raises(YapitError) as caught:
                await bench.say(("raise", name))
        got = caught.value
        assert type(got) is type(wanted)
        attributes = ("message", "param", "code", "retry_after_s")
        assert [getattr(got, one) for one in attributes] == [getattr(wanted, one) for one in attributes]

    run(main())


@pytest.mark.parametrize("name", [name for name, error in ERRORS.items() if not isinstance(error, YapitError)])
@pytest.mark.parametrize("before", [0, 1, 20])
def test_any_other_error_is_told_in_general_words_after_all_chunks(
    kind: str, stage: Stage, colour: str, name: str, before: int
) -> None:
    got: list[str] = []

    async def read(bench: Bench) -> None:
        async with aclosing(bench.ask(("count", before), ("raise", name))) as chunks:
            async for chunk in chunks:
                got.append(text(chunk))  # noqa: PERF401 - what came before the error counts

    async def main() -> None:
        async with loaded(kind, stage, colour) as bench:
            with capture_logs(), pytest.raises(BackendError, match=r"^The model 'm' failed \(\w+\)") as caught:
                await read(bench)
            assert "secret" not in caught.value.message
            assert type(caught.value) is BackendError
            assert got == [str(number) for number in range(before)]
            assert await bench.say(("say", "again")) == ["again"]

    run(main())


@pytest.mark.parametrize("early", ["value", "exit", "stop", "none"])
def test_a_method_that_returns_no_iterator_has_failed(kind: str, stage: Stage, early: str) -> None:
    async def main() -> None:
        async with loaded(kind, stage, "iterator") as bench:
            with capture_logs(), pytest.raises(BackendError, match=r"^The model 'm' failed"):
                await bench.say(early=early)
            assert await bench.say(("say", "again")) == ["again"]

    run(main())


def test_a_chunk_of_another_kind_is_refused_and_the_adapter_closed(kind: str, stage: Stage, colour: str) -> None:
    async def main() -> None:
        async with loaded(kind, stage, colour) as bench:
            chunks = bench.ask(("say", "a"), ("wrong", 0), ("say", "b"))
            assert text(await anext(chunks)) == "a"
            with pytest.raises(BackendError, match="yielded a AudioChunk, not a TextChunk"):
                await anext(chunks)
            assert stage.notes()[1:] == ["let go"]

    run(main())


# ── threads ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("computing", COMPUTING)
def test_with_one_slot_everything_happens_on_one_thread(kind: str, stage: Stage, computing: str) -> None:
    async def main() -> None:
        async with loaded(kind, stage, computing) as bench:
            for _ in range(3):
                await bench.say(("here", 0))
            await asyncio.gather(*(bench.say(("here", 0), ("count", 20)) for _ in range(3)))
        noted = [line.split() for line in stage.notes() if line != "let go"]
        assert Counter(what for what, _ in noted) == {"load": 1, "call": 6, "close": 1}
        assert len({where for _, where in noted}) == 1

    run(main())


def test_with_three_slots_three_calls_run_at_once(kind: str, stage: Stage, colour: str) -> None:
    async def main() -> None:
        async with loaded(kind, stage, colour, slots=3) as bench:
            calls = [asyncio.create_task(bench.say(("open", f"in{n}"), ("pass", f"go{n}"))) for n in range(3)]
            for number in range(3):
                await stage.passed(f"in{number}")
            for number in range(3):
                stage.open(f"go{number}")
            await asyncio.gather(*calls)

    run(main())


# ── loading ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("slots", [1, 7])
def test_loading_tells_how_many_calls_may_run(kind: str, stage: Stage, slots: int) -> None:
    async def main() -> None:
        bench = Bench(kind, stage, "generator", slots=slots)
        assert await bench.load() == slots
        await bench.unload()
        await bench.unload()
        assert [line.split()[0] for line in stage.notes()] == ["load", "close"]

    run(main())


@pytest.mark.parametrize(
    ("failure", "error"), [("value", LoadError), ("exit", LoadError), ("stop", LoadError), ("capacity", CapacityError)]
)
def test_a_load_that_fails_leaves_nothing(kind: str, stage: Stage, failure: str, error: type[YapitError]) -> None:
    async def main() -> None:
        with pytest.raises(error) as caught:
            await Bench(kind, stage, "generator", failure=failure).load()
        assert "secret" not in caught.value.message

    run(main())


def test_a_load_that_is_cancelled_gives_back_what_it_has_taken(kind: str, stage: Stage) -> None:
    async def main() -> None:
        bench = Bench(kind, stage, "generator", gated=True)
        loading = asyncio.create_task(bench.load())
        await stage.passed("loading")
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        stage.open("go")

    run(main())
    assert [line.split()[0] for line in stage.notes()] == ["load", "close"]
    assert len({line.split()[1] for line in stage.notes()}) == 1


def test_an_adapter_that_fails_to_close_is_gone_all_the_same(kind: str, stage: Stage) -> None:
    async def main() -> None:
        with capture_logs():
            async with loaded(kind, stage, "generator", stuck=True) as bench:
                assert await bench.say(("say", "a")) == ["a"]

    run(main())


def test_an_unknown_executor_names_those_that_are_known() -> None:
    with pytest.raises(LoadError, match=r"executor 'thraed' is not installed\. Did you mean 'thread'\?"):
        executor("thraed", Plugins(), Context())
