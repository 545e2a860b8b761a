"""Vocoders: models that make sound of another model's spectrograms."""

from typing import Any

import msgspec
import torch

from yapit import Context
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import Options


def vocoder(loader: Loader, context: Context, kind: Any, source: str) -> Any:
    """Return the vocoder at `source`, a folder or a repo id, on the device of the loader's model.

    Raises:
        LoadError: it is not here and cannot be fetched, or is something else.
    """
    entry = msgspec.structs.replace(loader.model, source=source, revision=None)
    own = Loader(entry, context, Options(skip_download=loader.options.skip_download))
    return own.weights(kind, dtype=torch.float32)
