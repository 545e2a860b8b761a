"""A process that runs one model: answers the calls that come over a channel with a `ThreadExecutor`.

Started as `python -m yapit.worker FD`, FD being its end of a socketpair; it ends when the other end is closed.
"""

import asyncio
import importlib.util
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import msgspec

from yapit import log
from yapit.adapters import Context
from yapit.catalog import Model
from yapit.errors import YapitError
from yapit.executors.thread import ThreadExecutor
from yapit.executors.wire import Call, Cancel, Channel, Chunk, Done, Failed, Load, Loaded, More, ToWorker
from yapit.plugins import Plugins
from yapit.settings import LogSettings
from yapit.tasks import TASKS, Task

_encode = msgspec.msgpack.Encoder().encode


class Worker:
    """The calls of one loaded model."""

    def __init__(self, channel: Channel, executor: ThreadExecutor, task: Task, model: Model) -> None:
        self._channel = channel
        self._executor = executor
        self._task = task
        self._model = model
        self._running: dict[int, asyncio.Task[None]] = {}
        self._room: dict[int, asyncio.Semaphore] = {}

    async def serve(self) -> None:
        """Answer until the channel ends, then stop what still runs."""
        while (message := await self._channel.receive()) is not None:
            match message:
                case Call():
                    self._room[message.id] = asyncio.Semaphore(message.chunks)
                    self._running[message.id] = asyncio.create_task(self._answer(message))
                case More() if message.id in self._room:
                    for _ in range(message.chunks):
                        self._room[message.id].release()
                case Cancel() if message.id in self._running:
                    self._running[message.id].cancel()
        for running in self._running.values():
            running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _answer(self, call: Call) -> None:
        last: Done | Failed = Done(call.id)
        try:
            request = msgspec.msgpack.decode(call.request, type=self._task.request)
            async with aclosing(self._executor.stream(self._task, self._model, request)) as chunks:
                async for chunk in chunks:
                    await self._room[call.id].acquire()
                    self._channel.send(Chunk(call.id, msgspec.Raw(_encode(chunk))))
                    await self._channel.drain()
        except YapitError as error:
            last = Failed.of(call.id, error)
        finally:
            del self._running[call.id], self._room[call.id]
            self._channel.send(last)


async def run(end: socket.socket) -> None:
    """Load the model that the first message names and serve it."""
    reader, writer = await asyncio.open_connection(sock=end)
    channel = Channel(reader, writer, ToWorker)
    load = await channel.receive()
    if not isinstance(load, Load):
        return
    context = Context(device=load.device, data_dir=Path(load.data_dir), plugin_settings=load.plugin_settings)
    executor = ThreadExecutor(Plugins.load(load.plugins), context)
    task = TASKS[load.task]
    try:
        channel.send(Loaded(await executor.load(task, load.model)))
    except YapitError as error:
        channel.send(Failed.of(0, error))
        await channel.drain()
        return
    await Worker(channel, executor, task, load.model).serve()
    await executor.unload(task, load.model)


def main() -> None:
    """Run as a child, which its parent ends by closing the channel.

    Ctrl-C and a service manager's SIGTERM reach the whole group, and the parent may still want to finish what runs.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    log.configure(LogSettings(format="json"))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run(socket.socket(fileno=int(sys.argv[1]))))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the quicker event loop, where there is one."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
