"""Each model in a process of its own: what it does to memory, or to itself, does not reach the server."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import structlog

from yapit.catalog import Model
from yapit.errors import WorkerDiedError, YapitError
from yapit.executors import Executor
from yapit.executors.wire import Call, Cancel, Channel, Chunk, Done, Failed, FromWorker, Load, Loaded, More
from yapit.schemas import Chunk as TaskChunk
from yapit.schemas import Request
from yapit.settling import settle
from yapit.tasks import Task

_AHEAD = 16  # chunks a child may be ahead of their reader
_GRACE_S = 5.0  # that a child has to close a call, or to end, before it is killed
_encode = msgspec.msgpack.Encoder().encode
_log = structlog.get_logger(__name__)


class ProcessExecutor(Executor):
    """One child per loaded model; a child that dies fails its calls and is started again by the next one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._children: dict[tuple[str, str], _Child] = {}
        self._starting: dict[tuple[str, str], asyncio.Lock] = {}

    async def load(self, task: Task, model: Model) -> int:
        """Start the child and wait until it has loaded the model."""
        child = _Child(task, model)
        context = self.context
        slots = await child.start(
            Load(
                task=task.name,
                model=model,
                device=context.device,
                data_dir=str(context.data_dir),
                plugin_settings={name: dict(section) for name, section in context.plugin_settings.items()},
                plugins=tuple(self.plugins.names),
            )
        )
        self._children[task.name, model.id] = child
        self._starting.setdefault((task.name, model.id), asyncio.Lock())
        return slots

    async def stream(self, task: Task, model: Model, request: Request) -> AsyncGenerator[TaskChunk, None]:
        """Yield the chunks of one call; the child has let go of it when this ends."""
        key = (task.name, model.id)
        async with self._starting[key]:
            if self._children[key].dead:
                await self.load(task, model)
        child = self._children[key]
        call = child.call(request)
        taken = 0
        try:
            while (body := await call.bodies.get()) is not None:
                yield msgspec.msgpack.decode(body, type=task.chunk)
                taken += 1
                if taken % (_AHEAD // 2) == 0:
                    child.send(More(call.id, _AHEAD // 2))
            if call.error is not None:
                raise call.error
        finally:
            await settle(asyncio.ensure_future(child.leave(call)))

    async def unload(self, task: Task, model: Model) -> None:
        """End the child, so that everything it took is given back."""
        child = self._children.pop((task.name, model.id), None)
        if child is not None:
            await child.end()


class _Running:
    """A call of a child: the bodies of its chunks, then None."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.bodies: asyncio.Queue[msgspec.Raw | None] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.error: YapitError | None = None


class _Child:
    """A process and the channel to it."""

    def __init__(self, task: Task, model: Model) -> None:
        self._task = task
        self._model = model
        self._calls: dict[int, _Running] = {}
        self._number = 0
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self.dead = False

    async def start(self, load: Load) -> int:
        """Start the process and return the model's `max_concurrency`.

        Raises:
            LoadError: the model could not be loaded.
            WorkerDiedError: the process ended while it loaded.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "yapit.worker", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # Idle threads of OpenMP that spin make a busy machine a hundred times slower.
                env={"OMP_WAIT_POLICY": "passive", **os.environ},
            )
        self._channel = Channel(*await asyncio.open_connection(sock=ours), FromWorker)
        self._keepers.append(asyncio.create_task(self._keep_log(self._process), name="worker log"))
        try:
            self.send(load)
            answer = await self._channel.receive()
        except BaseException:
            await self.end()
            raise
        if isinstance(answer, Loaded):
            self._keepers.append(asyncio.create_task(self._listen(self._channel), name="worker"))
            return answer.max_concurrency
        await self.end()
        raise answer.error() if isinstance(answer, Failed) else self._died()

    def send(self, message: msgspec.Struct) -> None:
        """Send a message to the child; into the void if it is dead."""
        if self._channel is not None and not self.dead:
            self._channel.send(message)

    def call(self, request: Request) -> _Running:
        """Start a call."""
        self._number += 1
        running = self._calls[self._number] = _Running(self._number)
        self.send(Call(running.id, msgspec.Raw(_encode(request)), _AHEAD))
        return running

    async def leave(self, call: _Running) -> None:
        """Make sure that the call has ended in the child; a child that does not let go is killed."""
        if not call.ended.is_set():
            self.send(Cancel(call.id))
            waiting = asyncio.ensure_future(call.ended.wait())
            done, _ = await asyncio.wait([waiting], timeout=_GRACE_S)
            if not done:
                _log.error("worker_hangs", task=self._task.name, model=self._model.id)
                self._kill()
                await waiting
        self._calls.pop(call.id, None)

    async def end(self) -> None:
        """Close the channel, and kill what does not end by itself."""
        self.dead = True
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), _GRACE_S)
            except TimeoutError:
                self._kill()
                await self._process.wait()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _listen(self, channel: Channel) -> None:
        """Pass on what the child says until it is gone; then fail what still waits."""
        while (message := await channel.receive()) is not None:
            call = self._calls.get(message.id)
            if call is None:
                continue
            if isinstance(message, Chunk):
                call.bodies.put_nowait(message.body)
            elif isinstance(message, Done | Failed):
                call.error = message.error() if isinstance(message, Failed) else None
                self._finish(call)
        expected, self.dead = self.dead, True
        channel.close()
        if self._process is not None:
            await self._process.wait()
        error = self._died()
        if not expected:
            _log.error("worker_died", task=self._task.name, model=self._model.id, reason=error.message)
        for call in self._calls.values():
            if not call.ended.is_set():
                call.error = error
                self._finish(call)

    @staticmethod
    def _finish(call: _Running) -> None:
        call.ended.set()
        call.bodies.put_nowait(None)

    def _died(self) -> WorkerDiedError:
        code = self._process.returncode if self._process is not None else None
        how = "ended"
        if code is not None:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return WorkerDiedError(f"The process that ran the model '{self._model.id}' {how}.")

    async def _keep_log(self, process: asyncio.subprocess.Process) -> None:
        """Log what the child prints, line by line."""
        if process.stdout is None:
            return
        async for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            _log.info("worker_output", task=self._task.name, model=self._model.id, line=text)
