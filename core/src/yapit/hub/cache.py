"""What the hub's cache holds, and how it is got rid of."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from huggingface_hub import CacheNotFound, constants, scan_cache_dir
from huggingface_hub.utils import CachedRepoInfo, HFCacheInfo  # type: ignore[attr-defined]  # public too
from msgspec import Struct

from yapit.hub.layout import PART, commit_here, lock_of
from yapit.hub.parts import try_lock
from yapit.hub.repositories import Plan, Repository


class CachedRevision(Struct, frozen=True, kw_only=True):
    """A revision on this machine.

    Args:
        commit: its hash.
        references: the branches and tags that lead to it.
        size_bytes: of its files, those that other revisions have too.
        files: how many there are.
        modified_at: Unix time of its newest file.
    """

    commit: str
    references: tuple[str, ...]
    size_bytes: int
    files: int
    modified_at: float


class CachedRepository(Struct, frozen=True, kw_only=True):
    """A repository on this machine.

    Args:
        source: its id.
        kind: of the repository: model, dataset, space or kernel.
        folder: where it is.
        size_bytes: on the disk, without parts.
        partial_bytes: of transfers that have not come to their end.
        used_at: Unix time at which one of its files was read last, as far as the file system says.
        revisions: that are here.
    """

    source: str
    kind: str
    folder: Path
    size_bytes: int
    partial_bytes: int
    used_at: float
    revisions: tuple[CachedRevision, ...] = ()


def cached(cache: Path | None = None) -> list[CachedRepository]:
    """Return what the cache holds, the largest first; `cache` is that of HF_HOME or HF_HUB_CACHE when None."""
    found = _scan(cache)
    if found is None:
        return []
    parts: dict[Path, int] = {}
    for part in found.incomplete_files:
        folder = part.file_path.parent.parent
        parts[folder] = parts.get(folder, 0) + part.size_on_disk
    whole = [_repository(repo, parts.pop(repo.repo_path, 0)) for repo in found.repos]
    whole += [_parts_only(folder, size) for folder, size in parts.items() if "--" in folder.name]
    return sorted(whole, key=lambda each: (-each.size_bytes - each.partial_bytes, each.source))


def delete(repository: Repository) -> int:
    """Remove a repository, or only the wanted revision if one is named, and return the bytes that are free now.

    What other revisions have too stays. Nothing happens where there is nothing.
    """
    freed = 0
    found = _scan(repository.folder.parent)
    repo = (
        next((repo for repo in found.repos if repo.repo_path.name == repository.folder.name), None) if found else None
    )
    if found is not None and repo is not None:
        wanted = None if repository.revision is None else commit_here(repository)
        here = {revision.commit_hash for revision in repo.revisions}
        strategy = found.delete_revisions(*(here if repository.revision is None else here & {wanted}))
        freed = strategy.expected_freed_size
        if repository.revision is None:
            freed += discard(repository)
        strategy.execute()
    if repository.revision is None and repository.folder.is_dir():
        freed += sum(path.lstat().st_size for path in repository.folder.rglob("*") if path.is_file())
        shutil.rmtree(repository.folder, ignore_errors=True)
    return freed


def discard(what: Plan | Repository) -> int:
    """Remove the parts of a plan, or all parts of a repository, and return their bytes; not what is being written."""
    if isinstance(what, Plan):
        repository, etags = what.repository, {file.etag for file in what.files}
    else:
        repository, etags = what, None
    freed = 0
    for part in sorted((repository.folder / "blobs").glob(f"*{PART}")):
        etag = part.name.partition(".")[0]
        if etags is None or etag in etags:
            freed += _discarded(repository, etag, part)
    _tidy(repository.folder)
    return freed


def _discarded(repository: Repository, etag: str, part: Path) -> int:
    path = lock_of(repository, etag)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = try_lock(path)
    if lock is None:
        return 0
    try:
        size = part.stat().st_size
        part.unlink()
    except OSError:
        return 0
    finally:
        lock.release()
    return size


def _tidy(folder: Path) -> None:
    """Remove what a transfer began and nothing came of: a repository of which no file is here."""
    if not folder.is_dir() or any(path.is_file() for name in ("blobs", "snapshots") for path in _below(folder / name)):
        return
    with suppress(OSError):
        shutil.rmtree(folder)


def _below(folder: Path) -> Iterable[Path]:
    return folder.rglob("*") if folder.is_dir() else ()


def _scan(cache: Path | None) -> HFCacheInfo | None:
    try:
        return scan_cache_dir(cache or constants.HF_HUB_CACHE)
    except CacheNotFound:
        return None


def _repository(repo: CachedRepoInfo, partial_bytes: int) -> CachedRepository:
    return CachedRepository(
        source=repo.repo_id,
        kind=repo.repo_type,
        folder=repo.repo_path,
        size_bytes=repo.size_on_disk,
        partial_bytes=partial_bytes,
        used_at=repo.last_accessed,
        revisions=tuple(
            CachedRevision(
                commit=revision.commit_hash,
                references=tuple(sorted(revision.refs)),
                size_bytes=revision.size_on_disk,
                files=len(revision.files),
                modified_at=revision.last_modified,
            )
            for revision in sorted(repo.revisions, key=lambda each: -each.last_modified)
        ),
    )


def _parts_only(folder: Path, size: int) -> CachedRepository:
    kind, _, source = folder.name.partition("--")
    return CachedRepository(
        source=source.replace("--", "/"),
        kind=kind.removesuffix("s"),
        folder=folder,
        size_bytes=0,
        partial_bytes=size,
        used_at=folder.stat().st_atime,
    )
