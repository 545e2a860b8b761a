"""State dicts: read as tensors and nothing else."""

from pathlib import Path
from typing import Any

import torch

from yapit import Context, LoadError, Model
from yapit.catalog import folder_of
from yapit.weights import file_of, is_url
from yapit_plugin_hf_generic.loading import refuse
from yapit_plugin_hf_generic.vision.architectures import state_dicts

_WRAPPERS = ("state_dict", "model_state_dict", "model", "weights")
_PREFIX = "module."  # of what was trained on several GPUs


def place_of(model: Model, context: Context) -> Path:
    """Return the file with a model's weights.

    Raises:
        LoadError: it is not here, or nobody can tell which of several it is.
    """
    source = model.source or model.id
    folder = folder_of(source)
    if folder is not None:
        first, *others = state_dicts(folder)
        if any(other.suffix == first.suffix for other in others):
            raise LoadError(f"The folder '{source}' has several files of weights; name one of them as the source.")
        return first
    path = file_of(source, context.data_dir) if is_url(source) else Path(source).expanduser()
    if not path.is_file():
        raise LoadError(f"The weights of '{model.id}' are not on this machine; fetch them with: yapit pull {model.id}")
    return path


def tensors_of(model: Model, path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, a pickle read with `weights_only`.

    Raises:
        LoadError: it is none, or a pickle that holds code, which is not run.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - whatever a library raises, the person reads one sentence
        refuse(model.id, path.name, path.parent, error)
    found = next((found[name] for name in _WRAPPERS if isinstance(found, dict) and _is_dict(found.get(name))), found)
    if not _is_dict(found):
        raise LoadError(f"The file '{path.name}' of '{model.id}' is no state dict: it does not hold tensors by name.")
    return {name.removeprefix(_PREFIX): tensor for name, tensor in found.items()}


def _is_dict(found: object) -> bool:
    return (
        isinstance(found, dict)
        and bool(found)
        and all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items())
    )
