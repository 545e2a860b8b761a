"""The files of a Kokoro on this machine: a folder, or a snapshot that the hub's cache has; no torch here."""

import json
from pathlib import Path
from typing import Any

import structlog
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars, validate_repo_id  # type: ignore[attr-defined]  # public too

from yapit import LoadError, Model
from yapit_plugin_kokoro.describing import folder_of, is_kokoro

_log = structlog.get_logger(__name__)
_NEEDED = ["config.json", "*.pth", "voices/*.pt"]
_ANSWER_S = 5.0  # the hub may take for an answer
# What the hub's client raises: the class of httpx or of httpx2, whichever it is made with.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]


class Files:
    """The files of a model.

    Args:
        name: what the catalog calls the source.
        folder: where they are.

    Raises:
        LoadError: there is no configuration of a Kokoro, no weights, or no voice.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        try:
            self.config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            raise LoadError(f"The file 'config.json' of '{name}' cannot be read: {_line(error)}") from error
        if not is_kokoro(self.config):
            raise LoadError(f"The repository '{name}' is no Kokoro: its 'config.json' says nothing of one.")
        weights = sorted(folder.glob("*.pth"), key=lambda path: (not path.name.startswith("kokoro"), path.name))
        if not weights:
            raise LoadError(f"The repository '{name}' has no weights: expected a file such as 'kokoro-v1_0.pth'.")
        self.weights = weights[0]
        self.voices = {path.stem: path for path in sorted((folder / "voices").glob("*.pt"))}
        if not self.voices:
            raise LoadError(f"The repository '{name}' has no voices: expected files such as 'voices/af_heart.pt'.")

    @classmethod
    def of(cls, model: Model, *, fetch: bool = True) -> "Files":
        """Return the model's files, fetched from the hub if they are not here and may be.

        Raises:
            LoadError: they are not here and cannot be fetched.
        """
        source = model.source or model.id
        return cls(source, folder_of(source) or _snapshot(source, model.revision, fetch=fetch))


def _snapshot(source: str, revision: str | None, *, fetch: bool) -> Path:
    try:
        validate_repo_id(source)
    except HFValidationError:
        message = f"The source '{source}' is neither a folder nor the id of a repository."
        raise LoadError(message) from None
    disable_progress_bars()
    refusal: Exception | None = None
    if fetch:
        try:
            # Asks once, while the download tries for half a minute.
            HfApi().model_info(source, revision=revision, timeout=_ANSWER_S)
        except (OSError, _HTTPError) as error:
            refusal = error  # it may be here all the same
    here_only = refusal is not None or not fetch
    try:
        path = snapshot_download(
            source, revision=revision, allow_patterns=_NEEDED, etag_timeout=_ANSWER_S, local_files_only=here_only
        )
    except (OSError, _HTTPError) as error:
        reason = refusal or error
        _log.info("weights_missing", source=source, reason=_line(reason))
        raise LoadError(_sentence(source, revision, reason)) from error
    return Path(path)


# What a person is told, by the first class that fits.
_SENTENCES: dict[type[BaseException], str] = {
    GatedRepoError: "The repository '{source}' is gated: accept its terms on the hub, and set HF_TOKEN.",
    RevisionNotFoundError: "The repository '{source}' has no revision '{revision}'.",
    RepositoryNotFoundError: "The hub has no repository '{source}', or HF_TOKEN does not allow to read it.",
    OfflineModeIsEnabled: "The weights of '{source}' are not on this machine, and offline mode (HF_HUB_OFFLINE) is on.",
    LocalEntryNotFoundError: "The weights of '{source}' are not on this machine, and must not be fetched.",
    HfHubHTTPError: "The weights of '{source}' are not on this machine, and the hub refuses them: {error}",
    _HTTPError: "The weights of '{source}' are not on this machine, and the hub at {hub} cannot be reached.",
    OSError: "The repository '{source}' cannot be fetched: {error}",
}


def _sentence(source: str, revision: str | None, error: BaseException) -> str:
    sentence = next((text for kind, text in _SENTENCES.items() if isinstance(error, kind)), _SENTENCES[OSError])
    return sentence.format(source=source, revision=revision, error=_line(error), hub=constants.ENDPOINT)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
