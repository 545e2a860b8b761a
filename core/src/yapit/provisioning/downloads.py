"""Weights on their way: one download for each model, some at a time, which outlive the server that began them."""

import asyncio
import platform
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol

import structlog
from msgspec.structs import replace

from yapit.catalog import Model
from yapit.errors import BackendError, ConflictError, ModelNotFoundError, NotFoundError, YapitError, shutting_down
from yapit.provisioning.local import LocalProvisioner
from yapit.provisioning.marks import Marks
from yapit.provisioning.watching import Watcher
from yapit.schemas import ProvisionRequest, ProvisionState
from yapit.store.downloads import Download

Intent = Literal["pause", "cancel", "cancel and keep", "close"]
RUNNING = ("pending", "downloading")
_SAVE_S = 1.0  # how often progress goes to the book
_KEPT = 200  # downloads that have ended are remembered
_log = structlog.get_logger(__name__)


class Book(Protocol):
    """Where downloads are written down; a `Store` is one. Its methods block."""

    def put(self, download: Download) -> None:
        """Write one down."""

    def downloads(self, node: str | None = None) -> list[Download]:
        """Return those of a machine, oldest first."""

    def forget(self, download_id: str) -> None:
        """Remove one."""


class Downloads:
    """Brings the weights of models onto this machine, and remembers what came of it.

    Args:
        find: returns the model of an id, or raises `ModelNotFoundError`.
        provisioner_of: returns what brings a model's weights here; blocks.
        parallel: downloads at a time; others wait.
        data_dir: where it marks the downloads that this process works on.
        book: where downloads are written down, so that they outlive this process; nowhere when None.
        node: name of this machine.
        quiet: do not log what fails: whoever asked is told.
    """

    def __init__(  # noqa: PLR0913 - it is made in two places, and each says what it means by name
        self,
        find: Callable[[str], Model],
        provisioner_of: Callable[[Model], LocalProvisioner],
        *,
        parallel: int,
        data_dir: Path,
        book: Book | None = None,
        node: str | None = None,
        quiet: bool = False,
    ) -> None:
        self._find = find
        self._provisioner_of = provisioner_of
        self._marks = Marks(data_dir / "downloads")
        self._book = book
        self._node = node or platform.node() or "here"
        self._quiet = quiet
        self._slots = asyncio.Semaphore(parallel)
        self._known: dict[str, Download] = {}
        self._works: dict[str, _Work] = {}  # by the model's id
        self._watchers = set[Watcher]()
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work for as long as the block lasts."""
        await self.start()
        try:
            yield
        finally:
            await self.close()

    async def start(self, *, resume: bool = True) -> None:
        """Read what is known, and go on with what a process left unfinished that has ended.

        Args:
            resume: False: that stays as it is until somebody wants it.
        """
        if self._book is None:
            return
        known = await asyncio.to_thread(self._book.downloads, self._node)
        for download in known[:-_KEPT]:
            if download.state not in RUNNING:
                await asyncio.to_thread(self._book.forget, download.id)
        for download in known[-_KEPT:]:
            self._known[download.id] = download
            if download.state in RUNNING and not self._marks.is_held(download.id):
                if resume:
                    await self._go_on(download)
                else:
                    self._known[download.id] = replace(download, state="paused")

    async def close(self) -> None:
        """Stop all work, and let the watchers go; what is unfinished is resumed by the next start."""
        self._closed = True
        works = list(self._works.values())
        for work in works:
            work.end("close")
        await asyncio.gather(*(work.task for work in works), return_exceptions=True)
        for watcher in list(self._watchers):
            watcher.end()

    # ── what is known ─────────────────────────────────────────────────────────────────────────────────────────────────
    def __getitem__(self, download_id: str) -> Download:
        """Return a download.

        Raises:
            NotFoundError: there is none of this id.
        """
        if download_id not in self._known:
            raise NotFoundError(f"There is no download '{download_id}'.", param="download_id")
        return self._known[download_id]

    def all(self) -> list[Download]:
        """Return the downloads, oldest first."""
        return list(self._known.values())

    def of(self, model: Model) -> Download | None:
        """Return the last download of a model."""
        return next((found for found in reversed(self._known.values()) if found.model == model.id), None)

    async def here(self, model: Model) -> bool:
        """Tell whether all that a model needs is on this machine."""
        return await asyncio.to_thread(lambda: self._provisioner_of(model).here())

    async def found(self, model: Model) -> Download:
        """Return the last download of a model whose weights are here; one that never needed any gets one that ended."""
        last = self.of(model)
        if last is not None and last.state in (*RUNNING, "completed"):
            return last
        now = time.time()
        return await self._note(replace(self._new(model), state="completed", finished_at=now))

    async def watch(self, download_id: str | None = None) -> AsyncGenerator[Download, None]:
        """Yield a download now, and whenever it changes, until it does not run; or, until the end, any that changes.

        A reader that is slow sees less, and always what is last.

        Raises:
            NotFoundError: there is none of this id.
        """
        watcher = Watcher()
        if download_id is not None:
            watcher.tell(self[download_id])
        self._watchers.add(watcher)
        try:
            async with aclosing(watcher.downloads()) as downloads:
                async for download in downloads:
                    if download_id in (None, download.id):
                        yield download
                    if download_id == download.id and download.state not in RUNNING:
                        return
        finally:
            self._watchers.discard(watcher)

    # ── what is done ──────────────────────────────────────────────────────────────────────────────────────────────────
    async def begin(self, model: Model, *, anew: bool = False) -> Download:
        """Fetch a model's weights, unless that is being done; one that was paused or failed goes on where it stopped.

        Args:
            model: whose weights.
            anew: remove what is here first.

        Raises:
            ConflictError: it shall begin anew, and runs.
            CapacityError: this is being closed.
        """
        if self._closed:
            raise shutting_down()
        last = self.of(model)
        if model.id in self._works:
            if anew:
                raise ConflictError(f"The weights of '{model.id}' are being fetched.", param="model_name")
            return self._known[self._works[model.id].download_id]
        if last is None or anew or last.state not in ("paused", "failed"):
            last = self._new(model)
        return self._go(model, last, anew=anew)

    async def resume(self, download_id: str) -> Download:
        """Go on with a download that was paused or failed.

        Raises:
            ConflictError: it runs, or has ended.
        """
        download = self[download_id]
        if download.state not in ("paused", "failed"):
            raise ConflictError(f"The download '{download_id}' is {download.state}.", param="download_id")
        return await self.begin(self._find(download.model))

    async def pause(self, download_id: str) -> Download:
        """Stop a download, and keep what has come.

        Raises:
            ConflictError: it does not run.
        """
        return await self._end(self[download_id], "pause")

    async def cancel(self, download_id: str, *, keep: bool = False) -> Download:
        """End a download for good; what has come goes, unless it shall be kept.

        Raises:
            ConflictError: it has ended.
        """
        download = self[download_id]
        if download.state not in ("paused", "failed"):
            return await self._end(download, "cancel and keep" if keep else "cancel")
        if not keep:
            with suppress(ModelNotFoundError):
                await self._discard(self._find(download.model))
        return await self._note(replace(download, state="cancelled", finished_at=time.time()))

    def _new(self, model: Model) -> Download:
        now = time.time()
        return Download(
            id=secrets.token_hex(4),
            node=self._node,
            model=model.id,
            state="pending",
            created_at=now,
            updated_at=now,
        )

    async def _end(self, download: Download, intent: Intent) -> Download:
        work = self._works.get(download.model)
        if work is None or work.download_id != download.id:
            raise ConflictError(f"The download '{download.id}' is {download.state}.", param="download_id")
        work.end(intent)
        await asyncio.wait([work.task])
        return self._known[download.id]

    async def _go_on(self, download: Download) -> None:
        try:
            model = self._find(download.model)
        except ModelNotFoundError as error:
            await self._note(_failed(download, error))
            return
        _log.info("download_resumed", model=model.id, download_id=download.id, bytes_done=download.bytes_done)
        self._go(model, download)

    def _go(self, model: Model, download: Download, *, anew: bool = False) -> Download:
        waiting = replace(
            download, state="pending", message="", error_code=None, error_status=None, finished_at=None, eta_s=None
        )
        self._known.pop(download.id, None)  # the last one is last
        self._known[download.id] = waiting
        work = _Work(download.id)
        self._works[model.id] = work
        work.task = asyncio.create_task(self._work(model, work, anew=anew), name=f"download {model.id}")
        return waiting

    async def _work(self, model: Model, work: "_Work", *, anew: bool) -> None:
        """Do all of one download; nothing leaves it, as nobody may be waiting."""
        try:
            work.begin()
            await self._note(self._known[work.download_id])
            with self._marks.held(work.download_id):
                async with self._slots:
                    ended = await self._fetch(model, work, anew=anew)
        except asyncio.CancelledError:
            ended = await self._given_up(model, work)
        except YapitError as error:
            if not self._quiet:
                _log.warning("download_failed", model=model.id, code=error.code, reason=error.message)
            ended = _failed(self._known[work.download_id], error)
        except Exception:  # noqa: BLE001 - logged in full; nobody waits who could see it
            _log.exception("download_broke", model=model.id)
            broken = BackendError("The download failed; the server's log says more.")
            ended = _failed(self._known[work.download_id], broken)
        finally:
            del self._works[model.id]
        await self._note(ended)

    async def _fetch(self, model: Model, work: "_Work", *, anew: bool) -> Download:
        provisioner = await asyncio.to_thread(self._provisioner_of, model)
        if anew:
            async with aclosing(provisioner.provision(ProvisionRequest(action="remove"))) as states:
                async for _ in states:
                    pass
        found, saved_at = self._known[work.download_id], 0.0
        async with aclosing(provisioner.provision(ProvisionRequest())) as states:
            async for state in states:
                found = _advanced(self._known[work.download_id], state)
                if (now := time.monotonic()) - saved_at < _SAVE_S:
                    self._tell(found)
                    continue
                saved_at = now
                await self._note(found)
        _log.info("download_completed", model=model.id, bytes=found.bytes_total)
        return replace(found, state="completed", finished_at=time.time(), bytes_per_s=0.0, eta_s=None)

    async def _given_up(self, model: Model, work: "_Work") -> Download:
        """Return the download as it is after somebody has ended it."""
        found = replace(self._known[work.download_id], bytes_per_s=0.0, eta_s=None)
        if work.intent == "pause":
            return replace(found, state="paused")
        if work.intent == "cancel":
            await self._discard(model)
        if work.intent in ("cancel", "cancel and keep"):
            return replace(found, state="cancelled", finished_at=time.time())
        return found

    async def _discard(self, model: Model) -> None:
        provisioner = await asyncio.to_thread(self._provisioner_of, model)
        for transfer in provisioner.transfers:
            await asyncio.to_thread(transfer.discard)

    async def _note(self, download: Download) -> Download:
        """Write it down, and tell the watchers; a book that is shut does not stop the work."""
        now = replace(download, updated_at=time.time())
        if self._book is not None:
            try:
                await asyncio.to_thread(self._book.put, now)
            except Exception:  # noqa: BLE001 - whatever the database's driver raises
                _log.exception("download_not_written_down", download_id=now.id)
        self._tell(now)
        return now

    def _tell(self, download: Download) -> None:
        self._known[download.id] = download
        for watcher in self._watchers:
            watcher.tell(download)


class _Work:
    """What is being done for a download, and how it shall end."""

    task: "asyncio.Task[None]"

    def __init__(self, download_id: str) -> None:
        self.download_id = download_id
        self.intent: Intent | None = None
        self._begun = False

    def begin(self) -> None:
        """Note that the task runs, or raise `CancelledError` if it shall not any more."""
        self._begun = True
        if self.intent is not None:
            raise asyncio.CancelledError

    def end(self, intent: Intent) -> None:
        """End it; the first intent counts."""
        if self.intent is not None:
            return
        self.intent = intent
        if self._begun:  # one that is cancelled before would end without a trace
            self.task.cancel()


def _advanced(download: Download, state: ProvisionState) -> Download:
    commits = state.details.get("commits") or {}
    return replace(
        download,
        state="downloading",
        files_done=state.files_done or 0,
        files_total=state.files_total,
        bytes_done=state.bytes_done or 0,
        bytes_total=state.bytes_total,
        bytes_per_s=state.bytes_per_s or 0.0,
        eta_s=state.eta_s,
        commit=next(iter(commits.values()), download.commit),
    )


def _failed(download: Download, error: YapitError) -> Download:
    return replace(
        download,
        state="failed",
        message=error.message,
        error_code=error.code or error.type,
        error_status=error.status,
        bytes_per_s=0.0,
        eta_s=None,
        finished_at=time.time(),
    )
