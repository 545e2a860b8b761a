"""A worker, told message by message what its gateway would tell it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from bench import Case
from loops import run, turns
from yapit import GenerateRequest, InvalidInputError, RateLimitError, __version__, worker
from yapit.executors.wire import Call, Cancel, Channel, Chunk, Done, Failed, FromWorker, Load, Loaded, Memory, More

AHEAD = 4


@pytest.fixture
def case(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.syspath_prepend(str(site))
    # What this process has found before is not all that a new one would find.
    monkeypatch.setattr("stevedore.extension.ExtensionManager.ENTRY_POINT_CACHE", {})
    with closing(Case("process", "generator", tmp_path)) as made:
        yield made


class Gateway(Channel):
    """The other end of a worker's channel."""

    async def hear(self) -> Any:
        """Return the next message; those about memory come when they come."""
        while isinstance(message := await self.receive(), Memory):
            pass
        return message

    def call(self, number: int, *steps: tuple[str, Any]) -> Call:
        request = GenerateRequest(prompt="", options={"steps": steps, "early": None})
        return Call(number, msgspec.Raw(msgspec.msgpack.encode(request)), AHEAD, "")

    async def answer(self, number: int, *steps: tuple[str, Any]) -> list[Any]:
        """Return all messages that answer a call, but for the bodies of chunks."""
        self.send(self.call(number, *steps))
        said = [await self.hear()]
        while isinstance(said[-1], Chunk):
            said.append(await self.hear())
        return said


def loading(case: Case, **options: Any) -> Load:
    model = case.bench(**options).model
    wanted: dict[str, Any] = {"device": "auto", "data_dir": "data", "plugin_settings": {}, "plugins": ("scripted",)}
    return Load(version=__version__, task="generate", model=model, **wanted)


@asynccontextmanager
async def working() -> AsyncIterator[Gateway]:
    """Run a worker; when the block ends its gateway is gone, and it ends too."""
    ours, theirs = socket.socketpair()
    gateway = Gateway(*await asyncio.open_connection(sock=ours), FromWorker)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(theirs))
        try:
            yield gateway
        finally:
            await gateway.finish()


@asynccontextmanager
async def loaded(case: Case, **options: Any) -> AsyncIterator[Gateway]:
    async with working() as gateway:
        gateway.send(loading(case, **options))
        assert await gateway.hear() == Loaded(options.get("slots", 1))
        yield gateway


# ── loading ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_worker_says_what_it_takes_before_it_says_that_it_is_ready(case: Case) -> None:
    async def main() -> None:
        async with working() as gateway:
            gateway.send(loading(case, slots=3))
            memory = await gateway.receive()
            assert isinstance(memory, Memory)
            assert memory.device == "cpu"
            assert await gateway.receive() == Loaded(3)

    run(main())
    assert [note.split()[0] for note in case.stage.notes()] == ["load", "close"]


Change = Callable[[Load], Any]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda load: msgspec.structs.replace(load, version="99"), f"has yapit {__version__}, the server 99."),
        (lambda _: msgspec.Raw(msgspec.msgpack.encode(["Load", "generate"])), "does not know what it is told"),
        (lambda _: msgspec.Raw(msgspec.msgpack.encode(["Unload"])), "does not know what it is told"),
        (lambda load: msgspec.structs.replace(load, plugins=()), "No installed plugin serves backend 'scripted'"),
    ],
    ids=["version", "fields", "message", "plugins"],
)
def test_what_a_worker_cannot_load_it_says_and_ends(case: Case, change: Change, said: str) -> None:
    async def main() -> None:
        async with working() as gateway:
            gateway.send(change(loading(case)))
            answer = await gateway.hear()
            assert isinstance(answer, Failed)
            assert (answer.id, answer.kind) == (0, "LoadError")
            assert said in answer.message
            assert await gateway.hear() is None

    run(main())
    assert case.stage.notes() == []


async def nothing(_gateway: Gateway) -> None:
    pass


async def a_call(gateway: Gateway) -> None:
    gateway.send(gateway.call(1))


@pytest.mark.parametrize("says", [nothing, a_call])
def test_a_worker_that_is_not_told_what_to_load_ends(says: Callable[[Gateway], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with working() as gateway:
            await says(gateway)

    run(main())


def test_a_worker_whose_gateway_goes_while_it_loads_closes_what_it_has_loaded(case: Case) -> None:
    async def main() -> None:
        async with working() as gateway:
            gateway.send(loading(case, gated=True))
            await case.stage.passed("loading")
            await gateway.finish()
            case.stage.open("go")

    run(main())
    assert [note.split()[0] for note in case.stage.notes()] == ["load", "close"]


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_call_is_answered_and_ended_once(case: Case) -> None:
    async def main() -> None:
        async with loaded(case) as gateway:
            *chunks, last = await gateway.answer(7, ("count", 3))
            assert [chunk.id for chunk in chunks] == [7, 7, 7]
            assert last == Done(7)
            assert await gateway.answer(8) == [Done(8)]

    run(main())


def test_a_call_that_is_cancelled_before_it_begins_ends_and_never_begins(case: Case) -> None:
    async def main() -> None:
        async with loaded(case) as gateway:
            gateway.send(gateway.call(1, ("note", "begun")))
            gateway.send(Cancel(1))  # both are there when the worker looks
            assert await gateway.hear() == Done(1)
            assert await gateway.answer(2) == [Done(2)]

    run(main())
    assert "begun" not in case.stage.notes()


def test_what_comes_too_late_for_a_call_changes_nothing(case: Case) -> None:
    async def main() -> None:
        async with loaded(case) as gateway:
            assert await gateway.answer(1) == [Done(1)]
            for message in (Cancel(1), More(1, 8), Cancel(99)):
                gateway.send(message)
            assert await gateway.answer(2) == [Done(2)]

    run(main())


def test_no_more_chunks_are_sent_than_were_asked_for(case: Case) -> None:
    async def main() -> None:
        async with loaded(case, slots=2) as gateway:
            gateway.send(gateway.call(1, ("count", 100)))
            assert [(await gateway.hear()).id for _ in range(AHEAD)] == [1] * AHEAD
            assert await gateway.answer(2) == [Done(2)]
            gateway.send(More(1, 3))
            assert [(await gateway.hear()).id for _ in range(3)] == [1] * 3
            gateway.send(Cancel(1))
            assert await gateway.hear() == Done(1)

    run(main())


def test_a_request_that_nobody_understands_is_an_error_of_its_call(case: Case) -> None:
    async def main() -> None:
        async with loaded(case) as gateway:
            gateway.send(Call(1, msgspec.Raw(msgspec.msgpack.encode({"prompt": 5})), AHEAD, ""))
            failed = await gateway.hear()
            assert isinstance(failed, Failed)
            assert (failed.id, failed.kind) == (1, "BackendError")
            assert await gateway.answer(2) == [Done(2)]

    with capture_logs() as logs:
        run(main())
    assert [entry["event"] for entry in logs] == ["call_failed"]


def test_a_worker_whose_gateway_goes_lets_go_of_its_calls_and_closes(case: Case) -> None:
    async def main() -> None:
        async with loaded(case, slots=2) as gateway:
            gateway.send(gateway.call(1, ("count", 100)))
            gateway.send(gateway.call(2, ("open", "busy"), ("pass", "go"), ("count", 100)))
            await case.stage.passed("busy")
            await gateway.finish()
            await turns()
            case.stage.open("go")

    run(main())
    assert [note.split()[0] for note in case.stage.notes()] == ["load", "let", "let", "close"]


# ── a channel whose other side is gone ────────────────────────────────────────────────────────────────────────────────
@asynccontextmanager
async def channels() -> AsyncIterator[tuple[Channel, Channel]]:
    made = [Channel(*await asyncio.open_connection(sock=end), FromWorker) for end in socket.socketpair()]
    try:
        yield made[0], made[1]
    finally:
        for channel in made:
            await channel.finish()


@pytest.mark.usefixtures("each_loop")
def test_what_is_said_to_nobody_goes_nowhere_and_is_not_waited_for() -> None:
    large = Chunk(1, msgspec.Raw(msgspec.msgpack.encode("x" * (8 << 20))))

    async def main() -> None:
        async with channels() as (one, other):
            one.send(large)
            draining = asyncio.create_task(one.drain())
            await turns()
            assert not draining.done(), "nobody reads"
            await other.finish()
            await draining
            one.send(large)
            assert await one.receive() is None
            await one.finish()
            one.send(large)
            await one.drain()

    run(main())


# ── errors on their way ───────────────────────────────────────────────────────────────────────────────────────────────
def test_an_error_arrives_as_it_was_raised() -> None:
    error = Failed.of(3, RateLimitError("Slower.", param="input", code="odd", retry_after_s=2)).error()
    assert type(error) is RateLimitError
    assert (error.message, error.param, error.code, error.retry_after_s) == ("Slower.", "input", "odd", 2.0)


def test_an_error_may_hold_what_a_plugin_should_not_have_put_there() -> None:
    error = InvalidInputError(ValueError("odd \udcff"), param=7, code=8)  # type: ignore[arg-type]
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(Failed.of(1, error)), type=Failed)
    assert (sent.message, sent.param, sent.code) == ("odd ?", "7", "8")


def test_an_error_of_an_unknown_class_is_the_model_s() -> None:
    assert type(Failed(1, "NewerError", "Odd.", None, None, None).error()).__name__ == "BackendError"
