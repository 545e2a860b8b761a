"""Results as lists of chunks, read and written beside the event loop; whatever is wrong with them, nobody waits."""

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Struct

from yapit.engine.cache.folder import Folder
from yapit.settling import settle

_LENGTH = struct.Struct("<I")
_PATIENCE_S = 2.0  # for which a request waits to hear whether its answer is there
_PAUSE_S = 60.0  # until a folder that failed is tried again
_log = structlog.get_logger(__name__)
_encode = msgspec.msgpack.Encoder().encode
Item = TypeVar("Item", bound=Struct)
Answer = TypeVar("Answer")


class Results:
    """The results in a folder, used by a thread of their own, in the order of the calls.

    A folder that fails is reported once and left alone for a while, and everything is as if it were empty.

    Args:
        folder: where they are.
        largest_bytes: a result that is larger is not kept.
    """

    def __init__(self, folder: Folder, largest_bytes: int) -> None:
        self._folder = folder
        self._largest_bytes = largest_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache")
        self._lock = threading.Lock()
        self._backlog_bytes = 0
        self._again = 0.0
        self._failing = False
        self._closed = False

    async def has(self, key: bytes) -> bool:
        """Tell whether there is a result."""
        return bool(await self._ask(self._folder.has, key))

    async def get(self, key: bytes, kind: type[Item]) -> list[Item] | None:
        """Return the items of a result; None if it is not there."""
        return await self._ask(self._read, key, kind)

    def put(self, key: bytes, items: Sequence[Struct], about_bytes: int = 0) -> None:
        """Keep a result, soon; whoever asks for it from now on gets it. A disk that falls behind gets none."""
        if not self._usable:
            return
        with self._lock:
            if self._backlog_bytes > self._largest_bytes:
                return
            self._backlog_bytes += about_bytes
        self._thread.submit(self._guarded, self._write, key, items).add_done_callback(
            lambda _: self._written(about_bytes)
        )

    async def close(self) -> None:
        """Return when everything is written and the folder is closed."""
        if self._closed:
            return
        self._closed = True
        await settle(asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, self._folder.close))
        self._thread.shutdown()

    def _written(self, about_bytes: int) -> None:
        with self._lock:
            self._backlog_bytes -= about_bytes

    @property
    def _usable(self) -> bool:
        return not self._closed and time.monotonic() >= self._again

    async def _ask(self, function: Callable[..., Answer], *arguments: Any) -> Answer | None:
        if not self._usable:
            return None
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, function, *arguments)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await asked
        except TimeoutError:
            self._fail(f"no answer within {_PATIENCE_S:g} s")
            return None

    def _guarded(self, function: Callable[..., Answer], *arguments: Any) -> Answer | None:
        """Call a function on the thread; None if it failed."""
        if not self._usable and not self._closed:
            return None
        try:
            answer = function(*arguments)
        except Exception as error:  # noqa: BLE001 - a disk or a database may fail in any way, and is not needed
            self._fail(f"{type(error).__name__}: {error}")
            return None
        self._failing = False
        return answer

    def _fail(self, reason: str) -> None:
        self._again = time.monotonic() + _PAUSE_S
        if not self._failing:
            self._failing = True
            _log.warning("cache_failed", reason=reason)

    def _read(self, key: bytes, kind: type[Item]) -> list[Item] | None:
        value = self._folder.get(key)
        if value is None:
            return None
        decoder = msgspec.msgpack.Decoder(kind)
        items, start = [], 0
        try:
            while start < len(value):
                (length,) = _LENGTH.unpack_from(value, start)
                start += _LENGTH.size
                items.append(decoder.decode(memoryview(value)[start : start + length]))
                start += length
        except (struct.error, msgspec.DecodeError):
            self._folder.discard(key)
            return None
        return items

    def _write(self, key: bytes, items: Sequence[Struct]) -> None:
        try:
            parts = [_encode(item) for item in items]
        except (TypeError, ValueError, OverflowError) as error:
            # An adapter put something into its chunks that does not belong there.
            _log.warning("cache_entry_unwritable", reason=str(error))
            return
        value = b"".join(part for body in parts for part in (_LENGTH.pack(len(body)), body))
        if len(value) <= self._largest_bytes:
            self._folder.put(key, value)
