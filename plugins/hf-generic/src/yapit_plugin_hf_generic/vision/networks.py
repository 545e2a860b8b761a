"""Networks by the names of torchvision: as transformers has them, as torchvision has, or by code of torch's hub."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from huggingface_hub import is_offline_mode
from torch import Tensor, nn

from yapit import Context, LoadError, Model
from yapit.errors import did_you_mean
from yapit_plugin_hf_generic.options import settings_of
from yapit_plugin_hf_generic.vision.architectures import architectures

_RESNETS: dict[str, tuple[str, list[int]]] = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
    "resnet152": ("bottleneck", [3, 8, 36, 3]),
}
_WIDTHS = [64, 128, 256, 512]
# A revision is a must: what runs shall not change by itself.
_CODE = re.compile(r"[\w.-]+/[\w.-]+:[\w./-]+")
_PARTS = {"conv": "convolution", "bn": "normalization"}
_LAYER = re.compile(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(.+)")
_SHORTCUT = re.compile(r"layer(\d)\.(\d+)\.downsample\.([01])\.(.+)")


class Network(nn.Module):  # type: ignore[misc]  # the types of torch are not read
    """A network that answers as a model of transformers does.

    Args:
        network: from pixels to the scores of its classes, as they are or as `logits`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.config: Any = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """In which precision."""
        return next(self.parameters()).dtype

    def forward(self, pixel_values: Tensor) -> Any:
        """Return the scores as `logits`."""
        found = self.network(pixel_values)
        return SimpleNamespace(logits=getattr(found, "logits", found))


def network_of(name: str, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the network of an architecture with these tensors.

    Raises:
        LoadError: there is no such architecture here, or the tensors are another one's.
    """
    if name in _RESNETS:
        network, tensors = _resnet(name, tensors)
    else:
        network = _of_torchvision(name, tensors)
    fill(name, network, tensors)
    return network


def _of_torchvision(name: str, tensors: Mapping[str, Tensor]) -> nn.Module:
    try:
        from torchvision import models  # type: ignore[import-not-found]  # for some networks only
    except (ImportError, RuntimeError) as error:  # it raises the latter beside a torch that it was not built for
        raise LoadError(
            f"The architecture '{name}' needs torchvision, in the version and build for this torch; "
            "try: pip install torchvision"
        ) from error
    if name not in models.list_models(module=models) or name not in architectures():
        raise LoadError(f"There is no architecture '{name}'. {did_you_mean(name, [*architectures()])}".rstrip())
    network: nn.Module = models.get_model(name, weights=None)
    last = [*network.state_dict()][-1]  # of the layer that has a row for each class
    if last in tensors and tensors[last].shape[0] != network.state_dict()[last].shape[0]:
        network = models.get_model(name, weights=None, num_classes=tensors[last].shape[0])
    return network


def network_of_code(model: Model, context: Context, name: str, code: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return the network that a repository's own `hubconf.py` makes; only code that the settings list is run.

    Args:
        model: that it is for.
        context: the plugin's settings, and where code is kept.
        name: of the function in that file.
        code: `owner/repository:revision`, or a folder.
        arguments: of the function.

    Raises:
        LoadError: the code is not on the list, cannot be had, or fails.
    """
    if code not in settings_of(context).hub_code:
        raise LoadError(
            f"The model '{model.id}' is made by the code of '{code}', which may do anything; to let it run, read it, "
            "and name it in plugin_settings.hf-generic.hub_code."
        )
    local = Path(code).is_absolute()
    if not local and not _CODE.fullmatch(code):
        raise LoadError(f"The code '{code}' is neither 'owner/repository:revision' nor the path of a folder.")
    kept = (context.data_dir / "hub_code").absolute()
    if not local and is_offline_mode() and not (kept / _folder(code)).is_dir():
        raise LoadError(f"The code '{code}' is not on this machine, and offline mode (HF_HUB_OFFLINE) is on.")
    how = {"source": "local"} if local else {"source": "github", "trust_repo": True, "skip_validation": True}
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(kept))
    try:
        found = torch.hub.load(code, name, verbose=False, **how, **arguments)
    except Exception as error:
        message = f"The code of '{code}' does not make '{name}' ({type(error).__name__}: {error})"
        raise LoadError(" ".join(message.split())) from error
    finally:
        torch.hub.set_dir(before)
    if not isinstance(found, nn.Module):
        raise LoadError(f"The code of '{code}' makes no network of '{name}'.")
    return found


def fill(name: str, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into a network.

    Raises:
        LoadError: they are another one's.
    """
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise LoadError(f"The weights are not those of a '{name}': {reason}") from error


def _folder(code: str) -> str:
    """Return what torch's hub calls the folder of a repository's code."""
    repository, _, revision = code.partition(":")
    return f"{repository.replace('/', '_')}_{revision.replace('/', '_')}"


def _resnet(name: str, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    kind, depths = _RESNETS[name]
    wide = 4 if kind == "bottleneck" else 1
    last = tensors.get("fc.weight")
    if last is None:
        raise LoadError(f"The weights are not those of a '{name}': there is no 'fc.weight'.")
    config = transformers.ResNetConfig(
        layer_type=kind, depths=depths, hidden_sizes=[width * wide for width in _WIDTHS], num_labels=last.shape[0]
    )
    renamed = {_renamed(each): tensor for each, tensor in tensors.items()}
    return transformers.ResNetForImageClassification(config), renamed


def _renamed(name: str) -> str:
    """Return what transformers calls a tensor of torchvision's ResNet."""
    if match := _LAYER.fullmatch(name):
        stage, block, part, number, rest = match.groups()
        inner = f"layer.{int(number) - 1}.{_PARTS[part]}.{rest}"
        return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.{inner}"
    if match := _SHORTCUT.fullmatch(name):
        stage, block, part, rest = match.groups()
        inner = f"shortcut.{_PARTS['conv' if part == '0' else 'bn']}.{rest}"
        return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.{inner}"
    head, _, rest = name.partition(".")
    stem = {"conv1": "convolution", "bn1": "normalization"}.get(head)
    if stem is not None:
        return f"resnet.embedder.embedder.{stem}.{rest}"
    return f"classifier.1.{rest}" if head == "fc" else name
