"""A model's files on this machine: a folder, or a snapshot of the hub; no torch here."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # public too

from yapit import LoadError
from yapit.catalog import folder_of
from yapit.hub import HTTPError, is_repo_id
from yapit.hub import refusal as refused

_ANSWER_S = 5.0  # the hub may take for an answer
_TEXTS = ["*.json", "*.txt"]
_SAFE, _PICKLES, _CONVERTED = "*.safetensors", "pytorch_model*.bin", "model.bin"
# The same weights in another precision, or for other loaders.
_COPIES = ["*.fp16*", "*.fp32*", "flax_*", "onnx/*", "openvino/*"]
CONFIG = "config.json"


def fetched(source: str, revision: str | None, *, fetch: bool = True) -> Path:
    """Return the folder with a model's files, fetched from the hub if they are not here.

    Args:
        source: a folder or a repo id.
        revision: the newest when None.
        fetch: what is not here is fetched; else it is an error.

    Raises:
        LoadError: there are none, they may not be read, or the hub cannot be reached.
    """
    found = folder_of(source)
    if found is None:
        if not is_repo_id(source):
            raise LoadError(f"The source '{source}' is neither a folder nor the id of a repository.")
        found = _snapshot(source, revision, fetch=fetch)
    if not _has_weights(found):
        raise LoadError(f"The repository '{source}' has no weights of a Whisper.")
    return found


def config_of(source: str, revision: str | None) -> dict[str, Any]:
    """Return what `config.json` says; of a repository on the hub that small file alone is fetched.

    Raises:
        OSError, ValueError: there is none, or it cannot be read.
        HTTPError: the hub refuses, or cannot be reached.
    """
    folder = folder_of(source)
    path = folder / CONFIG if folder else Path(hf_hub_download(source, CONFIG, revision=revision, etag_timeout=5))
    found = json.loads(path.read_bytes())
    return found if isinstance(found, dict) else {}


def _snapshot(source: str, revision: str | None, *, fetch: bool) -> Path:
    refusal: Exception | None = None
    wanted = [*_TEXTS, _SAFE, _PICKLES, _CONVERTED]
    if fetch:
        try:
            files = HfApi().model_info(source, revision=revision, timeout=_ANSWER_S).siblings or ()
            wanted = _wanted([file.rfilename for file in files])
        except (OSError, HTTPError) as error:
            refusal = error  # it may be here all the same
    disable_progress_bars()
    try:
        path = snapshot_download(
            source,
            revision=revision,
            allow_patterns=wanted,
            ignore_patterns=_COPIES,
            etag_timeout=_ANSWER_S,
            local_files_only=not fetch or refusal is not None,
        )
    except LocalEntryNotFoundError as error:
        reason = refusal or error.__cause__ or error
        raise LoadError(refused(source, revision, reason)) from reason
    except (OSError, HTTPError) as error:
        raise LoadError(refused(source, revision, error)) from error
    return Path(path)


def _wanted(names: list[str]) -> list[str]:
    """Return what is fetched: the weights once."""
    if _CONVERTED in names:
        return [*_TEXTS, _CONVERTED]
    return [*_TEXTS, _SAFE if any(name.endswith(".safetensors") for name in names) else _PICKLES]


def _has_weights(folder: Path) -> bool:
    return any(True for pattern in (_CONVERTED, _SAFE, _PICKLES) for _ in folder.glob(pattern))
