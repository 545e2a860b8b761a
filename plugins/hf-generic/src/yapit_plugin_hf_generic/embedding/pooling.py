"""From the vectors of a text's tokens to its one vector, always in float32: in bfloat16 much of it would be lost."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from yapit import LoadError
from yapit_plugin_hf_generic.embedding.layout import Layout, Pooling
from yapit_plugin_hf_generic.repositories import Repository

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.GELU, nn.ReLU, nn.SiLU, nn.Sigmoid)
}


class Finish:
    """What comes after the transformer: pooling, further layers, normalising.

    Args:
        repository: of the model, for the weights of the layers.
        layout: what there is.
        device: where the model is.

    Raises:
        LoadError: a layer cannot be read.
    """

    def __init__(self, repository: Repository, layout: Layout, device: torch.device) -> None:
        self._poolings = layout.poolings
        self._normalize = layout.normalize
        self._dense = [_dense(repository, folder, device) for folder in layout.dense]

    def __call__(
        self, hidden: Tensor, mask: Tensor, dimensions: int | None = None, skip: Sequence[int] | None = None
    ) -> Tensor:
        """Return the vectors of texts as float32.

        Args:
            hidden: of all tokens: texts by tokens by width.
            mask: 1 where there is a token, 0 where there is padding.
            dimensions: what is left of them.
            skip: how many tokens at the beginning of each text are not pooled.
        """
        mask = mask.to(hidden.device).bool()
        if skip is not None:
            mask = mask & (mask.cumsum(1) > torch.tensor(skip, device=mask.device).unsqueeze(1))
        vectors = pool(hidden, mask, self._poolings)
        for layer in self._dense:
            vectors = layer(vectors)
        # What is cut off before the length is made 1 need not be cut off with another normalising.
        vectors = vectors[:, :dimensions]
        return normalize(vectors, dim=1) if self._normalize else vectors


def pool(hidden: Tensor, mask: Tensor, poolings: Sequence[Pooling]) -> Tensor:
    """Return one float32 vector for each text; those of several poolings are joined."""
    found = [_POOLS[name](hidden, mask) for name in poolings]
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _cls(hidden: Tensor, mask: Tensor) -> Tensor:
    return _at(hidden, mask.int().argmax(1))


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    return _at(hidden, mask.shape[1] - 1 - mask.flip(1).int().argmax(1))


def _at(hidden: Tensor, places: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), places].float()


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.float().masked_fill(~mask.unsqueeze(2), -torch.inf).amax(1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.float()
    return _sum(hidden, mask, weights / _count(weights))


def _mean_sqrt_len(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.float()
    return _sum(hidden, mask, weights / _count(weights).sqrt())


def _weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Count later tokens for more."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device) - mask.int().argmax(1, keepdim=True)
    weights = mask * places.float()
    return _sum(hidden, mask, weights / _count(weights))


def _count(weights: Tensor) -> Tensor:
    return weights.sum(1, keepdim=True).clamp(min=1e-9)


def _sum(hidden: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums; what stands in the padding does not matter, though it be no number."""
    hidden = hidden.float()
    if not mask.all():
        hidden = hidden.masked_fill(~mask.unsqueeze(2), 0)
    return torch.bmm(weights.unsqueeze(1), hidden).squeeze(1)


_POOLS = {
    "mean": _mean,
    "cls": _cls,
    "last_token": _last,
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
}


class _DenseConfig(msgspec.Struct, frozen=True):
    """The `config.json` of a layer."""

    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False
    module_input_name: str = "sentence_embedding"
    module_output_name: str | None = None


class _Dense:
    """A linear layer, its activation, and the way around it."""

    def __init__(self, config: _DenseConfig, weights: dict[str, Tensor], device: torch.device) -> None:
        placed = {name: tensor.to(device, torch.float32) for name, tensor in weights.items()}
        self._weight = placed["linear.weight"]
        self._bias = placed["linear.bias"] if config.bias else None
        self._activation = _ACTIVATIONS[config.activation_function.rpartition(".")[2]]()
        self._around = config.use_residual
        self._residual = placed.get("residual.weight")

    def __call__(self, vectors: Tensor) -> Tensor:
        found: Tensor = self._activation(linear(vectors, self._weight, self._bias))
        if not self._around:
            return found
        return found + (vectors if self._residual is None else linear(vectors, self._residual))


def _dense(repository: Repository, folder: str, device: torch.device) -> _Dense:
    try:
        config = msgspec.convert(repository.json(f"{folder}/config.json"), _DenseConfig)
    except msgspec.ValidationError as error:
        raise LoadError(f"The layer '{folder}' of '{repository.name}' cannot be read: {error}") from error
    places = {config.module_input_name, config.module_output_name or config.module_input_name}
    if config.activation_function.rpartition(".")[2] not in _ACTIVATIONS or places != {"sentence_embedding"}:
        raise LoadError(f"The layer '{folder}' of '{repository.name}' is of a kind that is not supported.")
    try:
        return _Dense(config, _weights(repository.folder / folder), device)
    except (OSError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise LoadError(f"The layer '{folder}' of '{repository.name}' cannot be read: {reason}") from error


def _weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    found: dict[str, Tensor]
    if path.is_file():
        found = load_file(path)
    else:
        found = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return found
