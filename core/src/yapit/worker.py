"""A process that runs one model: answers the calls that come over a channel with a `ThreadExecutor`.

Started as `python -m yapit.worker FD`, FD being its end of a socketpair; it ends when the other end is closed.
"""

import asyncio
import gc
import importlib.util
import io
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import msgspec
import psutil
import structlog
from structlog.contextvars import bind_contextvars

from yapit import __version__, log
from yapit.adapters import Context
from yapit.catalog import Model
from yapit.errors import BackendError, LoadError, YapitError
from yapit.executors.thread import ThreadExecutor
from yapit.executors.wire import Call, Cancel, Channel, Chunk, Done, Failed, Load, Loaded, Memory, More, ToWorker
from yapit.plugins import Plugins
from yapit.settings import LogSettings
from yapit.tasks import TASKS, Task

_GRACE_S = 10.0  # that a worker has to end once its channel is closed; the gateway, if it lives, kills it sooner
_SELF = f"The interpreter '{sys.executable}' has yapit {__version__}"
_NOTABLE = 1.02  # times the highest memory so far that is worth a message
_encode = msgspec.msgpack.Encoder().encode
_log = structlog.get_logger(__name__)


class Worker:
    """The calls of one loaded model."""

    def __init__(self, channel: Channel, executor: ThreadExecutor, task: Task, model: Model) -> None:
        self._channel = channel
        self._peak: dict[str, int] = {}
        self._executor = executor
        self._task = task
        self._model = model
        self._running: dict[int, asyncio.Task[None]] = {}
        self._room: dict[int, asyncio.Semaphore] = {}

    def begin(self, max_concurrency: int) -> None:
        """Say that the model is loaded, and before that what it takes."""
        self._report_memory()
        self._channel.send(Loaded(max_concurrency))

    async def serve(self) -> None:
        """Answer until the channel ends, then stop what still runs."""
        while (message := await self._channel.receive()) is not None:
            match message:
                case Call():
                    self._begin(message)
                case More() if message.id in self._room:
                    for _ in range(message.chunks):
                        self._room[message.id].release()
                case Cancel() if message.id in self._running:
                    self._running[message.id].cancel()
        for running in self._running.values():
            running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _begin(self, call: Call) -> None:
        self._room[call.id] = asyncio.Semaphore(call.chunks)
        self._running[call.id] = asyncio.create_task(self._answer(call), name=f"call {call.id}")
        # Not left to the task itself: one that is cancelled before its first step does nothing at all.
        self._running[call.id].add_done_callback(partial(self._ended, call.id))

    async def _answer(self, call: Call) -> None:
        bind_contextvars(request_id=call.ticket)
        request = msgspec.msgpack.decode(call.request, type=self._task.request)
        async with aclosing(self._executor.stream(self._task, self._model, request)) as chunks:
            async for chunk in chunks:
                await self._room[call.id].acquire()
                self._channel.send(Chunk(call.id, self._packed(chunk)))
                await self._channel.drain()

    def _packed(self, chunk: object) -> msgspec.Raw:
        try:
            return msgspec.Raw(_encode(chunk))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            _log.exception("chunk_unsendable", task=self._task.name, model=self._model.id)
            message = f"The model '{self._model.id}' yielded a {type(chunk).__name__} that cannot be sent."
            raise BackendError(message) from error

    def _ended(self, number: int, answering: asyncio.Task[None]) -> None:
        """Say how the call has ended, after what it took."""
        del self._running[number], self._room[number]
        self._report_memory()
        error = None if answering.cancelled() else answering.exception()
        if error is not None and not isinstance(error, YapitError):
            _log.error("call_failed", task=self._task.name, model=self._model.id, exc_info=error)
            error = BackendError(f"The model '{self._model.id}' failed; the server's log says more.")
        self._channel.send(Done(number) if error is None else Failed.of(number, error))

    def _report_memory(self) -> None:
        """Tell the gateway when the model takes notably more than ever before."""
        taken = _memory(self._executor.context_of(self._model).device)
        if taken is not None and taken.bytes > _NOTABLE * self._peak.get(taken.device, 0):
            self._peak[taken.device] = taken.bytes
            self._channel.send(taken)


def _memory(device: str) -> Memory | None:
    """Return what this process takes: of the GPU if torch uses one, else of the main memory; None if not known."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        taken = {index: torch.cuda.max_memory_reserved(index) for index in range(torch.cuda.device_count())}
        index = max(taken, key=lambda index: taken[index])
        return Memory(f"cuda:{index}", taken[index])
    return Memory("cpu", psutil.Process().memory_info().rss) if device in ("auto", "cpu") else None


async def run(end: socket.socket) -> None:
    """Load the model that the first message names and serve it."""
    channel = Channel(*await asyncio.open_connection(sock=end), ToWorker)
    try:
        load = await channel.receive()
        if isinstance(load, Load):
            await _work(channel, load)
    except (YapitError, msgspec.DecodeError) as error:
        known = error if isinstance(error, YapitError) else LoadError(f"{_SELF} does not know what it is told: {error}")
        channel.send(Failed.of(0, known))
    finally:
        await channel.finish()


async def _work(channel: Channel, load: Load) -> None:
    _check_version(load.version)
    context = Context(device=load.device, data_dir=Path(load.data_dir), plugin_settings=load.plugin_settings)
    executor, task = ThreadExecutor(Plugins.load(load.plugins), context), TASKS[load.task]
    worker = Worker(channel, executor, task, load.model)
    slots = await executor.load(task, load.model)
    gc.collect()
    gc.freeze()  # what is here stays, and torch alone takes 0.3 s to be looked through for garbage
    worker.begin(slots)
    try:
        await worker.serve()
    finally:
        await executor.unload(task, load.model)


def _check_version(gateway: str) -> None:
    """Raise `LoadError` where the messages might not mean the same."""
    if gateway != __version__:
        raise LoadError(f"{_SELF}, the server {gateway}.")


def main() -> None:
    """Run as a child, which its parent ends by closing the channel.

    Ctrl-C and a service manager's SIGTERM reach the whole group, and the parent may still want to finish what runs.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        # Not SIG_IGN, which the programs that an adapter starts would inherit.
        signal.signal(name, lambda _number, _frame: None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is printed is in the log at once, also before a crash
    log.configure(LogSettings(format="json"))
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    threading.Thread(target=_follow, args=(end.fileno(),), daemon=True).start()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run(end))
    # Else the interpreter looks through all that torch has made for what is garbage, which takes it a second.
    gc.freeze()


def _follow(channel: int) -> None:
    """End this process some time after the gateway has gone, whatever still runs or loads in it."""
    gone = select.poll()
    gone.register(channel, 0)  # a hang-up is always told
    gone.poll()
    time.sleep(_GRACE_S)
    os._exit(1)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the quicker event loop, where there is one."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
