"""A process that runs one model, as its owner sees it: its start, its calls, what it prints and how it ends."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec
import structlog

from yapit import __version__
from yapit.catalog import Model
from yapit.errors import LoadError, WorkerDiedError, YapitError
from yapit.executors import Footprint, ahead
from yapit.executors.wire import Call, Cancel, Channel, Chunk, Failed, FromWorker, Load, Loaded, Memory, More
from yapit.schemas import Request
from yapit.settling import settle
from yapit.tasks import Task
from yapit.tickets import current

_GRACE_S = 5.0  # that a child has to close a call, or to end, before it is killed
_LINE_LIMIT = 1 << 20  # bytes of what a child prints without a line's end
_SIGNALS = {entry.value: entry.name for entry in signal.Signals}
_encode = msgspec.msgpack.Encoder().encode
_log = structlog.get_logger(__name__)


class Running:
    """A call of a child: the bodies of its chunks, then None; `error` says why it ended, if not well."""

    def __init__(self, number: int, room: int) -> None:
        self.id = number
        self.room = room  # chunks that the child may be ahead
        self.bodies: asyncio.Queue[msgspec.Raw | None] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.error: YapitError | None = None
        self._taken = 0

    def end(self, error: YapitError | None) -> None:
        """Note that nothing more will come."""
        self.error = error
        self.ended.set()
        self.bodies.put_nowait(None)

    def took(self) -> More | None:
        """Count a chunk that was read; return the message that lets more come, when it is time for it."""
        self._taken += 1
        half = self.room // 2
        return More(self.id, half) if self._taken % half == 0 else None


class Child:
    """A process and the channel to it.

    Args:
        task: what it does.
        model: what it does that with.
        died: called when it has ended by itself after it had loaded the model.
    """

    def __init__(self, task: Task, model: Model, died: Callable[[Task, Model, WorkerDiedError], None]) -> None:
        self._task = task
        self._model = model
        self._died = died
        self._calls: dict[int, Running] = {}
        self._number = 0
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.ReadTransport | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._ending = False  # we want it to end
        self._gone: WorkerDiedError | None = None  # it has ended
        self.footprint = Footprint()

    async def start(self, load: Load) -> int:
        """Start the process and return the model's `max_concurrency`; `end` it if this raises.

        Raises:
            LoadError: the model could not be loaded, or there is no such interpreter.
            WorkerDiedError: the process ended while it loaded.
        """
        opening = asyncio.ensure_future(self._open())
        await settle(opening)  # not to be broken off: whoever ends the child must know what was started
        channel = opening.result()
        channel.send(load)
        try:
            while isinstance(answer := await channel.receive(), Memory):
                self._measured(answer)
        except msgspec.DecodeError as error:
            message = f"The interpreter '{self._python}' does not speak as yapit {__version__} does."
            raise LoadError(message) from error
        if isinstance(answer, Failed):
            raise answer.error()
        if not isinstance(answer, Loaded):
            await self._exit()
            raise self._how_it_ended()
        self._keepers.append(asyncio.create_task(self._listen(channel), name="worker"))
        return answer.max_concurrency

    def call(self, request: Request) -> Running:
        """Start a call; one to a child that is gone has ended already."""
        body = msgspec.Raw(_encode(request))
        self._number += 1
        running = Running(self._number, ahead(self._task))
        if self._gone is not None:
            running.end(self._gone)
            return running
        self._calls[running.id] = running
        self.send(Call(running.id, body, running.room, current().id))
        return running

    def send(self, message: msgspec.Struct) -> None:
        """Send a message to the child; into the void if it is gone."""
        if self._channel is not None:
            self._channel.send(message)

    async def leave(self, call: Running) -> None:
        """Make sure that the call has ended in the child; a child that does not let go is killed."""
        if not call.ended.is_set():
            self.send(Cancel(call.id))
            try:
                async with asyncio.timeout(_GRACE_S):
                    await call.ended.wait()
            except TimeoutError:
                _log.error("worker_hangs", task=self._task.name, model=self._model.id)
                self.kill()
                await call.ended.wait()
        self._calls.pop(call.id, None)

    async def end(self) -> None:
        """Close the channel, and kill what does not end by itself."""
        self._ending = True
        if self._channel is not None:
            self._channel.close()
        await self._exit()
        if self._keepers:
            # What a process of the child's own may still hold is what the child printed to.
            await asyncio.wait(self._keepers, timeout=_GRACE_S)
        if self._output is not None:
            self._output.close()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    # ── the process ───────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def _python(self) -> str:
        return self._model.python or sys.executable

    async def _open(self) -> Channel:
        """Start the process, and what keeps an eye on it."""
        try:
            process, ours, output = await self._spawn()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            message = f"The interpreter '{self._python}' of the model '{self._model.id}' cannot be started: {reason}."
            raise LoadError(message) from error
        self._process = process
        self.footprint = Footprint(pid=process.pid)
        reader = asyncio.StreamReader(_LINE_LIMIT)
        self._output, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", buffering=0)
        )
        self._channel = Channel(*await asyncio.open_connection(sock=ours), FromWorker)
        self._keepers.append(asyncio.create_task(self._keep_log(reader), name="worker log"))
        self._keepers.append(asyncio.create_task(self._watch(process, ours), name="worker exit"))
        return self._channel

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, socket.socket, int]:
        """Return the process, our end of the channel, and the descriptor of what the process prints."""
        ours, theirs = socket.socketpair()
        # A pipe of our own: asyncio does not see the end of a process while one of its own children has asyncio's pipe.
        output, printed = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: what lies in the folder where the server was started is no module of the child.
                *(self._python, "-P", "-m", "yapit.worker", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                env=self._environ(),
            )
        except BaseException:
            ours.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(printed)
        return process, ours, output

    def _environ(self) -> dict[str, str]:
        """Return what the child inherits; an environment of its own does not see the packages of this one."""
        foreign = ("PYTHONPATH", "PYTHONHOME") if self._model.python else ()
        kept = {name: value for name, value in os.environ.items() if name not in foreign}
        # Idle threads of OpenMP that spin make a busy machine a hundred times slower.
        return {"OMP_WAIT_POLICY": "passive", **kept}

    async def _listen(self, channel: Channel) -> None:
        """Pass on what the child says until it is gone; then fail what still waits."""
        try:
            while (message := await channel.receive()) is not None:
                self._heard(message)
        except msgspec.DecodeError as error:
            _log.error("worker_talks_nonsense", task=self._task.name, model=self._model.id, reason=str(error))
            self.kill()
        channel.close()
        await self._exit()
        self._gone = self._how_it_ended()
        for call in self._calls.values():
            if not call.ended.is_set():
                call.end(self._gone)
        if not self._ending:
            _log.error("worker_died", task=self._task.name, model=self._model.id, reason=self._gone.message)
            self._died(self._task, self._model, self._gone)

    def _heard(self, message: FromWorker) -> None:
        if isinstance(message, Memory):
            self._measured(message)
            return
        call = None if isinstance(message, Loaded) else self._calls.get(message.id)
        if call is None:
            return
        if isinstance(message, Chunk):
            call.bodies.put_nowait(message.body)
        else:
            call.end(message.error() if isinstance(message, Failed) else None)

    def _measured(self, memory: Memory) -> None:
        self.footprint = Footprint(device=memory.device, memory_bytes=memory.bytes, pid=self.footprint.pid)

    async def _watch(self, process: asyncio.subprocess.Process, ours: socket.socket) -> None:
        """Let the channel end with the process, though a process of the child's own may still hold it."""
        await process.wait()
        with suppress(OSError):  # closed
            ours.shutdown(socket.SHUT_RD)  # what the child has said before is still read

    async def _exit(self) -> None:
        """Wait until the process has ended; kill it if that takes too long."""
        if self._process is None:
            return
        try:
            async with asyncio.timeout(_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def _how_it_ended(self) -> WorkerDiedError:
        code = self._process.returncode if self._process is not None else None
        how = "ended"
        if code is not None:
            how = f"was ended by {_SIGNALS.get(-code, f'signal {-code}')}" if code < 0 else f"exited with {code}"
        return WorkerDiedError(f"The process that ran the model '{self._model.id}' {how}.")

    async def _keep_log(self, output: asyncio.StreamReader) -> None:
        """Log what the child prints, line by line, a line beyond the limit in pieces."""
        while True:
            try:
                line = await output.readuntil()
            except asyncio.IncompleteReadError as rest:
                line = rest.partial
            except asyncio.LimitOverrunError as long:
                line = await output.readexactly(long.consumed)
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            _log.info("worker_output", task=self._task.name, model=self._model.id, line=text)
