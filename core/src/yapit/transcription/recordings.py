"""Recordings as models get them: decoded to PCM, in memory or, long ones, in a file that goes with the request."""

import asyncio
import fcntl
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, BinaryIO

import structlog

from yapit.audio import decode_chunks
from yapit.errors import BackendError, InvalidInputError, YapitError
from yapit.settling import settle
from yapit.tickets import current

SAMPLE_RATE = 16_000  # Hz, of what models listen to
_IN_MEMORY_BYTES = 4_000_000  # of PCM, two minutes: what a message to another process may well carry
_SHORTEST_S = 0.1
_BEFORE, _AFTER = "yapit-", ".pcm"  # of the name of a file
_NEW_S = 60.0  # a file may be without its lock
_GROWING, _COMPLETE = 0o700, 0o600  # its modes, as `TranscribeRequest.path` has them
_log = structlog.get_logger(__name__)


class Recording:
    """PCM at 16 kHz: `pcm`, or the `path` of a file with it that may still grow.

    A file's mode says whether it does; `TranscribeRequest.stretch` waits for what is not there yet.
    """

    def __init__(self, decoding: "_Decoding") -> None:
        self.path = decoding.path
        self.pcm = b"" if self.path else bytes(decoding.memory)
        self._decoding = decoding

    @property
    def duration_s(self) -> float:
        """Length in seconds of what has been decoded so far."""
        return self._decoding.duration_s

    async def whole(self) -> float:
        """Wait until all of it has been decoded, and return its length in seconds."""
        await asyncio.shield(self._decoding.running)
        return self.duration_s


@asynccontextmanager
async def recording(
    source: bytes | BinaryIO | Path,
    *,
    max_audio_s: float = 0,
    param: str = "file",
    subject: str | None = None,
    tell: Callable[[float], object] | None = None,
) -> AsyncIterator[Recording]:
    """Decode an upload on a thread and give the recording; what it takes on disk is gone afterwards.

    A long one is given while it is still being decoded. Where that fails later on, the current ticket is stopped with
    the error.

    Args:
        source: what `yapit.audio.decode_chunks` takes. It is not used any more when this returns, or is cancelled.
        max_audio_s: the longest that is accepted; 0 = any.
        param: the request field that errors name.
        subject: what people call the recording: errors begin with it.
        tell: called with the length in seconds when all of it has been decoded.

    Raises:
        InvalidInputError: it is no audio, too short (code `audio_too_short`) or too long (`audio_too_long`).
    """

    def chunks() -> Iterator[bytes]:
        try:
            yield from decode_chunks(source, sample_rate=SAMPLE_RATE, max_seconds=max_audio_s or None, param=param)
            _check_length(decoding.duration_s)
        except InvalidInputError as error:
            message = f"{subject}: {error.message}." if subject else error.message
            raise InvalidInputError(message, param=param, code=error.code) from error

    stop = current().stop

    def ended(running: "asyncio.Future[None]") -> None:
        if (error := running.exception()) is not None:
            stop(error if isinstance(error, YapitError) else _unknown(error))
        elif tell is not None:
            tell(decoding.duration_s)

    with ExitStack() as stack:
        decoding = _Decoding(stack)
        decoding.run(chunks)
        try:
            await decoding.begun()
            if decoding.running.done():
                ended(decoding.running)
            else:
                decoding.running.add_done_callback(ended)
            try:
                yield Recording(decoding)
            finally:
                decoding.running.remove_done_callback(ended)
        finally:
            await decoding.leave()


def _check_length(duration_s: float) -> None:
    if duration_s < _SHORTEST_S:
        message = f"the audio is too short: it lasts {duration_s:.3g} s, and {_SHORTEST_S} s is the least"
        raise InvalidInputError(message, code="audio_too_short")


def _unknown(error: BaseException) -> BackendError:
    _log.error("decoding_failed", exc_info=error)
    return BackendError("The recording could not be decoded; the server's log says more.")


class _Decoding:
    """An upload that a thread decodes: into memory while it is little, then into a file."""

    running: "asyncio.Future[None]"

    def __init__(self, stack: ExitStack) -> None:
        self.memory = bytearray()
        self.path: str | None = None
        self._size = 0
        self._file: IO[bytes] | None = None
        self._stack = stack
        self._left = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Event()

    def run(self, chunks: Callable[[], Iterator[bytes]]) -> None:
        """Begin to take what is decoded, on a thread."""
        self.running = self._loop.run_in_executor(None, self._decode, chunks)
        self.running.add_done_callback(lambda _: self._begun.set())

    @property
    def duration_s(self) -> float:
        """Length in seconds of what has been decoded so far."""
        return self._size / 2 / SAMPLE_RATE

    async def begun(self) -> None:
        """Wait until there is something to listen to: a file, or all of it."""
        await self._begun.wait()
        if self.running.done():
            self.running.result()

    async def leave(self) -> None:
        """Stop decoding and wait for the thread."""
        self._left.set()
        await settle(self.running)

    def _decode(self, chunks: Callable[[], Iterator[bytes]]) -> None:
        try:
            for pcm in chunks():
                if self._left.is_set():
                    break
                self._put(pcm)
        finally:
            # What was opened is closed now, as nothing refers to it any more. Who still waits for more learns the end.
            if self._file is not None:
                self._file.flush()
                os.fchmod(self._file.fileno(), _COMPLETE)

    def _put(self, pcm: bytes) -> None:
        self._size += len(pcm)
        if self._file is not None:
            self._file.write(pcm)
            return
        self.memory += pcm
        if self._size > _IN_MEMORY_BYTES:
            self._file = _file(self._stack)
            self._file.write(self.memory)
            self._file.flush()
            self.memory, self.path = bytearray(), self._file.name
            self._loop.call_soon_threadsafe(self._begun.set)


def _file(stack: ExitStack) -> IO[bytes]:
    """Return a new file that goes with the stack; it has a name, as the model may run in another process."""
    _sweep()
    file = NamedTemporaryFile(prefix=_BEFORE, suffix=_AFTER)  # noqa: SIM115 - the stack closes it
    stack.callback(file.close)
    os.fchmod(file.fileno(), _GROWING)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _sweep() -> None:
    """Remove the files of processes that were killed: those that nobody has locked, or is about to lock."""
    for path in Path(tempfile.gettempdir()).glob(f"{_BEFORE}*{_AFTER}"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_mtime < time.time() - _NEW_S:
                path.unlink()
