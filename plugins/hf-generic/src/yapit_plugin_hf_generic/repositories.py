"""A model's repository on this machine: a folder, the hub's cache, or a snapshot fetched into it; no torch here."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from yapit import LoadError, Model
from yapit_plugin_hf_generic.describing import Evidence, describe_files

_log = structlog.get_logger(__name__)
_DESCRIBING = ("config.json", "README.md", "modules.json", "preprocessor_config.json", "generation_config.json")
# What other software reads, and copies of the weights in other forms.
_NEVER = ("*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.gguf", "*.tflite", "*.mlmodel", "*.mlpackage/*")
_NEVER_FOLDERS = ("onnx/*", "openvino/*", "coreml/*", "original/*", "metal/*", "gguf/*")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class Repository:
    """The files of a model on this machine.

    Args:
        name: what the catalog calls the source.
        folder: where they are.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    @classmethod
    def of(cls, model: Model, *, fetch: bool = True) -> "Repository":
        """Return the model's repository, fetched from the hub if it is not here.

        Raises:
            LoadError: there is none, it may not be read, or the hub cannot be reached.
        """
        return cls.at(model.source or model.id, model.revision, fetch=fetch)

    @classmethod
    def at(cls, source: str, revision: str | None = None, *, fetch: bool = True) -> "Repository":
        """Return the repository of a folder or of a repo id; raises as `of`."""
        folder = Path(source).expanduser()
        if folder.is_dir():
            return cls(source, folder)
        return cls(source, _snapshot(source, revision, fetch=fetch))

    @cached_property
    def config(self) -> dict[str, Any]:
        """What `config.json` says; empty without one."""
        return self.json("config.json") or {}

    def json(self, name: str) -> Any:
        """Return what a JSON file says, None if there is no such file.

        Raises:
            LoadError: it is no JSON.
        """
        path = self.folder / name
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise LoadError(f"The file '{name}' of '{self.name}' cannot be read: {error}") from error


def describe(source: str, revision: str | None) -> dict[str, Any]:
    """Return what a catalog can say of a model before it is loaded: `tasks` above all.

    Only small files are read; those of a repository that is not here are asked of the hub. `tasks` is empty where
    nothing can be found out.
    """
    folder = Path(source).expanduser()
    try:
        found = _files_here(folder) if folder.is_dir() else _files_of_hub(source, revision)
    except (OSError, ValueError) as error:
        _log.warning("model_unknown", source=source, reason=" ".join(str(error).split())[:200])
        return {"tasks": []}
    return describe_files(source, Evidence.of(found))


def _files_here(folder: Path) -> Mapping[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _DESCRIBING if (folder / name).is_file()}


def _files_of_hub(source: str, revision: str | None) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for name in _DESCRIBING:
        try:
            path = hf_hub_download(source, name, revision=revision, etag_timeout=5)
        except LocalEntryNotFoundError:
            if not found and name == _DESCRIBING[0]:
                raise
        except EntryNotFoundError:
            continue
        else:
            found[name] = Path(path).read_bytes()
    return found


def _snapshot(source: str, revision: str | None, *, fetch: bool) -> Path:
    """Return the folder of the hub's cache with what transformers needs of a repository."""
    offline = constants.HF_HUB_OFFLINE or not fetch
    try:
        ignored = [*_NEVER, *_NEVER_FOLDERS]
        if not offline and _has_safetensors(source, revision):
            ignored += _PICKLES
        return Path(snapshot_download(source, revision=revision, ignore_patterns=ignored, local_files_only=offline))
    except HFValidationError as error:
        raise LoadError(f"The source '{source}' is neither a folder nor the id of a repository.") from error
    except GatedRepoError as error:
        message = f"The repository '{source}' is gated: accept its terms on the hub, and set HF_TOKEN."
        raise LoadError(message) from error
    except RevisionNotFoundError as error:
        raise LoadError(f"The repository '{source}' has no revision '{revision}'.") from error
    except RepositoryNotFoundError as error:
        message = f"The hub has no repository '{source}', or HF_TOKEN does not allow to read it."
        raise LoadError(message) from error
    except LocalEntryNotFoundError as error:
        why = "offline mode is on" if offline else "the hub cannot be reached"
        raise LoadError(f"The weights of '{source}' are not on this machine, and {why}.") from error
    except OSError as error:
        raise LoadError(f"The repository '{source}' cannot be fetched: {error}") from error


def _has_safetensors(source: str, revision: str | None) -> bool:
    """Tell whether the weights are there in the safe form; if so, no pickle is fetched."""
    try:
        names = HfApi().list_repo_files(source, revision=revision)
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except OSError:
        return False  # the snapshot will say what is wrong, or has it
    return any(name.endswith(".safetensors") and "/" not in name for name in names)
