"""A content on its way: what is here of it, its checksum so far, and the lock that keeps others from writing it."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from yapit.hub.repositories import File
from yapit.settling import settle

_BLOCK_BYTES = 4 * 1024 * 1024  # hashed at a time: a stop waits for no more
_LOOK_AGAIN_S = 0.1  # whether a lock is free
P = ParamSpec("P")
T = TypeVar("T")


class Part:
    """The part of a content that is here.

    Args:
        path: where it grows.
        file: whose content it is.
    """

    def __init__(self, path: Path, file: File) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.size = 0
        self._file = file
        # Unbuffered: what was written survives the end of this process.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._hash = _hash_of(file)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, file: File) -> AsyncIterator["Part"]:
        """Open what is kept, hash it, and close it in the end."""
        part = cls(path, file)
        try:
            if os.fstat(part._descriptor).st_size > file.size_bytes:
                part.restart()
            while await in_thread(part._read):
                pass
            yield part
        finally:
            os.close(part._descriptor)

    @property
    def complete(self) -> bool:
        """Whether all bytes are here, right or wrong."""
        return self.size == self._file.size_bytes

    @property
    def right(self) -> bool:
        """Whether the checksum is that of the content."""
        return self.complete and self.digest == self._file.etag

    @property
    def digest(self) -> str:
        """The checksum of what is here, in hexadecimal."""
        return self._hash.hexdigest()

    def restart(self) -> None:
        """Forget all."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.size, self._hash = 0, _hash_of(self._file)

    def write(self, piece: bytes) -> None:
        """Add the next bytes."""
        left = memoryview(piece)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._hash.update(piece)
        self.size += len(piece)

    def finish(self, blob: Path) -> None:
        """Make it the content: on the disk before it has its name."""
        os.fsync(self._descriptor)
        self.path.replace(blob)

    def _read(self) -> bool:
        block = os.read(self._descriptor, _BLOCK_BYTES)
        self._hash.update(block)
        self.size += len(block)
        return bool(block)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do the work beside the event loop; a cancellation waits for its end, as it uses what will be closed."""
    future = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    await settle(future)
    return future.result()


@asynccontextmanager
async def locked(path: Path, meanwhile: Callable[[], None]) -> AsyncIterator[None]:
    """Hold a lock that huggingface_hub, or another process of ours, may hold; `meanwhile` is called as long as so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while (lock := try_lock(path)) is None:
        meanwhile()
        await asyncio.sleep(_LOOK_AGAIN_S)
    try:
        yield
    finally:
        lock.release()


def try_lock(path: Path) -> BaseFileLock | None:
    """Take the lock if nobody holds it; group-writable, as huggingface_hub makes it."""
    lock: BaseFileLock = FileLock(path, mode=0o664, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except NotImplementedError:  # the file system knows no locks
        lock = SoftFileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
    return lock


def _hash_of(file: File) -> "hashlib._Hash":
    if file.sha256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)  # as git
