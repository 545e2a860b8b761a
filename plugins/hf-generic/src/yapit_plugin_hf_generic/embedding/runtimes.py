"""What computes the vectors of tokens: torch here, others beside it."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from yapit_plugin_hf_generic.embedding.reading import Array


class Runtime(ABC):
    """A transformer that can be asked.

    Args:
        name: for people.
        precision: it computes in.
    """

    def __init__(self, name: str, precision: str) -> None:
        self.name = name
        self.precision = precision

    @abstractmethod
    def hidden(self, ids: Array, mask: Array) -> Tensor:
        """Return the vectors of all tokens, texts by tokens by width; they stay as they are until the next call."""


class TorchRuntime(Runtime):
    """A transformer in torch, on any device."""

    def __init__(self, model: Any) -> None:
        super().__init__("torch", str(model.dtype).removeprefix("torch."))
        self._model = model

    def hidden(self, ids: Array, mask: Array) -> Tensor:
        """Return the vectors of all tokens."""
        device = self._model.device
        with torch.inference_mode():
            return last_hidden(self._model, torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))


def last_hidden(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Return what the last layer says; a repository's own code may answer with a tuple."""
    found = model(input_ids=ids, attention_mask=mask)
    hidden: Tensor = found[0] if isinstance(found, tuple) else found.last_hidden_state
    return hidden
