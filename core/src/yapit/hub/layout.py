"""The hub's own cache on disk, as every library reads it: blobs, snapshots that link to them, refs, listings.

It is what huggingface_hub 2.4 writes; its file `_tree_cache.py` documents the listings. A part of a file has a name
that stays the same, so that it is found after a restart; `scan_cache_dir` counts it among the incomplete ones.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import constants

from yapit.hub.repositories import File, Repository

PART = ".incomplete"
_LISTING_FORMAT = 1
_COMMIT = re.compile(r"[0-9a-f]{40}")


def blob_of(repository: Repository, file: File) -> Path:
    """Return where a file's content is kept."""
    return repository.folder / "blobs" / file.etag


def part_of(repository: Repository, file: File) -> Path:
    """Return where a file's content grows."""
    return repository.folder / "blobs" / f"{file.etag}{PART}"


def lock_of(repository: Repository, etag: str) -> Path:
    """Return the lock that who writes a content holds; huggingface_hub takes the same."""
    folder = repository.folder
    return folder.parent / ".locks" / folder.name / f"{etag}.lock"


def pointer_of(repository: Repository, commit: str, name: str) -> Path:
    """Return the path of a file in its snapshot."""
    return repository.folder / "snapshots" / commit / name


def is_whole(path: Path, size_bytes: int) -> bool:
    """Tell whether a file, or what a link leads to, is there with all its bytes."""
    try:
        return path.is_file() and path.stat().st_size == size_bytes
    except OSError:
        return False


def is_here(repository: Repository, commit: str, file: File) -> bool:
    """Tell whether a file's content is on this machine, linked into the snapshot or not."""
    paths = (pointer_of(repository, commit, file.name), blob_of(repository, file))
    return any(is_whole(path, file.size_bytes) for path in paths)


def kept_bytes(repository: Repository, file: File) -> int:
    """Return how much of a content an earlier transfer left."""
    try:
        size = part_of(repository, file).stat().st_size
    except OSError:
        return 0
    return size if size <= file.size_bytes else 0


def link(repository: Repository, commit: str, files: Iterable[File]) -> None:
    """Put files with one content into the snapshot: links, or where there can be none, copies."""
    missing = [file for file in files if not is_whole(pointer_of(repository, commit, file.name), file.size_bytes)]
    for file in missing:
        pointer, blob = pointer_of(repository, commit, file.name), blob_of(repository, file)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        # Beside the snapshots: who is killed now leaves nothing in one.
        passing = repository.folder / f"{uuid.uuid4().hex[:8]}.tmp"
        try:
            if not _symlinked(blob, passing, pointer.parent):
                # As huggingface_hub does: the content moves into the snapshot, it is not kept twice.
                (os.replace if file is missing[-1] else shutil.copyfile)(blob, passing)
            passing.replace(pointer)
        finally:
            passing.unlink(missing_ok=True)


def _symlinked(blob: Path, passing: Path, folder: Path) -> bool:
    if constants.HF_HUB_DISABLE_SYMLINKS:
        return False
    try:
        passing.symlink_to(os.path.relpath(blob, folder))
    except OSError:
        return False
    return True


def commit_here(repository: Repository) -> str | None:
    """Return the commit that the cache has for the wanted revision; None without one."""
    if repository.reference is None:
        return repository.revision
    try:
        commit = (repository.folder / "refs" / repository.reference).read_text()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def refer(repository: Repository, commit: str) -> None:
    """Note which commit the wanted branch or tag is."""
    if repository.reference is not None and commit_here(repository) != commit:
        _write(repository.folder / "refs" / repository.reference, commit)


def write_listing(repository: Repository, commit: str, files: Iterable[File]) -> None:
    """Note which files a commit has, so that all can tell offline whether its snapshot is complete."""
    path = _listing_path(repository, commit)
    if path.exists():
        return
    entries = {file.name: _entry(file) for file in sorted(files, key=lambda file: file.name)}
    _write(path, json.dumps({"format_version": _LISTING_FORMAT, "files": entries}, indent=1))


def read_listing(repository: Repository, commit: str) -> list[File] | None:
    """Return the files of a commit as they were noted; None: nobody noted them."""
    try:
        found = json.loads(_listing_path(repository, commit).read_bytes())
        if found["format_version"] != _LISTING_FORMAT:
            return None
        return [
            File(name=name, size_bytes=entry["size"], blob=entry["blob_id"], sha256=entry.get("lfs_sha256"))
            for name, entry in found["files"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _entry(file: File) -> dict[str, str | int]:
    entry: dict[str, str | int] = {"size": file.size_bytes, "blob_id": file.blob}
    return entry | ({"lfs_sha256": file.sha256, "lfs_size": file.size_bytes} if file.sha256 else {})


def _listing_path(repository: Repository, commit: str) -> Path:
    return repository.folder / "trees" / f"{commit}.json"


def _write(path: Path, text: str) -> None:
    """Write a small file so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        passing.write_text(text)
        passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)
