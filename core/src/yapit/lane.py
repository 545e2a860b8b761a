"""A thread of its own for computing that takes long, and a way to stop it between two of its steps."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from yapit.settling import settle

ItemT = TypeVar("ItemT")
_END: Any = object()


class Left(BaseException):
    """Nobody waits any more for what is computed; no `except Exception` of a library holds it up."""


class Lane:
    """Drives one blocking iterator after the other on one thread: for an adapter with one call at a time.

    An adapter that computes for minutes inside of a library would learn only at its next `yield` that the client has
    gone. One that waits for a lane learns it at once, and what it computes with asks `check` wherever it can stop.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._left = threading.Event()

    async def stream(self, begin: Callable[[], Iterator[ItemT]]) -> AsyncGenerator[ItemT, None]:
        """Yield what the iterator yields; when closed or cancelled, come back once its thread has let go of it.

        Args:
            begin: returns the iterator, and computes nothing yet.
        """
        self._left.clear()
        context = contextvars.copy_context()
        items = begin()
        try:
            while (item := await self._step(context.run, next, items, _END)) is not _END:
                yield item
        finally:
            self._left.set()
            close = getattr(items, "close", None)
            if close is not None:
                await self._step(context.run, close)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def check(self, *_: object) -> None:
        """Raise `Left` if nobody waits any more; what a hook of a library is called with does not matter."""
        if self._left.is_set():
            raise Left

    async def _step(self, *call: Any) -> Any:
        running = asyncio.get_running_loop().run_in_executor(self._thread, *call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._left.set()
            await settle(running)
            raise
