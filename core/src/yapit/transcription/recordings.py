"""Recordings as models get them: decoded to PCM, in memory or, long ones, in a file that goes with the request."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, BinaryIO

from msgspec import Struct

from yapit.audio import decode_chunks
from yapit.errors import InvalidInputError
from yapit.settling import settle

SAMPLE_RATE = 16_000  # Hz, of what models listen to
_IN_MEMORY_BYTES = 4_000_000  # of PCM, two minutes: what a message to another process may well carry
_SHORTEST_S = 0.1


class Recording(Struct, frozen=True, kw_only=True):
    """PCM at 16 kHz, or the path of a file with it."""

    pcm: bytes = b""
    path: str | None = None
    duration_s: float


@asynccontextmanager
async def recording(
    source: bytes | BinaryIO | Path, *, max_audio_s: float = 0, param: str = "file"
) -> AsyncIterator[Recording]:
    """Decode an upload on a thread and give the recording; what it takes on disk is gone afterwards.

    Args:
        source: what `yapit.audio.decode_chunks` takes. It is not used any more when this returns, or is cancelled.
        max_audio_s: the longest that is accepted; 0 = any.
        param: the request field that errors name.

    Raises:
        InvalidInputError: it is no audio, too short (code `audio_too_short`) or too long (`audio_too_long`).
    """
    with ExitStack() as stack:
        shelf, left = _Shelf(stack), threading.Event()

        def decode() -> None:
            chunks = decode_chunks(source, sample_rate=SAMPLE_RATE, max_seconds=max_audio_s or None, param=param)
            for pcm in chunks:
                if left.is_set():
                    break
                shelf.put(pcm)
            # What it has open is closed now, and not when it is collected.
            del chunks

        running = asyncio.get_running_loop().run_in_executor(None, decode)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            left.set()
            await settle(running)
            raise
        found = shelf.recording()
        if found.duration_s < _SHORTEST_S:
            message = f"the audio is too short: it lasts {found.duration_s:.3g} s, and {_SHORTEST_S} s is the least"
            raise InvalidInputError(message, param=param, code="audio_too_short")
        yield found


class _Shelf:
    """Where PCM is kept: in memory while it is little, then in a file."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._size = 0

    def put(self, pcm: bytes) -> None:
        self._size += len(pcm)
        if self._file is None and self._size > _IN_MEMORY_BYTES:
            # With a name, as the model may run in another process.
            self._file = NamedTemporaryFile(prefix="yapit-", suffix=".pcm")  # noqa: SIM115 - the stack closes it
            self._stack.callback(self._file.close)
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += pcm
        else:
            self._file.write(pcm)

    def recording(self) -> Recording:
        duration_s = self._size / 2 / SAMPLE_RATE
        if self._file is None:
            return Recording(pcm=bytes(self._memory), duration_s=duration_s)
        self._file.flush()
        return Recording(path=self._file.name, duration_s=duration_s)
