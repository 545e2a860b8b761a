"""What plugins share that fetch from the Hugging Face hub: its ids, its errors, and what a person is told of them.

It needs huggingface_hub, which those plugins bring; nothing in the core imports it.
"""

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public too

_LONGEST = 200  # characters of what an error says
# What the hub's client raises: the class of httpx or of httpx2, whichever it is made with.
HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
# What a person is told, by the first class that fits.
_SENTENCES: dict[type[Exception], str] = {
    GatedRepoError: "The repository '{source}' is gated: accept its terms on the hub, and set HF_TOKEN.",
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


def refusal(source: str, revision: str | None, error: BaseException) -> str:
    """Return what a person is told when a repository cannot be had."""
    sentence = next((text for kind, text in _SENTENCES.items() if isinstance(error, kind)), _SENTENCES[OSError])
    return sentence.format(source=source, revision=revision, error=line(error), hub=constants.ENDPOINT)


def line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())[:_LONGEST]
