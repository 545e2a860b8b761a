"""The process executor: the same answers as a thread, and a crash that stays in its child."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from live import until
from yapit import AudioChunk, Context, InvalidInputError, LoadError, Model, SynthesizeRequest
from yapit.errors import BackendError, WorkerDiedError
from yapit.executors import Executor, executor
from yapit.plugins import Plugins
from yapit.tasks import SYNTHESIZE

PLUGIN = """
import os, signal, sys, time
from yapit import AudioChunk, InvalidInputError, Model, Synthesizer, hookimpl

class Scripted(Synthesizer):
    def __init__(self, model):
        print("loading", model.id)
        if model.options.get("load") == "fail":
            raise ValueError("secret")
        if model.options.get("load") == "die":
            os._exit(3)
        self.max_concurrency = model.options.get("slots", 1)
        self.folder = model.options.get("folder", "")

    def close(self):
        self.mark("closed")

    def mark(self, name):
        if self.folder:
            open(os.path.join(self.folder, name), "a").write("x")

    def synthesize(self, request):
        what, _, count = request.text.partition(" ")
        try:
            for number in range(int(count or 1)):
                yield AudioChunk(pcm=number.to_bytes(4, "little") * request.options.get("size", 1), sample_rate=8000)
                if what == "slow":
                    time.sleep(0.05)
                if what == "die":
                    os.kill(os.getpid(), signal.SIGSEGV)
                if what == "refuse":
                    raise InvalidInputError("no", param="input", code="odd")
                if what == "raise":
                    raise ValueError("secret")
                if what == "hang":
                    while True:
                        try:
                            time.sleep(60)
                        except BaseException:
                            pass
        finally:
            self.mark("left")

@hookimpl
def synthesize(model, context):
    return Scripted(model) if model.backend == "scripted" else None
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the children find the plugin, installed as pip would."""
    info = tmp_path / "scripted-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[yapit.plugins]\nscripted = scripted_plugin\n")
    (tmp_path / "scripted_plugin.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


class Known(Plugins):
    """The parent knows the plugin's name only: nothing of it is imported here."""

    @property
    def names(self) -> list[str]:
        return ["scripted"]


def model(**options: Any) -> Model:
    return Model(id="scripted", backend="scripted", tasks=("synthesize",), options=options)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def run(job: Callable[[Executor, Model], Awaitable[Any]], served: Model) -> Any:
    """Load the model in a child, do the job, end the child; nothing may be left."""

    async def main() -> Any:
        children = executor("process", Known(), Context())
        assert await children.load(SYNTHESIZE, served) == served.options.get("slots", 1)
        try:
            async with asyncio.timeout(30):
                return await job(children, served)
        finally:
            await children.unload(SYNTHESIZE, served)
            assert len(asyncio.all_tasks()) == 1

    before = descriptors()
    answer = asyncio.run(main())
    assert descriptors() == before
    return answer


async def say(children: Executor, served: Model, text: str, **options: Any) -> list[AudioChunk]:
    request = SynthesizeRequest(text=text, options=options)
    async with aclosing(children.stream(SYNTHESIZE, served, request)) as chunks:
        return [chunk async for chunk in chunks if isinstance(chunk, AudioChunk)]


def numbers(chunks: list[AudioChunk]) -> list[int]:
    return [int.from_bytes(chunk.pcm[:4], "little") for chunk in chunks]


def test_chunks_come_whole_and_in_order(site: Path) -> None:
    async def job(children: Executor, served: Model) -> None:
        assert numbers(await say(children, served, "count 10000")) == list(range(10_000))
        (big, second) = await say(children, served, "count 2", size=500_000)
        assert len(big.pcm) == len(second.pcm) == 2_000_000

    run(job, model())


def test_calls_side_by_side_do_not_mix(site: Path) -> None:
    async def job(children: Executor, served: Model) -> None:
        answers = await asyncio.gather(*(say(children, served, f"count {n}") for n in (300, 5, 700, 1)))
        assert [numbers(chunks) for chunks in answers] == [list(range(n)) for n in (300, 5, 700, 1)]

    run(job, model(slots=4))


def test_errors_come_as_what_they_are_and_the_child_goes_on(site: Path) -> None:
    async def job(children: Executor, served: Model) -> None:
        with pytest.raises(InvalidInputError, match="no") as refused:
            await say(children, served, "refuse")
        assert (refused.value.param, refused.value.code) == ("input", "odd")
        with pytest.raises(BackendError, match="ValueError") as failed:
            await say(children, served, "raise")
        assert "secret" not in failed.value.message
        assert len(await say(children, served, "count 3")) == 3

    with capture_logs() as logs:
        run(job, model())
    printed = [entry["line"] for entry in logs if entry["event"] == "worker_output"]
    assert printed[0] == "loading scripted"
    assert any("secret" in line for line in printed), "the whole story is in the log"


def test_a_child_that_dies_fails_its_calls_and_comes_back(site: Path) -> None:
    async def job(children: Executor, served: Model) -> None:
        waiting = asyncio.create_task(say(children, served, "slow 100"))
        await asyncio.sleep(0.2)
        with pytest.raises(WorkerDiedError, match="SIGSEGV"):
            await say(children, served, "die")
        with pytest.raises(WorkerDiedError, match="SIGSEGV"):
            await waiting
        answers = await asyncio.gather(*(say(children, served, "count 2") for _ in range(5)))
        assert [len(chunks) for chunks in answers] == [2] * 5

    with capture_logs() as logs:
        run(job, model(slots=8))
    events = [entry["event"] for entry in logs]
    assert events.count("worker_died") == 1
    assert [entry.get("line") for entry in logs].count("loading scripted") == 2, "one new child for all who wait"


def test_closing_early_reaches_the_adapter(site: Path) -> None:
    async def job(children: Executor, served: Model) -> None:
        async with aclosing(children.stream(SYNTHESIZE, served, SynthesizeRequest(text="slow 1000"))) as chunks:
            await anext(chunks)
        assert (site / "left").exists()
        assert len(await say(children, served, "count 3")) == 3

    run(job, model(folder=str(site)))
    assert (site / "closed").exists(), "the adapter was closed before its process ended"


def test_a_slow_reader_holds_the_child_back(site: Path) -> None:
    async def job(children: Executor, served: Model) -> int:
        request = SynthesizeRequest(text="count 10000")
        async with aclosing(children.stream(SYNTHESIZE, served, request)) as chunks:
            await anext(chunks)
            child: Any = next(iter(children._children.values()))  # type: ignore[attr-defined]  # a look inside
            (call,) = child._calls.values()
            for _ in range(20):
                await asyncio.sleep(0.01)
            return int(call.bodies.qsize())

    assert run(job, model()) <= 16


def test_a_child_that_does_not_let_go_is_killed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yapit.executors.process._GRACE_S", 0.3)

    async def job(children: Executor, served: Model) -> None:
        async with aclosing(children.stream(SYNTHESIZE, served, SynthesizeRequest(text="hang 2"))) as chunks:
            await anext(chunks)
        assert len(await say(children, served, "count 3")) == 3

    with capture_logs() as logs:
        run(job, model())
    assert "worker_hangs" in [entry["event"] for entry in logs]


def test_being_cancelled_twice_still_waits_until_the_child_has_let_go(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yapit.executors.process._GRACE_S", 0.3)

    async def job(children: Executor, served: Model) -> None:
        calling = asyncio.create_task(say(children, served, "hang"))
        await asyncio.sleep(0.1)
        for _ in range(2):
            calling.cancel()
            await asyncio.sleep(0.05)
        assert not calling.done()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert len(await say(children, served, "count 3")) == 3

    run(job, model())


@pytest.mark.parametrize(("load", "error"), [("fail", LoadError), ("die", WorkerDiedError)])
def test_a_load_that_fails_says_how_and_leaves_no_child(site: Path, load: str, error: type[Exception]) -> None:
    async def main() -> None:
        children = executor("process", Known(), Context())
        with pytest.raises(error) as failed:
            await children.load(SYNTHESIZE, model(load=load))
        assert "secret" not in str(failed.value)
        assert len(asyncio.all_tasks()) == 1

    before = descriptors()
    asyncio.run(main())
    assert descriptors() == before


def test_a_child_ends_when_its_parent_is_gone(site: Path) -> None:
    async def main() -> int:
        children = executor("process", Known(), Context())
        await children.load(SYNTHESIZE, model())
        child: Any = next(iter(children._children.values()))  # type: ignore[attr-defined]  # a look inside
        number = int(child._process.pid)
        for name in (signal.SIGINT, signal.SIGTERM):  # these are for the parent
            os.kill(number, name)
        assert len(await say(children, model(), "count 2")) == 2
        child._channel.close()  # what the kernel does when the parent dies
        await child._process.wait()
        await children.unload(SYNTHESIZE, model())
        return number

    number = asyncio.run(main())
    assert until(lambda: not Path(f"/proc/{number}").exists())


def test_an_unknown_executor_is_a_failed_load() -> None:
    with pytest.raises(LoadError, match="'process'"):
        executor("proces", Plugins(), Context())
