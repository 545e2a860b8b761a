"""Which of a repository's files hold the weights, once."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

# What other software reads, and copies of the weights in other forms.
_NEVER = (".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".gguf", ".tflite", ".mlmodel")
_NEVER_FOLDERS = ("onnx", "openvino", "coreml", "original", "metal", "gguf")
_SAFE = ".safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# The same weights once more, for other loaders or in another precision.
_COPIES = ("consolidated*.safetensors", "*.fp16.*", "*.fp16-*", "*.fp32.*", "*.fp32-*")


def without_foreign(names: Iterable[str]) -> list[str]:
    """Return the files that are not for other software only."""
    return [name for name in names if not _is_foreign(name)]


def without_copies(names: Iterable[str]) -> list[str]:
    """Return the files that a library needs which loads safetensors, or pickles where there are none.

    Left out are, in each folder, the pickles beside safetensors and the same weights in other precisions, and whatever
    other software reads.
    """
    kept = without_foreign(names)
    superfluous = set(_superfluous(kept))
    return [name for name in kept if name not in superfluous]


def holds_weights(names: Iterable[str]) -> bool:
    """Tell whether there are weights among the files."""
    return any(name.endswith((_SAFE, *_PICKLES)) for name in names)


def _is_foreign(name: str) -> bool:
    folders = name.split("/")[:-1]
    return (
        name.endswith(_NEVER)
        or (bool(folders) and folders[0] in _NEVER_FOLDERS)
        or any(folder.endswith(".mlpackage") for folder in folders)
    )


def _superfluous(names: Sequence[str]) -> list[str]:
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
