"""Byte strings in a folder of bounded size, of which the longest unused ones go first."""

import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import diskcache
import structlog
from diskcache.core import MODE_BINARY, MODE_RAW

_CHECKSUM = struct.Struct("<I")
_LOCKED_S = 1.0  # for which another process may keep the folder to itself
_EVICT = b"evict"  # written to evict
_log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")


class RefusedError(Exception):
    """Something in the folder is not what was put there."""


class RawDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Bytes as they are. diskcache pickles the rest, and reading a pickle runs what is in it (CVE-2025-69872)."""

    def put(self, key: Any) -> Any:
        """Return the key as the database has it."""
        if type(key) is not bytes:
            raise RefusedError("a key must be bytes")
        return super().put(key)

    def get(self, key: Any, raw: Any) -> Any:
        """Return a key of the database."""
        if not raw:
            raise RefusedError("a key is a pickle")
        return super().get(key, raw)

    def store(self, value: Any, read: Any, key: Any = None) -> Any:
        """Write a value."""
        if type(value) is not bytes or read:
            raise RefusedError("a value must be bytes")
        return super().store(value, False, key=key)  # noqa: FBT003 - diskcache's order

    def fetch(self, mode: int, filename: Any, value: Any, read: Any) -> Any:
        """Read a value."""
        found = super().fetch(mode, filename, value, read) if mode in (MODE_RAW, MODE_BINARY) else None
        if type(found) is not bytes:
            raise RefusedError("a value is not bytes")
        return found


class Folder:
    """The byte strings; one thread uses it, every method blocks, and may raise whatever SQLite or the disk do.

    Args:
        path: a folder for nothing else, made if need be, which only its owner may enter.
        limit_bytes: what it may take on disk.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path.absolute()
        self._limit_bytes = limit_bytes
        self._cache: Any = None

    def has(self, key: bytes) -> bool:
        """Tell whether there is a value."""
        return self._ask(lambda cache: bool(key in cache))

    def get(self, key: bytes) -> bytes | None:
        """Return the value, if it is there and as it was when it was put there."""
        try:
            entry: bytes | None = self._ask(lambda cache: cache.get(key))
        except RefusedError:
            entry = b""
        if entry is None:
            return None
        value = entry[_CHECKSUM.size :]
        if entry[: _CHECKSUM.size] == _checksum(key, value):
            return value
        self.discard(key)
        return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep the value, and let others go until the folder is within its limit."""
        entry = _checksum(key, value) + value

        def keep(cache: Any) -> None:
            cache.set(key, entry)
            # Each write evicts one. `Cache.cull` would take ten at a time, which may be all there are.
            while cache.volume() > self._limit_bytes and len(cache) > 1:
                cache.set(_EVICT, b"")

        self._ask(keep)

    def discard(self, key: bytes) -> None:
        """Let the value go, if it is there."""
        _log.warning("cache_entry_broken", key=key.hex())
        self._ask(lambda cache: cache.delete(key))

    def close(self) -> None:
        """Close the files; the next use opens them again."""
        cache, self._cache = self._cache, None
        if cache is not None:
            cache.close()

    def _ask(self, question: Callable[[Any], Answer]) -> Answer:
        """Ask the cache; one whose files are no database is begun anew."""
        try:
            return question(self._opened())
        except RefusedError:
            raise
        except Exception as error:
            self.close()
            if not isinstance(error, sqlite3.DatabaseError) or isinstance(error, sqlite3.OperationalError):
                raise
            _log.warning("cache_begun_anew", folder=str(self._path), reason=str(error))
            shutil.rmtree(self._path)
            return question(self._opened())

    def _opened(self) -> Any:
        if self._cache is None:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.chmod(0o700)
            self._cache = diskcache.Cache(
                str(self._path),
                timeout=_LOCKED_S,
                disk=RawDisk,
                size_limit=self._limit_bytes,
                eviction_policy="least-recently-used",
                cull_limit=1,
                sqlite_mmap_size=0,  # a mapped file that somebody truncates ends the process
            )
        return self._cache


def _checksum(key: bytes, value: bytes) -> bytes:
    """Return what tells a value from another one, and from that of another key."""
    return _CHECKSUM.pack(zlib.crc32(value, zlib.crc32(key)))
