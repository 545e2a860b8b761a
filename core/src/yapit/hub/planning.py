"""Asking the hub what a repository has, and the disk what of it is here."""

from typing import Any
from urllib.parse import quote

import msgspec
from huggingface_hub import get_session, hf_raise_for_status
from msgspec import Struct

from yapit.errors import InvalidInputError, RemoteError, YapitError
from yapit.hub.layout import is_here, kept_bytes
from yapit.hub.refusals import HTTPError, house_error, is_repo_id
from yapit.hub.repositories import File, Plan, Repository, is_reference, is_sound

ANSWER_S = 5.0  # the hub may take for an answer


class _Large(Struct):
    sha256: str
    size: int


class _Sibling(Struct, rename="camel"):
    rfilename: str
    size: int | None = None
    blob_id: str | None = None
    lfs: _Large | None = None


class _Answer(Struct):
    sha: str
    siblings: list[_Sibling] = []
    gated: Any = False


def plan(repository: Repository) -> Plan:
    """Return what a transfer of the repository will do; the hub is asked once, or twice where it may refuse the files.

    Raises:
        InvalidInputError: the source is no repository's id, or the revision is no name.
        ForbiddenError: it is gated, or the token is refused; says where its terms are.
        NotFoundError: there is no such repository or revision, or the token does not allow to know of it.
        ConflictError: offline mode is on.
        RateLimitError, RemoteError: the hub refuses for now, or cannot be reached.
    """
    if not is_repo_id(repository.source):
        raise InvalidInputError(f"The source '{repository.source}' is neither a folder nor the id of a repository.")
    if repository.reference is not None and not is_reference(repository.reference):
        raise InvalidInputError(f"The revision '{repository.revision}' is not the name of one.")
    try:
        answer = _ask(repository)
        found = _planned(repository, answer)
        if answer.gated and not found.complete:
            _ask_for_one(found)
    except (OSError, HTTPError) as error:
        raise _refused(repository, error) from error
    return found


def _ask(repository: Repository) -> _Answer:
    url = f"{repository.hub}/api/{repository.kind}s/{repository.source}"
    if repository.revision is not None:
        url += f"/revision/{quote(repository.revision, safe='')}"
    response = get_session().get(url, params={"blobs": True}, headers=repository.headers, timeout=ANSWER_S)
    hf_raise_for_status(response)
    try:
        return msgspec.json.decode(response.content, type=_Answer)
    except (ValueError, RecursionError) as error:
        raise RemoteError(f"The hub does not say what is in '{repository.source}': {error}") from error


def _ask_for_one(found: Plan) -> None:
    """Ask for a file, as everybody may know of a gated repository, and not everybody may read it."""
    name = next(file.name for file in found.files if file.name not in found.here)
    url = found.repository.url(found.commit, name)
    headers = found.repository.headers
    hf_raise_for_status(get_session().head(url, headers=headers, timeout=ANSWER_S, follow_redirects=False))


def _planned(repository: Repository, answer: _Answer) -> Plan:
    listing = {file.name: file for file in map(_file, answer.siblings)}
    files = tuple(listing[name] for name in repository.chosen(listing))
    wrong = [file.name for file in listing.values() if not is_sound(file)]
    if wrong or len(answer.sha) != 40 or not answer.sha.isalnum():  # noqa: PLR2004 - digits of a commit
        raise RemoteError(f"The hub's listing of '{repository.source}' cannot be used: {[answer.sha, *wrong][-1]!r}")
    here = frozenset(file.name for file in files if is_here(repository, answer.sha, file))
    contents = {file.etag: file for file in files}
    missing = [file for file in contents.values() if file.name not in here]
    total = sum(file.size_bytes for file in contents.values())
    return Plan(
        repository=repository,
        commit=answer.sha,
        listing=tuple(listing.values()),
        files=files,
        here=here,
        bytes_total=total,
        bytes_here=total - sum(file.size_bytes for file in missing),
        bytes_kept=sum(kept_bytes(repository, file) for file in missing),
    )


def _file(sibling: _Sibling) -> File:
    large = sibling.lfs
    size = large.size if large else sibling.size
    if size is None or sibling.blob_id is None:
        raise RemoteError("The hub does not say how large its files are.")
    return File(name=sibling.rfilename, size_bytes=size, blob=sibling.blob_id, sha256=large.sha256 if large else None)


def _refused(repository: Repository, error: Exception) -> YapitError:
    return house_error(repository.source, repository.revision, error, repository.hub)
