"""What every executor promises, whatever carries its calls.

The adapters are driven by steps that stand in the request, and they tell what they do through files (`scripted.py`):
they may run in this process or in another one.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from structlog.testing import capture_logs

from bench import Bench, Case, text
from loops import run, turns
from scripted import ERRORS, FAILURES, OUT_OF_MEMORY, PASSING, Steps
from workers import workers
from yapit import (
    BackendError,
    CapacityError,
    Context,
    GenerateRequest,
    InvalidInputError,
    LoadError,
    OutOfMemoryError,
    YapitError,
)
from yapit.errors import WorkerDiedError
from yapit.executors import executor
from yapit.plugins import Plugins
from yapit.schemas import Chunk
from yapit.tasks import GENERATE

EXECUTORS = ["thread", "process"]
ISOLATED = ["process"]  # what happens to the adapter's process does not happen to ours
COLOURS = ["generator", "iterator", "async generator", "async iterator"]
# A child starts in a quarter of a second, and drives the adapter as a thread does.
CASES = [(kind, colour) for kind in EXECUTORS for colour in (COLOURS if kind == "thread" else COLOURS[::2])]
AHEAD = {"thread": 18, "process": 34}  # chunks that an adapter may be ahead of its reader


def cases(*wanted: tuple[str, str]) -> list[Any]:
    return [pytest.param(one, id="-".join(one)) for one in wanted]


@pytest.fixture(params=cases(*CASES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """Every executor with adapters of every colour."""
    kind, colour = request.param
    with closing(Case(kind, colour, tmp_path)) as made:
        yield made


@pytest.fixture(params=cases(*(one for one in CASES if "async" not in one[1])))
def computing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """Every executor with adapters that compute."""
    kind, colour = request.param
    with closing(Case(kind, colour, tmp_path)) as made:
        yield made


@pytest.fixture(params=EXECUTORS)
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """Every executor."""
    with closing(Case(request.param, "generator", tmp_path)) as made:
        yield made


@pytest.fixture(params=cases(*(one for one in CASES if one[0] in ISOLATED)))
def isolated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """Every executor that runs adapters in processes of their own."""
    kind, colour = request.param
    with closing(Case(kind, colour, tmp_path)) as made:
        yield made


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


async def overtaken(bench: Bench) -> None:
    """Return when what was said before, here and there, is known on the other side: a whole call came after it."""
    await bench.say(("count", 50))


# ── chunks ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_chunks_come_all_and_in_order(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            assert await bench.say(("count", 50)) == numbers(50)
            assert await bench.say() == []
            assert await bench.say(("say", "a"), ("say", ""), ("say", "b")) == ["a", "", "b"]
        assert case.stage.notes().count("let go") == 3

    run(main())


def test_a_list_s_iterator_is_one_too(plain: Case) -> None:
    async def main() -> None:
        async with plain.loaded(colour="list") as bench:
            assert await bench.say(("say", "a"), ("say", "b")) == ["a", "b"]
            async with aclosing(bench.ask(("say", "a"), ("say", "b"))) as chunks:
                assert text(await anext(chunks)) == "a"

    run(main())


def test_ten_thousand_chunks(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            assert await bench.say(("count", 10_000)) == numbers(10_000)

    run(main())


def test_chunks_and_requests_of_two_megabytes(case: Case) -> None:
    large = [letter * (2 << 20) for letter in "xyz"]

    async def main() -> None:
        async with case.loaded(slots=2) as bench:
            assert await bench.say(*[("say", one) for one in large]) == large
            calls = [bench.say(("say", large[0])), bench.say(*[("say", one) for one in large * 10])]
            assert await asyncio.gather(*calls) == [large[:1], large * 10]

    run(main())


def test_an_adapter_is_not_far_ahead_of_its_reader(case: Case) -> None:
    aloud = [("note", "made"), ("say", "a")] * 2_000

    async def main() -> None:
        async with case.loaded(slots=2) as bench, aclosing(bench.ask(*aloud)) as chunks:
            read = 0
            for more in (1, 1, 7, 1, 8, 30):
                for _ in range(more):
                    await anext(chunks)
                read += more
                await bench.say(("count", 500))  # in which an adapter that nothing holds back makes hundreds
                assert read <= case.stage.notes().count("made") <= read + AHEAD[case.kind]
        assert case.stage.notes()[-2] == "let go"

    run(main())


def test_answers_to_items_do_not_wait_for_their_reader(tmp_path: Path) -> None:
    aloud = [("note", "made"), ("say", "a")] * 400
    by_items = msgspec.structs.replace(GENERATE, items=("messages",))

    async def main() -> None:
        with closing(Case("thread", "generator", tmp_path)) as case:
            async with case.loaded(slots=2) as bench:
                request = GenerateRequest(prompt="", options={"steps": aloud})
                async with aclosing(bench.executor.stream(by_items, bench.model, request)) as chunks:
                    await anext(chunks)
                    await bench.say(("count", 500))
                    assert case.stage.notes().count("made") == 400

    run(main())


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_sixty_four_callers_at_once_get_what_is_theirs(case: Case, slots: int) -> None:
    async def main() -> None:
        async with case.loaded(slots=slots) as bench:
            words = [f"call {number}" for number in range(64)]
            calls = [bench.say(*[("say", word)] * 25) for word in words]
            assert await asyncio.gather(*calls) == [[word] * 25 for word in words]

    run(main())


# ── capacity ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("slots", [1, 7])
def test_loading_tells_how_many_calls_may_run(plain: Case, slots: int) -> None:
    async def main() -> None:
        bench = plain.bench(slots=slots)
        assert await bench.load() == slots
        await bench.unload()
        await bench.unload()
        assert [line.split()[0] for line in plain.stage.notes()] == ["load", "close"]

    run(main())


def test_with_three_slots_three_calls_run_at_once(case: Case) -> None:
    async def main() -> None:
        async with case.loaded(slots=3) as bench:
            calls = [asyncio.create_task(bench.say(("open", f"in{n}"), ("pass", f"go{n}"))) for n in range(3)]
            for number in range(3):
                await case.stage.passed(f"in{number}")
            for number in range(3):
                case.stage.open(f"go{number}")
            await asyncio.gather(*calls)

    run(main())


def test_a_fourth_call_begins_when_one_of_three_has_ended(computing: Case) -> None:
    async def main() -> None:
        async with computing.loaded(slots=3) as bench:
            steps: list[Steps] = [[("note", "in"), ("open", "in"), ("pass", "go")] for _ in range(4)]
            calls = [asyncio.create_task(bench.say(*one)) for one in steps]
            for _ in range(3):
                await computing.stage.passed("in")
            computing.stage.open("go")
            await computing.stage.passed("in")
            computing.stage.open("go", times=3)
            await asyncio.gather(*calls)
        assert computing.stage.notes()[1:6] == ["in", "in", "in", "let go", "in"]

    run(main())


def test_with_one_slot_everything_happens_on_one_thread(computing: Case) -> None:
    async def main() -> None:
        async with computing.loaded() as bench:
            for _ in range(3):
                await bench.say(("here", 0))
            await asyncio.gather(*(bench.say(("here", 0), ("count", 20)) for _ in range(3)))
        noted = [line.split() for line in computing.stage.notes() if line != "let go"]
        assert Counter(what for what, _ in noted) == {"load": 1, "call": 6, "close": 1}
        assert len({where for _, where in noted}) == 1

    run(main())


# ── closing ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_closing_early_returns_when_the_adapter_has_let_go(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            for closed, read in enumerate((1, 5, 8, 30)):
                chunks = bench.ask(("count", 10_000))
                assert [text(await anext(chunks)) for _ in range(read)] == numbers(read)
                await chunks.aclose()
                assert case.stage.notes()[1:] == ["let go"] * (2 * closed + 1)
                assert await bench.say(("say", "again")) == ["again"]

    run(main())


def test_closing_before_the_first_chunk_asks_nothing(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            await bench.ask(("note", "asked")).aclose()
        assert "asked" not in case.stage.notes()

    run(main())


def test_closing_after_the_last_chunk_changes_nothing(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            chunks = bench.ask(("count", 3))
            assert [text(chunk) async for chunk in chunks] == numbers(3)
            await chunks.aclose()
            assert await bench.say(("say", "again")) == ["again"]

    run(main())


# ── cancelling ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 1), (20, 1), (3, 0)])
def test_cancelling_while_the_adapter_works(case: Case, before: int, after: int) -> None:
    """Before the first chunk, between two, and after the last one."""

    async def main() -> None:
        async with case.loaded() as bench:
            steps: Steps = [("count", before), ("open", "busy"), ("pass", "go"), ("count", after)]
            reader = asyncio.create_task(bench.say(*steps))
            await case.stage.passed("busy")
            reader.cancel()
            case.stage.open("go")  # what computes cannot be broken off within a step
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert case.stage.notes()[1:] == ["let go"]
            assert await bench.say(("say", "again")) == ["again"]

    run(main())


def test_cancelling_while_the_method_has_not_returned_its_iterator(plain: Case) -> None:
    async def main() -> None:
        async with plain.loaded(colour="iterator", slots=2) as bench:
            reader = asyncio.create_task(bench.say(("note", "begun"), early="wait"))
            await plain.stage.passed("busy")
            reader.cancel()
            await turns()
            await overtaken(bench)
            plain.stage.open("go")
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert await bench.say(("say", "again")) == ["again"]
        assert "begun" not in plain.stage.notes()

    run(main())


@pytest.mark.usefixtures("each_loop")
def test_cancelling_at_any_turn_of_the_loop(case: Case) -> None:
    """Later and later, until the call is over first."""

    async def main() -> None:
        async with case.loaded() as bench:
            pause, cancelled = 0, True
            while cancelled:
                call = asyncio.create_task(bench.say(("note", "begun"), ("count", 30)))
                await turns(pause)
                call.cancel()
                with suppress(asyncio.CancelledError):
                    assert await call == numbers(30)
                assert case.stage.notes().count("begun") == case.stage.notes().count("let go")
                cancelled = call.cancelled()
                pause += 1 + pause // 10
            assert await bench.say(("say", "again")) == ["again"]

    run(main())


def test_cancelling_twice_still_waits_for_the_adapter(plain: Case) -> None:
    async def main() -> None:
        async with plain.loaded() as bench:
            reader = asyncio.create_task(bench.say(("open", "busy"), ("pass", "go")))
            await plain.stage.passed("busy")
            for _ in range(3):
                reader.cancel()
                await turns()
            assert not reader.done()
            plain.stage.open("go")
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert plain.stage.notes()[1:] == ["let go"]

    run(main())


def test_cancelling_while_the_reader_does_something_else(case: Case) -> None:
    async def main() -> None:
        async def slow_reader() -> None:
            async with aclosing(bench.ask(("count", 100))) as chunks:
                async for _ in chunks:
                    reading.set()
                    await asyncio.Event().wait()

        reading = asyncio.Event()
        async with case.loaded() as bench:
            reader = asyncio.create_task(slow_reader())
            await reading.wait()
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert case.stage.notes()[1:] == ["let go"]

    run(main())


def test_a_call_that_is_left_while_it_waits_for_a_slot_ends_at_once_and_never_begins(plain: Case) -> None:
    async def main() -> None:
        async with plain.loaded() as bench:
            first = asyncio.create_task(bench.say(("open", "busy"), ("pass", "go"), ("say", "first")))
            await plain.stage.passed("busy")
            second = asyncio.create_task(bench.say(("note", "second")))
            await turns()
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert not first.done()
            plain.stage.open("go")
            assert await first == ["first"]
        assert "second" not in plain.stage.notes()

    run(main())


def test_an_adapter_may_let_go_while_it_is_being_closed_and_fail(plain: Case) -> None:
    async def main() -> None:
        async with plain.loaded() as bench:
            reader = asyncio.create_task(bench.say(("open", "busy"), ("pass", "go"), ("raise", "value")))
            await plain.stage.passed("busy")
            reader.cancel()
            plain.stage.open("go")
            with capture_logs(), pytest.raises(asyncio.CancelledError):
                await reader
            assert await bench.say(("say", "again")) == ["again"]

    run(main())


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_error_meant_for_the_client_passes(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            for name in PASSING:
                wanted = ERRORS[name]
                assert isinstance(wanted, YapitError)
                with pytest.raises(YapitError) as caught:
                    await bench.say(("raise", name))
                got = caught.value
                assert isinstance(got, InvalidInputError if name == "own" else type(wanted))
                attributes = ("message", "param", "code", "retry_after_s", "status", "type")
                assert [getattr(got, one) for one in attributes] == [getattr(wanted, one) for one in attributes]

    run(main())


async def read(chunks: AsyncGenerator[Chunk, None], got: list[str]) -> None:
    """Read to the end, and keep what came before an error."""
    async with aclosing(chunks):
        async for chunk in chunks:
            got.append(text(chunk))  # noqa: PERF401 - what came before the error counts


def test_any_other_error_is_told_in_general_words_after_all_chunks(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            for name, before in product(FAILURES, (0, 1, 20)):
                got: list[str] = []
                with capture_logs(), pytest.raises(BackendError, match=r"^The model 'm' failed \(\w+\)") as caught:
                    await read(bench.ask(("count", before), ("raise", name)), got)
                assert "secret" not in caught.value.message
                assert type(caught.value) is BackendError
                assert got == numbers(before)
                assert await bench.say(("say", "again")) == ["again"]

    run(main())


def test_no_room_in_the_memory_is_an_error_of_its_own(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            for name in OUT_OF_MEMORY:
                with capture_logs(), pytest.raises(OutOfMemoryError) as caught:
                    await bench.say(("raise", name))
                assert caught.value.message == "The model 'm' ran out of memory."
                assert await bench.say(("say", "again")) == ["again"]

    run(main())


def test_what_filled_the_memory_is_given_back_before_the_error_is_told(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            with capture_logs(), pytest.raises(OutOfMemoryError):
                await bench.say(("say", "a"), ("fill", 0))
            assert case.stage.notes()[-1] == "freed"

    run(main())


def test_a_method_that_returns_no_iterator_has_failed(plain: Case) -> None:
    async def main() -> None:
        async with plain.loaded(colour="iterator") as bench:
            for early in ("value", "exit", "stop", "none"):
                with capture_logs(), pytest.raises(BackendError, match=r"^The model 'm' failed"):
                    await bench.say(early=early)
                assert await bench.say(("say", "again")) == ["again"]

    run(main())


def test_a_chunk_of_another_kind_is_refused_and_the_adapter_closed(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            chunks = bench.ask(("say", "a"), ("wrong", 0), ("say", "b"))
            assert text(await anext(chunks)) == "a"
            with pytest.raises(BackendError, match="yielded a AudioChunk, not a TextChunk"):
                await anext(chunks)
            assert case.stage.notes()[1:] == ["let go"]

    run(main())


# ── loading ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("failure", "error"), [("value", LoadError), ("exit", LoadError), ("stop", LoadError), ("capacity", CapacityError)]
)
def test_a_load_that_fails_leaves_nothing(plain: Case, failure: str, error: type[YapitError]) -> None:
    async def main() -> None:
        bench = plain.bench(failure=failure)
        with capture_logs(), pytest.raises(error) as caught:
            await bench.try_to_load()
        assert "secret" not in caught.value.message
        assert workers() == []
        assert bench.died == []

    run(main())


def test_a_load_that_is_cancelled_gives_back_what_it_has_taken(plain: Case) -> None:
    async def main() -> None:
        bench = plain.bench(gated=True)
        loading = asyncio.create_task(bench.load())
        await plain.stage.passed("loading")
        loading.cancel()
        await turns()
        plain.stage.open("go")
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert workers() == []

    run(main())
    assert [line.split()[0] for line in plain.stage.notes()] == ["load", "close"]
    assert len({line.split()[1] for line in plain.stage.notes()}) == 1


@pytest.mark.usefixtures("each_loop")
def test_a_load_that_is_cancelled_at_any_turn_of_the_loop_leaves_nothing(plain: Case) -> None:
    async def main() -> None:
        pause, cancelled = 0, True
        while cancelled:
            bench = plain.bench()
            loading = asyncio.create_task(bench.load())
            await turns(pause)
            loading.cancel()
            with suppress(asyncio.CancelledError):
                assert await loading == 1
            cancelled = loading.cancelled()
            if not cancelled:
                await bench.unload()
            assert workers() == []
            pause = pause + 1 if pause < 8 else pause * 4  # what is started is started within a few turns

    run(main())
    told = Counter(line.split()[0] for line in plain.stage.notes())
    assert told["load"] == told["close"]


@pytest.mark.usefixtures("each_loop")
def test_an_unload_that_is_cancelled_goes_on(plain: Case) -> None:
    async def main() -> None:
        bench = plain.bench()
        await bench.load()
        unloading = asyncio.create_task(bench.unload())
        await turns(1)
        for _ in range(3):
            unloading.cancel()
            await turns(1)
        with suppress(asyncio.CancelledError):
            await unloading
        assert workers() == []

    run(main())
    assert [line.split()[0] for line in plain.stage.notes()] == ["load", "close"]


def test_an_adapter_that_fails_to_close_is_gone_all_the_same(plain: Case) -> None:
    async def main() -> None:
        with capture_logs():
            async with plain.loaded(stuck=True) as bench:
                assert await bench.say(("say", "a")) == ["a"]

    run(main())


def test_an_unknown_executor_names_those_that_are_known() -> None:
    with pytest.raises(LoadError, match=r"executor 'thraed' is not installed\. Did you mean 'thread'\?"):
        executor("thraed", Plugins(), Context())


# ── death ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
KILLED = r"^The process that ran the model 'm' was ended by SIGKILL\.$"


@pytest.mark.usefixtures("each_loop")
def test_killed_in_mid_stream_a_call_has_its_chunks_and_then_the_error(isolated: Case) -> None:
    async def main() -> None:
        async with isolated.loaded(slots=2) as bench:
            chunks = bench.ask(("count", 12), ("open", "busy"), ("pass", "never"), ("say", "late"))
            assert text(await anext(chunks)) == "0"
            await isolated.stage.passed("busy")
            await overtaken(bench)
            os.kill(bench.pid, signal.SIGKILL)
            while not bench.died:
                await turns(1)
            got = ["0"]
            with pytest.raises(WorkerDiedError, match=KILLED) as caught:
                await read(chunks, got)
            assert got == numbers(12)
            assert (caught.value.code, caught.value.status) == ("worker_died", 502)

    with capture_logs():
        run(main())


@pytest.mark.usefixtures("each_loop")
def test_killed_all_its_calls_fail_and_the_death_is_told_once(isolated: Case) -> None:
    async def main() -> None:
        async with isolated.loaded(slots=3) as bench:
            calls = [asyncio.create_task(bench.say(("open", "busy"), ("pass", f"never{n}"))) for n in range(3)]
            for _ in calls:
                await isolated.stage.passed("busy")
            calls.append(asyncio.create_task(bench.say(("say", "just sent"))))
            await turns(1)
            os.kill(bench.pid, signal.SIGKILL)
            calls.append(asyncio.create_task(bench.say(("say", "too late"))))
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(error) for error in ended[:3]] == [WorkerDiedError] * 3
            assert {type(error) for error in (ended[0], ended[4])} == {WorkerDiedError}
            assert bench.died == ["generate m: The process that ran the model 'm' was ended by SIGKILL."]

    with capture_logs() as logs:
        run(main())
    assert [entry["event"] for entry in logs].count("worker_died") == 1


def test_dead_it_fails_at_once_until_it_is_loaded_again(isolated: Case) -> None:
    async def main() -> None:
        async with isolated.loaded() as bench:
            with pytest.raises(WorkerDiedError, match=KILLED):
                await bench.say(("signal", signal.SIGKILL))
            for _ in range(3):
                again = asyncio.create_task(bench.say(("say", "again")))
                await turns()
                assert again.done(), "nothing is waited for"
                with pytest.raises(WorkerDiedError, match=KILLED):
                    again.result()
            assert len(bench.died) == 1
            assert await bench.load() == 1
            assert await bench.say(("say", "again")) == ["again"]
            assert len(bench.died) == 1

    with capture_logs():
        run(main())


def test_an_unload_is_no_death(isolated: Case) -> None:
    async def main() -> None:
        async with isolated.loaded() as bench:
            await bench.say(("say", "a"))
        assert bench.died == []

    run(main())


def test_a_dead_one_can_be_unloaded(isolated: Case) -> None:
    async def main() -> None:
        bench = isolated.bench()
        await bench.load()
        with pytest.raises(WorkerDiedError, match="exited with 3"):
            await bench.say(("exit", 3))
        await bench.unload()
        assert workers() == []
        with pytest.raises(WorkerDiedError, match="is gone"):
            await bench.say(("say", "too late"))

    with capture_logs():
        run(main())


def test_stopped_and_continued_a_call_loses_nothing(isolated: Case) -> None:
    async def main() -> None:
        async with isolated.loaded() as bench:
            chunks = bench.ask(("count", 200))
            got = [text(await anext(chunks))]
            os.kill(bench.pid, signal.SIGSTOP)
            rest = asyncio.create_task(read(chunks, got))
            while psutil.Process(bench.pid).status() != psutil.STATUS_STOPPED:
                await turns(1)
            await turns(100)
            assert not rest.done()
            os.kill(bench.pid, signal.SIGCONT)
            await rest
            assert got == numbers(200)

    run(main())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little patience with what should end."""
    monkeypatch.setattr("yapit.executors.child._GRACE_S", 0.2)


@pytest.mark.usefixtures("hasty")
def test_a_call_that_does_not_let_go_is_ended_with_its_process(isolated: Case) -> None:
    async def main() -> None:
        async with isolated.loaded(slots=2) as bench:
            other = asyncio.create_task(bench.say(("open", "busy"), ("pass", "never either")))
            deaf = asyncio.create_task(bench.say(("open", "busy"), ("deaf", "never")))
            for _ in range(2):
                await isolated.stage.passed("busy")
            for _ in range(3):
                deaf.cancel()
                await turns()
            assert not deaf.done()
            with pytest.raises(asyncio.CancelledError):
                await deaf
            with pytest.raises(WorkerDiedError, match=KILLED):
                await other
            assert len(bench.died) == 1

    with capture_logs() as logs:
        run(main())
    assert "worker_hangs" in [entry["event"] for entry in logs]


@pytest.mark.usefixtures("hasty")
def test_a_stopped_process_is_ended_all_the_same(isolated: Case) -> None:
    async def main() -> None:
        bench = isolated.bench()
        await bench.load()
        os.kill(bench.pid, signal.SIGSTOP)
        await bench.unload()
        assert workers() == []

    run(main())


@pytest.mark.parametrize(
    ("step", "how"), [(("exit", 3), r"exited with 3\.$"), (("signal", signal.SIGSEGV), r"was ended by SIGSEGV\.$")]
)
def test_a_load_that_ends_its_process_says_how(isolated: Case, step: tuple[str, Any], how: str) -> None:
    async def main() -> None:
        bench = isolated.bench(loading=step)
        with pytest.raises(WorkerDiedError, match=how):
            await bench.try_to_load()
        assert workers() == []
        assert bench.died == [], "it was not loaded"

    run(main())


@pytest.mark.usefixtures("hasty")
def test_a_load_that_hangs_is_ended_when_it_is_cancelled(isolated: Case) -> None:
    async def main() -> None:
        loading = asyncio.create_task(isolated.bench(gated=True).load())
        await isolated.stage.passed("loading")
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert workers() == []

    run(main())
    assert [line.split()[0] for line in isolated.stage.notes()] == ["load"]


def test_what_one_process_suffers_the_others_do_not_notice(isolated: Case) -> None:
    async def main() -> None:
        async with isolated.loaded() as bench, isolated.loaded() as other:
            waiting = asyncio.create_task(other.say(("open", "busy"), ("pass", "go"), ("say", "well")))
            await isolated.stage.passed("busy")
            with pytest.raises(WorkerDiedError):
                await bench.say(("signal", signal.SIGKILL))
            isolated.stage.open("go")
            assert await waiting == ["well"]
            assert other.died == []

    with capture_logs():
        run(main())
