"""What only an executor with processes can do, or can do wrong; the rest is in the contract."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from bench import Bench, Case, text
from loops import PATIENCE_S, run, turns
from scripted import Stage
from yapit import BackendError, Context, GenerateRequest, LoadError, __version__
from yapit.errors import WorkerDiedError
from yapit.executors import Footprint, executor
from yapit.plugins import Plugins
from yapit.tasks import GENERATE
from yapit.tickets import Ticket

ALLOCATED = 64 << 20


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with closing(Case("process", "generator", tmp_path)) as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little patience with what should end."""
    monkeypatch.setattr("yapit.executors.child._GRACE_S", 0.2)


def interpreter(folder: Path, program: str) -> str:
    """Return an interpreter that runs the program, whatever it is asked to run; it has the scripted plugin."""
    path = folder / "python"
    found = os.environ["PYTHONPATH"].split(os.pathsep)
    path.write_text(f"#!{sys.executable}\nimport os, runpy, struct, sys\nsys.path[:0] = {found}\n{program}\n")
    path.chmod(0o755)
    return str(path)


def inside(bench: Bench) -> Any:
    """Return the child of the bench's model, for a look inside."""
    (child,) = bench.executor._children.values()  # type: ignore[attr-defined]
    return child


# ── its interpreter ───────────────────────────────────────────────────────────────────────────────────────────────────
WORKER = "sys.argv = sys.argv[-2:]\nrunpy.run_module('yapit.worker', run_name='__main__')"


@pytest.mark.usefixtures("each_loop")
def test_a_model_may_have_an_interpreter_of_its_own_with_plugins_of_its_own(case: Case, tmp_path: Path) -> None:
    python = interpreter(tmp_path, WORKER)

    async def main() -> None:
        bench = case.bench(python)
        bench.executor = executor("process", Plugins(), Context())  # which knows no plugin at all
        await bench.load()
        assert python in psutil.Process(bench.pid).cmdline()
        assert await bench.say(("say", "a")) == ["a"]
        await bench.unload()

    run(main())


def test_without_one_it_has_the_plugins_of_the_server(case: Case) -> None:
    async def main() -> None:
        bench = case.bench()
        bench.executor = executor("process", Plugins(), Context())
        with pytest.raises(LoadError, match=r"No installed plugin serves backend 'scripted' \(installed: none\)"):
            await bench.try_to_load()

    run(main())


@pytest.mark.usefixtures("each_loop")
@pytest.mark.parametrize(("python", "reason"), [("none", "No such file or directory"), ("", "Permission denied")])
def test_an_interpreter_that_cannot_be_started_is_a_failed_load(
    case: Case, tmp_path: Path, python: str, reason: str
) -> None:
    path = tmp_path / python

    async def main() -> None:
        with pytest.raises(LoadError, match=f"^The interpreter '{path}' of the model 'm' cannot be started: {reason}"):
            await case.bench(str(path)).try_to_load()

    run(main())


def test_an_interpreter_without_yapit_ends_and_says_why_in_the_log(case: Case, tmp_path: Path) -> None:
    python = interpreter(tmp_path, "sys.exit(f'No module named {sys.argv[-2]}')")

    async def main() -> None:
        with pytest.raises(WorkerDiedError, match=r"exited with 1\.$"):
            await case.bench(python).try_to_load()

    assert "No module named yapit.worker" in lines(main)


def test_an_interpreter_with_another_version_of_yapit_is_refused(case: Case, tmp_path: Path) -> None:
    python = interpreter(tmp_path, f"import yapit\nyapit.__version__ = '0.0.1'\n{WORKER}")

    async def main() -> None:
        with pytest.raises(LoadError, match=rf"^The interpreter '.+' has yapit 0\.0\.1, the server {__version__}\.$"):
            await case.bench(python).try_to_load()

    run(main())
    assert case.stage.notes() == [], "nothing was loaded"


GARBAGE = "os.write(channel, struct.pack('<I', 3) + bytes(3))\nos.read(channel, 1_000_000)\nos.read(channel, 1)"


def test_an_interpreter_that_talks_nonsense_is_a_failed_load(case: Case, tmp_path: Path) -> None:
    python = interpreter(tmp_path, f"channel = int(sys.argv[-1])\n{GARBAGE}")

    async def main() -> None:
        with pytest.raises(LoadError, match=f"^The interpreter '{python}' does not speak as yapit {__version__} does"):
            await case.bench(python).try_to_load()

    run(main())


def test_a_child_that_begins_to_talk_nonsense_is_killed(case: Case, tmp_path: Path) -> None:
    loaded = "body = b'\\x92\\xa6Loaded\\x01'\nos.write(channel, struct.pack('<I', len(body)) + body)"
    told = "os.read(channel, 1_000_000)"
    python = interpreter(tmp_path, f"channel = int(sys.argv[-1])\n{told}\n{loaded}\n{told}\n{GARBAGE}")

    async def main() -> None:
        bench = case.bench(python)
        assert await bench.load() == 1
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            await bench.say(("say", "a"))
        assert len(bench.died) == 1
        await bench.unload()

    with capture_logs() as logs:
        run(main())
    assert [entry["event"] for entry in logs] == ["worker_talks_nonsense", "worker_died"]


# ── what it prints ────────────────────────────────────────────────────────────────────────────────────────────────────
def lines(main: Any) -> list[str]:
    """Run the test's coroutine and return what its children have printed."""
    with capture_logs() as logs:
        run(main())
    return [entry["line"] for entry in logs if entry["event"] == "worker_output"]


@pytest.mark.usefixtures("each_loop")
def test_what_a_child_prints_is_in_the_log_line_by_line(case: Case) -> None:
    async def main() -> None:
        async with case.loaded(loading=("print", "at first\n")) as bench:
            await bench.say(("print", "one\ntwo\n"), ("print", "thr"), ("print", "ee\n"), ("print", "rest"))

    with capture_logs() as logs:
        run(main())
    printed = [entry for entry in logs if entry["event"] == "worker_output"]
    assert [entry["line"] for entry in printed] == ["at first", "one", "two", "three", "rest"]
    assert {(entry["task"], entry["model"]) for entry in printed} == {("generate", "m")}


def test_what_was_printed_before_a_crash_is_not_lost(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    async def main() -> None:
        async with case.loaded() as bench:
            with pytest.raises(WorkerDiedError):
                await bench.say(("print", "last words\n"), ("signal", signal.SIGKILL))

    assert lines(main) == ["last words"]


def test_a_line_of_megabytes_comes_in_pieces_and_the_next_ones_as_they_are(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            await bench.say(("print", "x" * (3 << 20)), ("print", "\n"), ("print", "next\n"))
            assert await bench.say(("say", "again")) == ["again"]

    *pieces, following = lines(main)
    assert len(pieces) > 1
    assert "".join(pieces) == "x" * (3 << 20)
    assert following == "next"


def test_an_error_s_whole_story_is_in_the_log(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            with pytest.raises(BackendError):
                await bench.say(("raise", "value"))

    (story,) = (json.loads(line) for line in lines(main))
    assert story["event"] == "adapter_failed"
    assert "ValueError: secret" in story["exception"]


def test_a_child_s_log_lines_have_the_id_of_the_request(case: Case) -> None:
    async def main() -> None:
        async def asked(name: str) -> None:
            with Ticket(name).bound():
                await bench.say(("log", f"for {name}"), ("count", 20), ("log", f"for {name}"))

        async with case.loaded(slots=3) as bench:
            await asyncio.gather(*(asked(name) for name in "abc"))

    told = [json.loads(line) for line in lines(main)]
    assert sorted((line["event"], line["request_id"]) for line in told) == [(f"for {name}", name) for name in "aabbcc"]


# ── its memory ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_memory_of_a_model_is_measured_and_grows_with_it(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            assert bench.pid != os.getpid()
            assert 10 << 20 < bench.memory_bytes < 4 << 30
            before, seen = bench.memory_bytes, psutil.Process(bench.pid).memory_info().rss
            await bench.say(("hoard", ALLOCATED), ("say", "a"))
            assert bench.memory_bytes >= before + ALLOCATED
            assert bench.memory_bytes >= seen
            assert bench.executor.footprint(GENERATE, bench.model).device == "cpu"
        assert bench.executor.footprint(GENERATE, bench.model) == Footprint()

    run(main())


def test_what_loading_took_is_known_as_soon_as_it_is_loaded(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as small, case.loaded(loading=("hoard", ALLOCATED)) as large:
            assert large.memory_bytes > small.memory_bytes + ALLOCATED // 2

    run(main())


# ── what a thread would take as it is ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("step", "said"),
    [(("unsendable", 0), "a TextChunk that cannot be sent"), (("say", 5), "a TextChunk that cannot be read")],
)
def test_a_chunk_that_cannot_travel_is_an_error_and_the_end_of_its_call(
    case: Case, step: tuple[str, Any], said: str
) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            chunks = bench.ask(("say", "a"), step, ("say", "b"))
            assert text(await anext(chunks)) == "a"
            with pytest.raises(BackendError, match=f"^The model 'm' yielded {said}"):
                await anext(chunks)
            assert case.stage.notes()[1:] == ["let go"]
            assert await bench.say(("say", "again")) == ["again"]

    with capture_logs():
        run(main())


def test_a_request_that_cannot_travel_does_not_begin(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            chunks = bench.executor.stream(GENERATE, bench.model, GenerateRequest(prompt="", options={"x": object()}))
            with pytest.raises(TypeError):
                await anext(chunks)
            assert inside(bench)._calls == {}

    run(main())


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.usefixtures("each_loop")
def test_nothing_is_kept_of_calls_that_are_over(case: Case) -> None:
    async def main() -> None:
        async with case.loaded(slots=2) as bench:
            child = inside(bench)
            await bench.say(("count", 100))
            chunks = bench.ask(("count", 100))
            await anext(chunks)
            await chunks.aclose()
            with pytest.raises(BackendError):
                await bench.say(("raise", "value"))
            cancelled = asyncio.create_task(bench.say(("count", 100)))
            await turns(1)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            assert child._calls == {}
            waiting = asyncio.create_task(bench.say(("open", "busy"), ("pass", "never")))
            await case.stage.passed("busy")
            with pytest.raises(WorkerDiedError):
                await bench.say(("signal", signal.SIGKILL))
            await asyncio.gather(waiting, return_exceptions=True)
            with pytest.raises(WorkerDiedError):
                await bench.say(("say", "too late"))
            assert child._calls == {}

    with capture_logs():
        run(main())


# ── its end ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_signals_for_the_parent_do_not_end_a_child(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(bench.pid, number)
            assert await bench.say(("count", 2)) == ["0", "1"]

    run(main())


def test_a_program_that_an_adapter_starts_can_be_terminated(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            await bench.say(("terminate", 0))

    run(main())
    assert f"terminated -{signal.SIGTERM}" in case.stage.notes()


def test_a_signal_without_a_name_is_told_by_its_number(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench:
            with pytest.raises(WorkerDiedError, match=r"was ended by signal 40\.$"):
                await bench.say(("signal", 40))

    with capture_logs():
        run(main())


@pytest.mark.usefixtures("each_loop")
def test_when_all_are_killed_their_calls_fail_and_nothing_is_waited_for(case: Case) -> None:
    async def main() -> None:
        async with case.loaded() as bench, case.loaded() as idle:
            waiting = asyncio.create_task(bench.say(("open", "busy"), ("deaf", "never")))
            await case.stage.passed("busy")
            bench.executor.kill()
            with pytest.raises(WorkerDiedError, match="SIGKILL"):
                await waiting
            assert await idle.say(("say", "of another executor")) == ["of another executor"]
            bench.executor.kill()  # nothing is left to kill

    with capture_logs():
        run(main())


@pytest.mark.usefixtures("each_loop")
def test_one_that_still_loads_is_killed_too(case: Case) -> None:
    async def main() -> None:
        bench = case.bench(gated=True)
        loading = asyncio.create_task(bench.load())
        await case.stage.passed("loading")
        bench.executor.kill()
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            await loading

    run(main())


@pytest.mark.usefixtures("each_loop")
def test_one_that_is_being_unloaded_is_killed_too(case: Case) -> None:
    async def main() -> None:
        bench = case.bench()
        await bench.load()
        os.kill(bench.pid, signal.SIGSTOP)  # it would not end by itself
        unloading = asyncio.create_task(bench.unload())
        await turns()
        assert not unloading.done()
        bench.executor.kill()
        await unloading

    run(main())
    assert [line.split()[0] for line in case.stage.notes()] == ["load"]


@asynccontextmanager
async def with_a_program(case: Case) -> AsyncIterator[Bench]:
    """Yield a model that has forked a process, which has all that the model's has and outlives it."""
    program = None
    bench = case.bench()
    await bench.load()
    try:
        await bench.say(("program", 0))
        (program,) = (int(note.split()[1]) for note in case.stage.notes() if note.startswith("program"))
        yield bench
    finally:
        await bench.unload()
        if program is not None:
            os.kill(program, signal.SIGKILL)


@pytest.mark.usefixtures("each_loop", "hasty")
def test_a_death_is_seen_though_a_process_of_the_child_s_lives_on(case: Case) -> None:
    async def main() -> None:
        async with with_a_program(case) as bench:
            with pytest.raises(WorkerDiedError, match="SIGKILL"):
                await bench.say(("signal", signal.SIGKILL))
            assert len(bench.died) == 1

    with capture_logs():
        run(main())


@pytest.mark.usefixtures("each_loop", "hasty")
def test_an_unload_ends_though_a_process_of_the_child_s_lives_on(case: Case) -> None:
    async def main() -> None:
        async with with_a_program(case) as bench:
            assert await bench.say(("say", "a")) == ["a"]

    run(main())


# ── its parent's end ──────────────────────────────────────────────────────────────────────────────────────────────────
PARENT = """
import asyncio, sys
from pathlib import Path
from bench import Case

async def main():
    folder, doing, grace_s = sys.argv[1:]
    case = Case("process", "generator", Path(folder))
    bench = case.bench(loading=("hasty", float(grace_s)), gated=doing == "load")
    await bench.load()
    await bench.say(("open", "busy"), ("pass", "go"))

asyncio.run(main())
"""


def orphan(stage: Stage, doing: str, grace_s: float) -> psutil.Process:
    """Kill a gateway whose child is busy, and return the child."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(stage.folder), doing, str(grace_s)])
    try:
        stage.pass_("loading" if doing == "load" else "busy")
        (child,) = psutil.Process(parent.pid).children()
    finally:
        parent.kill()
        parent.wait(PATIENCE_S)
    return child


@pytest.mark.parametrize("doing", ["load", "call"])
def test_a_child_whose_gateway_was_killed_ends_whatever_it_does(tmp_path: Path, doing: str) -> None:
    with closing(Stage(tmp_path)) as stage:
        child = orphan(stage, doing, 0.2)
        psutil.wait_procs([child], timeout=PATIENCE_S)
        assert not child.is_running()
        assert "let go" not in stage.notes()


@pytest.mark.parametrize("doing", ["load", "call"])
def test_a_child_whose_gateway_was_killed_may_close_its_adapter(tmp_path: Path, doing: str) -> None:
    with closing(Stage(tmp_path)) as stage:
        child = orphan(stage, doing, PATIENCE_S)
        stage.open("go")
        psutil.wait_procs([child], timeout=PATIENCE_S)
        assert not child.is_running()
        assert stage.notes()[-1].startswith("close")
