"""What adapters ask for: a folder with the files of a repository, fetched if need be; or its small files alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
from huggingface_hub import is_offline_mode
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from msgspec.structs import replace

from yapit.errors import LoadError, StoppedError, StorageFullError, YapitError
from yapit.hub.layout import commit_here, is_whole, pointer_of, read_listing
from yapit.hub.planning import plan
from yapit.hub.refusals import house_error, is_repo_id, line
from yapit.hub.repositories import Repository
from yapit.hub.transfers import Stop, Watch
from yapit.hub.transfers import fetch as transfer

_log = structlog.get_logger(__name__)


def snapshot(
    repository: Repository, *, fetch: bool = True, watch: Watch | None = None, stop: Stop | None = None
) -> Path:
    """Return the folder with the wanted files of a repository.

    The hub is not asked for what is here whole: a newer commit of a branch comes when somebody fetches it on purpose.

    Args:
        repository: what is wanted.
        fetch: what is not here is fetched; else it is an error.
        watch: is told how far a transfer is.
        stop: ends a transfer when true.

    Raises:
        LoadError: it is not here and cannot be fetched.
        StorageFullError: the disk has no room.
        StoppedError: `stop` said so.
    """
    if not is_repo_id(repository.source):
        raise LoadError(f"The source '{repository.source}' is neither a folder nor the id of a repository.")
    commit = commit_here(repository)
    # Where nobody noted which files there are, what is here may be a part, and the hub knows.
    if commit is not None and read_listing(repository, commit) is not None and (found := here(repository)) is not None:
        return found
    refused: YapitError
    try:
        if fetch and not is_offline_mode():
            return transfer(plan(repository), watch=watch, stop=stop)
        kind = OfflineModeIsEnabled if is_offline_mode() and fetch else LocalEntryNotFoundError
        refused = house_error(repository.source, repository.revision, kind("not here"), repository.hub)
    except (StorageFullError, StoppedError):
        raise
    except YapitError as error:
        refused = error
    found = here(repository)
    if found is None:
        raise LoadError(refused.message) from refused
    return found


def here(repository: Repository) -> Path | None:
    """Return the folder of the snapshot if the cache has all the wanted files; the hub is not asked.

    Where nobody noted which files there are, nobody can tell what is missing: then some are enough.
    """
    commit = commit_here(repository)
    if commit is None:
        return None
    folder = repository.folder / "snapshots" / commit
    listing = read_listing(repository, commit)
    if listing is None:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        return folder if repository.chosen(names) else None
    sizes = {file.name: file.size_bytes for file in listing}
    wanted = repository.chosen(sizes)
    whole = all(is_whole(pointer_of(repository, commit, name), sizes[name]) for name in wanted)
    return folder if whole and folder.is_dir() else None


def small_files(source: str, revision: str | None, wanted: Sequence[str]) -> Mapping[str, bytes]:
    """Return the files that say what a repository is, as the hub has them; from its cache if it cannot be reached.

    Raises:
        YapitError: as `planning.plan` and `transfers.fetch`; only if none is here.
    """
    repository = Repository(source=source, revision=revision, choose=set(wanted).intersection)
    try:
        found = plan(repository)
        known = commit_here(repository)
        if known not in (None, found.commit):
            # Of the new commit there is only this: who asks offline is better off with the old one.
            found = replace(found, repository=replace(repository, revision=found.commit))
        transfer(found)
        commit, names = found.commit, [file.name for file in found.files]
    except YapitError as error:
        commit, names = commit_here(repository) or "", list(wanted)
        if not any(pointer_of(repository, commit, name).is_file() for name in names):
            raise
        _log.info("hub_unreachable", source=source, reason=line(error))
    paths = {name: pointer_of(repository, commit, name) for name in names}
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
