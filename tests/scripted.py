"""A plugin whose adapters do what the request says, in this process or in another one.

The steps stand in the request's options. What the adapters do they tell by notes in a file, and they wait at gates,
which are named pipes: that works the same wherever they run.
"""

import asyncio
import os
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import structlog

from loops import PATIENCE_S
from yapit import (
    AudioChunk,
    CapacityError,
    Context,
    DeadlineError,
    GenerateRequest,
    InvalidInputError,
    Model,
    RateLimitError,
    RemoteError,
    TextChunk,
    TextGenerator,
    hookimpl,
)
from yapit.schemas import Chunk

Steps = list[tuple[str, Any]]


class Stage:
    """What a test and its adapters tell each other: notes in a file, and gates that are named pipes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._gates: dict[str, int] = {}
        self._lock = threading.Lock()

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
        while select.select([descriptor], [], [], PATIENCE_S)[0]:
            with suppress(BlockingIOError):  # somebody else was quicker
                os.read(descriptor, 1)
                return
        raise TimeoutError(gate)

    async def passed(self, gate: str) -> None:
        """Wait until the gate is opened; one at a time on a loop."""
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
        with self._lock:
            if gate not in self._gates:
                path = self.folder / f"gate-{gate}"
                with suppress(FileExistsError):
                    os.mkfifo(path)
                self._gates[gate] = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # both ends, so that no open waits
            return self._gates[gate]


class OwnError(InvalidInputError):
    """An error class that only the plugin knows."""


class OutOfMemoryError(Exception):
    """What torch calls its own."""


class RuntimeException(Exception):  # noqa: N818 - what onnxruntime calls its own, which is no RuntimeError
    """What onnxruntime raises."""


ERRORS: dict[str, BaseException] = {
    "value": ValueError("secret"),
    "lookup": KeyError("secret"),
    "exit": SystemExit("secret"),
    "stop": StopIteration("secret"),
    "cancel": asyncio.CancelledError("secret"),
    "memory": MemoryError("secret"),
    "torch": OutOfMemoryError("secret"),
    "cuda": RuntimeError("CUDA error: out of memory, secret"),
    "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory, secret"),
    "onnx": RuntimeException(
        "[ONNXRuntimeError] : 6 : BFCArena: Failed to allocate memory for requested buffer, secret"
    ),
    "input": InvalidInputError("No such voice.", param="voice"),
    "capacity": CapacityError("Full.", retry_after_s=2.5),
    "rate": RateLimitError("Slower.", code="queue_full", retry_after_s=1),
    "remote": RemoteError("Gone."),
    "deadline": DeadlineError("Too long."),
    "own": OwnError("Mine.", param="mine", code="own"),
}
PASSING = ("input", "capacity", "rate", "remote", "deadline", "own")
FAILURES = ("value", "lookup", "exit", "stop", "cancel")
OUT_OF_MEMORY = ("memory", "torch", "cuda", "cpu", "onnx")


# ── the steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class Tensor:
    """Something whose end is noticed."""


def here() -> str:
    return f"{os.getpid()}-{threading.get_ident()}"


def fill(stage: Stage) -> None:
    """Run out of memory with something at hand."""
    tensor = Tensor()
    weakref.finalize(tensor, stage.note, "freed")
    raise MemoryError


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
        case "fill":
            fill(stage)
        case _:
            yield from act_on_the_process(stage, verb, value)


def act_on_the_process(stage: Stage, verb: str, value: Any) -> Iterator[Chunk]:
    """Do what goes beyond a call."""
    match verb:
        case "print":
            sys.stdout.write(value)
        case "log":
            structlog.get_logger().info(value)
        case "hoard":
            HOARD.append(b"x" * value)
        case "unsendable":
            yield TextChunk(text=object())  # type: ignore[arg-type]
        case _:
            act_on_a_child(stage, verb, value)


def act_on_a_child(stage: Stage, verb: str, value: Any) -> None:
    """Do what an adapter must not do in the server's own process."""
    match verb:
        case "hasty":
            sys.modules["__main__"]._GRACE_S = value  # type: ignore[attr-defined]  # the worker's
        case "exit":
            os._exit(value)
        case "signal":
            os.kill(os.getpid(), value)
        case "program":
            # It has everything that the process has, the channel and what it prints to.
            number = os.fork()
            if number == 0:
                select.select([], [], [], PATIENCE_S)
                os._exit(0)
            stage.note(f"program {number}")
        case "terminate":
            with subprocess.Popen(["sleep", "60"]) as program:
                program.terminate()
            stage.note(f"terminated {program.returncode}")


HOARD: list[bytes] = []


def play(stage: Stage, steps: Steps) -> Iterator[Chunk]:
    try:
        for verb, value in steps:
            if verb in ("pass", "deaf"):
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
            elif verb == "deaf":
                await deaf(stage, value)
            else:
                for chunk in act(stage, verb, value):
                    yield chunk
    finally:
        try:
            await asyncio.sleep(0)  # letting go may take a turn of the loop
        finally:
            stage.note("let go")


async def deaf(stage: Stage, gate: str) -> None:
    """Wait until the gate is opened, whoever wants something else."""
    while True:
        try:
            await stage.passed(gate)
        except asyncio.CancelledError:
            continue
        return


# ── the adapters ──────────────────────────────────────────────────────────────────────────────────────────────────────
class Scripted(TextGenerator):
    """An adapter whose method returns what the model's colour says."""

    def __init__(self, model: Model) -> None:
        self.stage = Stage(Path(model.options["folder"]))
        self.max_concurrency = model.options.get("slots", 1)
        self.model = model
        self.playing: Any = None
        self.stage.note(f"load {here()}")
        for _ in act(self.stage, *model.options.get("loading", ("say", ""))):
            pass
        if model.options.get("gated"):
            self.stage.open("loading")
            self.stage.pass_("go")

    def generate(self, request: GenerateRequest) -> Any:
        """Return, without being a generator itself, an iterator of either kind."""
        steps = request.options["steps"]
        early = request.options["early"]
        if early == "none":
            return None
        if early == "wait":
            self.stage.open("busy")
            self.stage.pass_("go")
        elif early:
            raise ERRORS[early]
        if self.model.options["colour"] == "list":
            return iter([TextChunk(text=value) for _, value in steps])
        # Kept: closing it is the executor's work, not the garbage collector's.
        self.playing = (play_waiting if "async" in self.model.options["colour"] else play)(self.stage, steps)
        return self.playing

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


@hookimpl
def generate(model: Model, context: Context) -> TextGenerator | None:
    if model.backend != "scripted":
        return None
    if failure := model.options.get("failure"):
        raise ERRORS[failure]
    return {"generator": Computing, "async generator": Waiting}.get(model.options["colour"], Scripted)(model)
