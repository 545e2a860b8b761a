"""The Hugging Face hub: what of a repository is fetched, how long that may take, and what is said if it fails."""

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import structlog
from huggingface_hub import (
    HfApi,
    get_cached_repo_tree,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # public too

from yapit import LoadError
from yapit.hub import HTTPError, is_repo_id, line
from yapit.hub import refusal as refused

Kind = Literal["model", "dataset"]
_log = structlog.get_logger(__name__)
_ANSWER_S = 5.0  # the hub may take for an answer; later calls try again for half a minute
# What other software reads, and copies of the weights in other forms.
_NEVER = ("*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.gguf", "*.tflite", "*.mlmodel", "*.mlpackage/*")
_NEVER_FOLDERS = ("onnx/*", "openvino/*", "coreml/*", "original/*", "metal/*", "gguf/*")
_SAFE = ".safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# The same weights once more, for other loaders or in another precision.
_COPIES = ("consolidated*.safetensors", "*.fp16.*", "*.fp16-*", "*.fp32.*", "*.fp32-*")


def small_files(source: str, revision: str | None, wanted: Sequence[str]) -> Mapping[str, bytes]:
    """Return the files that say what a repository is, as the hub has them; from its cache if it cannot be reached."""
    try:
        there = _names(source, revision, "model")
    except (OSError, HTTPError) as error:
        cached = {name: try_to_load_from_cache(source, name, revision=revision) for name in wanted}
        found = {name: Path(path).read_bytes() for name, path in cached.items() if isinstance(path, str)}
        if not found:
            raise
        _log.info("hub_unreachable", source=source, reason=line(error))
        return found
    names = [name for name in wanted if name in there]
    paths = [hf_hub_download(source, name, revision=revision, etag_timeout=_ANSWER_S) for name in names]
    return {name: Path(path).read_bytes() for name, path in zip(names, paths, strict=True)}


def snapshot(source: str, revision: str | None, kind: Kind, *, fetch: bool) -> Path:
    """Return the folder of the hub's cache with what transformers needs of a repository.

    Args:
        source: its id.
        revision: the newest when None.
        kind: of the repository.
        fetch: what is not here is fetched; else it is an error.

    Raises:
        LoadError: it is not here and cannot be fetched, or has no weights.
    """
    if not is_repo_id(source):
        raise LoadError(f"The source '{source}' is neither a folder nor the id of a repository.")
    names: list[str] | None = None
    refusal: Exception | None = None
    if fetch:
        try:
            names = _names(source, revision, kind)
        except (OSError, HTTPError) as error:
            refusal = error  # it may be here all the same
    try:
        found = _fetched(source, revision, kind, names)
    except LocalEntryNotFoundError as error:
        reason = refusal or error.__cause__ or error
        raise LoadError(refused(source, revision, reason)) from reason
    except (OSError, HTTPError) as error:
        raise LoadError(refused(source, revision, error)) from error
    if kind == "model" and not _has_weights(found):
        if refusal is not None:
            raise LoadError(refused(source, revision, refusal)) from refusal
        raise LoadError(f"The repository '{source}' has no weights that transformers can load.")
    return found


def _names(source: str, revision: str | None, kind: Kind) -> list[str]:
    """Return the names of a repository's files; asks the hub once, while most calls of its client try for long."""
    api = HfApi()
    ask = api.dataset_info if kind == "dataset" else api.model_info
    return [file.rfilename for file in ask(source, revision=revision, timeout=_ANSWER_S).siblings or ()]


def _fetched(source: str, revision: str | None, kind: Kind, names: list[str] | None) -> Path:
    """Return the snapshot, complete; from the cache alone if `names` is None."""
    ignored = [*_NEVER, *_NEVER_FOLDERS]
    if kind == "model":
        ignored += map(glob.escape, _superfluous(_cached_names(source, revision) if names is None else names))
    disable_progress_bars()
    path = snapshot_download(
        source,
        revision=revision,
        repo_type=kind,
        ignore_patterns=ignored,
        etag_timeout=_ANSWER_S,
        local_files_only=names is None,
    )
    return Path(path)


def _cached_names(source: str, revision: str | None) -> list[str]:
    """Return the names of a repository's files, those that were not fetched too, as the cache has them."""
    try:
        return [file.path for file in get_cached_repo_tree(source, revision=revision)]
    except CachedRepoTreeNotFoundError:  # then nobody can tell whether the snapshot is complete
        return []


def _superfluous(names: Iterable[str]) -> list[str]:
    """Return the weights that are not needed: in each folder the pickles beside safe weights, and copies."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    return [name for files in folders.values() for name in _superfluous_here(files)]


def _superfluous_here(names: list[str]) -> list[str]:
    safe = [name for name in names if name.endswith(_SAFE)]
    copies = [name for name in safe if any(PurePosixPath(name).match(pattern) for pattern in _COPIES)]
    if len(copies) < len(safe):
        return copies + [name for name in names if name.endswith(_PICKLES)]
    if any(PurePosixPath(name).name.startswith("pytorch_model") for name in names):
        # Bark's repositories have four times their weights in its author's own form.
        return [name for name in names if name.endswith(_PICKLES[1:])]
    return []


def _has_weights(folder: Path) -> bool:
    return any(path.name.endswith((_SAFE, *_PICKLES)) for path in folder.rglob("*"))
