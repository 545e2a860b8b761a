"""The files of a Kokoro on this machine: a folder, or a snapshot that the hub's cache has; no torch here."""

import json
from pathlib import Path
from typing import Any

import structlog
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # public too

from yapit import LoadError, Model
from yapit.catalog import folder_of
from yapit.hub import HTTPError, is_repo_id, line
from yapit.hub import refusal as refused
from yapit_plugin_kokoro.describing import is_kokoro

_log = structlog.get_logger(__name__)
_NEEDED = ["config.json", "*.pth", "voices/*.pt"]
_ANSWER_S = 5.0  # the hub may take for an answer


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
            raise LoadError(f"The file 'config.json' of '{name}' cannot be read: {line(error)}") from error
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
    if not is_repo_id(source):
        raise LoadError(f"The source '{source}' is neither a folder nor the id of a repository.")
    disable_progress_bars()
    refusal: Exception | None = None
    if fetch:
        try:
            # Asks once, while the download tries for half a minute.
            HfApi().model_info(source, revision=revision, timeout=_ANSWER_S)
        except (OSError, HTTPError) as error:
            refusal = error  # it may be here all the same
    here_only = refusal is not None or not fetch
    try:
        path = snapshot_download(
            source, revision=revision, allow_patterns=_NEEDED, etag_timeout=_ANSWER_S, local_files_only=here_only
        )
    except (OSError, HTTPError) as error:
        reason = refusal or error
        _log.info("weights_missing", source=source, reason=line(reason))
        raise LoadError(refused(source, revision, reason)) from error
    return Path(path)
