"""What the hub refuses: as an error of this house, and as what a person is told."""

import errno
import re
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public too

from yapit.errors import (
    BackendError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RateLimitError,
    RemoteError,
    StorageFullError,
    YapitError,
)

_LONGEST = 200  # characters of what an error says
_NOISE = re.compile(r"For more information check: \S+")  # what the client's library adds
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# What the hub's client raises: the class of httpx or of httpx2, whichever it is made with.
HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
# What a person is told, by the first class that fits.
_SENTENCES: dict[type[Exception], str] = {
    GatedRepoError: (
        "The repository '{source}' is gated: accept its terms on the hub, and set HF_TOKEN. See {hub}/{source}"
    ),
    RevisionNotFoundError: "The repository '{source}' has no revision '{revision}'.",
    RepositoryNotFoundError: "The hub has no repository '{source}', or HF_TOKEN does not allow to read it.",
    LocalEntryNotFoundError: "The weights of '{source}' are not on this machine, and must not be fetched.",
    OfflineModeIsEnabled: "The weights of '{source}' are not on this machine, and offline mode (HF_HUB_OFFLINE) is on.",
    HfHubHTTPError: "The weights of '{source}' are not on this machine, and the hub refuses them: {error}",
    HTTPError: "The weights of '{source}' are not on this machine, and the hub at {hub} cannot be reached.",
    OSError: "The repository '{source}' cannot be fetched: {error}",
}


def is_repo_id(source: str) -> bool:
    """Tell whether a source may be the id of a repository, rather than a path or a URL."""
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return True


def refusal(source: str, revision: str | None, error: BaseException, hub: str | None = None) -> str:
    """Return what a person is told when a repository cannot be had; `hub` is the one of HF_ENDPOINT when None."""
    sentence = next((text for kind, text in _SENTENCES.items() if isinstance(error, kind)), _SENTENCES[OSError])
    shown = _without_secrets(hub or constants.ENDPOINT)
    return sentence.format(source=source, revision=revision, error=line(error), hub=shown)


def line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(_NOISE.sub("", str(error)).split())[:_LONGEST]


def house_error(source: str, revision: str | None, error: Exception, hub: str | None = None) -> YapitError:
    """Return the error of this house for what the hub's client, or the disk, raises."""
    if isinstance(error, YapitError):
        return error
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return StorageFullError(f"The disk is full: there is no room for the weights of '{source}'.")
    said = refusal(source, revision, error, hub)
    known: YapitError
    match error:
        case GatedRepoError():
            known = ForbiddenError(said, code="gated_repository")
        case RevisionNotFoundError():
            known = NotFoundError(said, code="revision_not_found")
        case RepositoryNotFoundError():
            known = NotFoundError(said, code="repository_not_found")
        case OfflineModeIsEnabled():
            known = ConflictError(said, code="offline")
        case HfHubHTTPError():
            known = _of_status(said, error)
        case EntryNotFoundError():
            known = NotFoundError(said)
        case _ if isinstance(error, HTTPError):
            known = RemoteError(said, code="hub_unreachable")
        case _:
            known = BackendError(said, code="fetch_failed")
    known.__cause__ = error
    return known


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header, which may name a date; None without one."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _of_status(said: str, error: HfHubHTTPError) -> YapitError:
    status = error.response.status_code
    if status in (401, 403):
        # Not a 401: it is this server's token that is wrong, not the caller's key.
        return ForbiddenError(said, code="hub_refuses")
    if status in (404, 410):
        return NotFoundError(said)
    if status == 429:  # noqa: PLR2004 - too many requests
        return RateLimitError(said, retry_after_s=retry_after_s(error.response.headers.get("Retry-After")))
    return RemoteError(said, code="hub_refuses")


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
