"""A repository's transfer onto this machine, or its end; each runs on the caller's thread."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from huggingface_hub import get_async_session

from yapit.errors import StoppedError, StorageFullError, YapitError
from yapit.hub.cache import discard
from yapit.hub.contents import Contents, Patience
from yapit.hub.layout import is_whole, pointer_of, refer, write_listing
from yapit.hub.progress import Meter, Progress
from yapit.hub.refusals import HTTPError, house_error
from yapit.hub.repositories import File, Plan
from yapit.quantities import written

Watch = Callable[[Progress], None]
Stop = Callable[[], bool]
PARALLEL = 4  # files at a time
_LOOK_S = 0.05  # how often `stop` is asked
_SHOW_S = 0.2  # how often `watch` is called, at most
_MARGIN_BYTES = 64 * 1000 * 1000  # of the disk are left free


def fetch(
    plan: Plan,
    *,
    watch: Watch | None = None,
    stop: Stop | None = None,
    parallel: int = PARALLEL,
    patience: Patience | None = None,
) -> Path:
    """Bring what a plan wants onto this machine, and return the folder of its snapshot.

    What others fetch at the same time is waited for. A branch leads to the new commit once all of it is here.

    Args:
        plan: what is wanted.
        watch: is told how far it is, a few times a second and in the end.
        stop: ends it when true; the parts stay, for the next time.
        parallel: files at a time.
        patience: with a hub that does not answer.

    Raises:
        StorageFullError: the disk has no room; the parts are gone.
        StoppedError: `stop` said so.
        ForbiddenError, NotFoundError, RateLimitError, RemoteError: as `planning.plan`, or what came was wrong.
    """
    try:
        return _run(_fetch(plan, watch, stop, parallel, patience or Patience()))
    except StorageFullError:
        discard(plan)
        raise


async def _fetch(plan: Plan, watch: Watch | None, stop: Stop | None, parallel: int, patience: Patience) -> Path:
    repository = plan.repository
    folder = repository.folder / "snapshots" / plan.commit
    meter = Meter(plan)
    try:
        # All is here: nothing is written, the cache may be another's.
        if not all(_is_linked(plan, file) for file in plan.files) or not folder.is_dir():
            check_room(repository.folder, plan.bytes_to_fetch, repository.source)
            folder.mkdir(parents=True, exist_ok=True)
            write_listing(repository, plan.commit, plan.listing)
            await _transfer(plan, meter, watch, stop, parallel, patience)
        refer(repository, plan.commit)
    except (OSError, HTTPError, YapitError, ExceptionGroup) as raised:
        error = _first(raised)
        if not isinstance(error, OSError | HTTPError | YapitError):
            raise
        raise house_error(repository.source, repository.revision, error, repository.hub) from error
    finally:
        if watch is not None:
            watch(meter.progress())
    return folder


async def _transfer(
    plan: Plan, meter: Meter, watch: Watch | None, stop: Stop | None, parallel: int, patience: Patience
) -> None:
    slots = asyncio.Semaphore(parallel)
    async with get_async_session() as client:
        contents = Contents(plan, client, meter, patience)

        async def one(files: list[File]) -> None:
            async with slots:
                await contents.fetch(files)

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(plan, meter, watch, stop))
            async with asyncio.TaskGroup() as transfers:
                for files in _by_content(plan):
                    transfers.create_task(one(files))
            watching.cancel()


async def _watch(plan: Plan, meter: Meter, watch: Watch | None, stop: Stop | None) -> None:
    turns = 0
    while True:
        if stop is not None and stop():
            raise StoppedError(f"The transfer of '{plan.repository.source}' was stopped; what is here of it stays.")
        if watch is not None and turns % round(_SHOW_S / _LOOK_S) == 0:
            watch(meter.progress())
        turns += 1
        await asyncio.sleep(_LOOK_S)


def check_room(folder: Path, needed: int, source: str) -> None:
    """Raise `StorageFullError` unless so many bytes of a source fit where the folder is, or will be."""
    above = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(above).free
    if needed and free < needed + _MARGIN_BYTES:
        raise StorageFullError(
            f"The disk has no room for the weights of '{source}': "
            f"{written(needed)} are missing, and {written(free)} are free."
        )


def _by_content(plan: Plan) -> list[list[File]]:
    """Return the files that are not in the snapshot, those with one content together, small ones first."""
    found: dict[str, list[File]] = {}
    for file in sorted(plan.files, key=lambda file: file.size_bytes):
        found.setdefault(file.etag, []).append(file)
    return [files for files in found.values() if not all(_is_linked(plan, file) for file in files)]


def _is_linked(plan: Plan, file: File) -> bool:
    return is_whole(pointer_of(plan.repository, plan.commit, file.name), file.size_bytes)


def _first(error: Exception) -> Exception:
    """Return what ended the transfer; a full disk before all that comes of it."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [_first(each) for each in error.exceptions]
    return next((each for each in leaves if isinstance(each, OSError) and not isinstance(each, HTTPError)), leaves[0])


def _run(main: Coroutine[Any, Any, Path]) -> Path:
    """Run the coroutine, on a thread of its own where this one's event loop waits for us."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, main).result()
