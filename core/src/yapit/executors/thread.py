"""Adapters in threads of this process: the light ones, and all of them inside a worker."""

import asyncio
import contextvars
import gc
import inspect
import sys
import threading
import traceback
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import structlog
from msgspec import Struct

from yapit.adapters import Adapter
from yapit.catalog import Model
from yapit.errors import BackendError, OutOfMemoryError, YapitError
from yapit.executors import Executor, ahead
from yapit.schemas import Chunk, Request
from yapit.settling import settle
from yapit.tasks import Task

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate memory")
_log = structlog.get_logger(__name__)


class _Loaded(Struct):
    adapter: Adapter
    home: ThreadPoolExecutor
    calls: ThreadPoolExecutor


class ThreadExecutor(Executor):
    """Computing adapters run on threads of their own, `max_concurrency` of them; waiting ones on the event loop."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._loaded: dict[tuple[str, str], _Loaded] = {}

    async def load(self, task: Task, model: Model) -> int:
        """Call the plugin's factory on the thread that will also run and close the adapter."""
        name = f"{task.name}-{model.id}"
        home = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        loading = home.submit(self.plugins.adapter, task, model, self.context_of(model))
        try:
            adapter = await asyncio.wrap_future(loading)
        except BaseException:
            # A load that is cancelled runs to its end all the same, and nobody else will close what it loaded.
            home.submit(_discard, loading, task, model)
            home.shutdown(wait=False)
            raise
        slots = max(1, adapter.max_concurrency)
        calls = home if slots == 1 else ThreadPoolExecutor(max_workers=slots, thread_name_prefix=name)
        self._loaded[task.name, model.id] = _Loaded(adapter, home, calls)
        return slots

    async def stream(self, task: Task, model: Model, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of one call, checked to be the task's."""
        loaded = self._loaded[task.name, model.id]
        method = getattr(loaded.adapter, task.name)
        chunks = (
            method(request)
            if inspect.isasyncgenfunction(method)
            else _Pump(loaded.calls, method, request, ahead(task)).chunks()
        )
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    _check(chunk, task, model)
                    yield chunk
        except YapitError:
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _cancelled():
                raise
            _log.exception("adapter_failed", task=task.name, model=model.id)
            if _is_out_of_memory(error):
                _give_back_unused(error)
                raise OutOfMemoryError(f"The model '{model.id}' ran out of memory.") from error
            message = f"The model '{model.id}' failed ({type(error).__name__}); the server's log says more."
            raise BackendError(message) from error

    async def unload(self, task: Task, model: Model) -> None:
        """Close the adapter on the thread that loaded it and end its threads."""
        loaded = self._loaded.pop((task.name, model.id), None)
        if loaded is None:
            return
        closing = loaded.home.submit(_close, loaded.adapter, task, model)
        loaded.home.shutdown(wait=False)
        loaded.calls.shutdown(wait=False)
        # Shielded: nobody else would close it.
        await asyncio.shield(asyncio.wrap_future(closing))


def _cancelled() -> bool:
    """Tell whether a cancellation is the reader's; one that an adapter makes up is a failure like any other."""
    reader = asyncio.current_task()
    return reader is None or reader.cancelling() > 0


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell what the libraries tell in their own ways: torch by a class, its CPU allocator and others by words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).casefold()
    # onnxruntime has a class of its own, which is no RuntimeError.
    may_be = isinstance(error, RuntimeError) or type(error).__name__ == "RuntimeException"
    return may_be and any(words in said for words in _OUT_OF_MEMORY)


def _give_back_unused(error: BaseException) -> None:
    """Make room for a smaller attempt: the error holds what the adapter worked on, torch keeps what it once took."""
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _close(adapter: Adapter, task: Task, model: Model) -> None:
    try:
        adapter.close()
    except Exception:  # noqa: BLE001 - an adapter may raise anything; it is gone either way
        _log.exception("adapter_close_failed", task=task.name, model=model.id)


def _discard(loading: Future[Adapter], task: Task, model: Model) -> None:
    if not loading.cancelled() and loading.exception() is None:
        _close(loading.result(), task, model)


def _check(chunk: object, task: Task, model: Model) -> None:
    if not isinstance(chunk, task.chunk):
        wanted, got = task.chunk.__name__, type(chunk).__name__
        raise BackendError(f"The model '{model.id}' yielded a {got}, not a {wanted}.")


class _Pump:
    """Drives a blocking iterator on a pool thread and hands its chunks to the event loop.

    One hop starts the call; each chunk then costs one wake-up and none while the reader is behind.
    """

    def __init__(self, pool: ThreadPoolExecutor, method: Callable[[Request], Any], request: Request, room: int) -> None:
        self._pool = pool
        self._method = method
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Chunk] = deque()
        self._lock = threading.Lock()
        self._room = threading.Semaphore(room)
        self._wake = asyncio.Event()
        self._asleep = False
        self._closed = False
        self._foreign: AsyncIterator[Chunk] | None = None
        self._error: BaseException | None = None

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Yield what the adapter yields; when closed, wait until the adapter's iterator is closed too."""
        context = contextvars.copy_context()
        work = self._pool.submit(context.run, self._run)
        done = asyncio.wrap_future(work)
        done.add_done_callback(lambda _: self._wake.set())
        try:
            while True:
                while self._ready:
                    chunk = self._ready.popleft()
                    self._room.release()
                    yield chunk
                if done.done() and not self._ready:
                    break
                await self._sleep(done)
        finally:
            self._closed = True
            self._room.release()
            if not work.cancel():  # it has begun
                await settle(done)
        if self._error is not None:
            raise self._error
        if self._foreign is not None:
            try:
                async for chunk in self._foreign:
                    yield chunk
            finally:
                close = getattr(self._foreign, "aclose", None)
                if close is not None:
                    await close()

    async def _sleep(self, done: asyncio.Future[None]) -> None:
        with self._lock:
            self._wake.clear()
            if self._ready or done.done():
                return
            self._asleep = True
        await self._wake.wait()

    def _run(self) -> None:
        """Run on the pool thread; keep the error: no future takes a `StopIteration`, and `SystemExit` ends the loop."""
        try:
            if not self._closed:
                self._drive()
        except BaseException as error:  # noqa: BLE001 - the reader raises it again
            self._error = error
            if self._closed:
                _log.exception("adapter_failed_to_let_go")

    def _drive(self) -> None:
        """Take the adapter's iterator from its first step to its last."""
        iterator: Iterator[Chunk] | AsyncIterator[Chunk] = self._method(self._request)
        if isinstance(iterator, AsyncIterator):
            self._foreign = iterator
            return
        try:
            if self._closed:
                return
            for chunk in iterator:
                self._room.acquire()
                if self._closed:
                    break
                with self._lock:
                    self._ready.append(chunk)
                    wake, self._asleep = self._asleep, False
                if wake:
                    self._loop.call_soon_threadsafe(self._wake.set)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
