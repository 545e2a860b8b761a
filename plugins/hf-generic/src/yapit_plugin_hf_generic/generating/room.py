"""How many tokens the cache of keys and values may hold, by the memory that is free."""

from typing import Any

import psutil
import torch

from yapit_plugin_hf_generic.generating.batching import Room
from yapit_plugin_hf_generic.generating.options import GenerateOptions

_SHARE = {"cpu": 0.25, "cuda": 0.5}  # of the free memory at most
_USUAL = 4096  # tokens that an answer and its prompt have, mostly
_STEP = {"cpu": 256, "cuda": 4096}


def room(model: Any, options: GenerateOptions, context: int) -> Room:
    """Return the room for a model's answers.

    Args:
        model: loaded.
        options: what its entry says.
        context: tokens it can read.
    """
    kind = model.device.type
    wanted = options.kv_cache_tokens or max(context, options.max_batch_size * min(context, _USUAL))
    step = options.step_tokens or _STEP.get(kind, _STEP["cpu"])
    # Each is also a column of the mask of what a step reads.
    each = token_bytes(model) + step * model.dtype.itemsize
    fits = int(_free(model.device) * _SHARE.get(kind, _SHARE["cpu"])) // each
    return Room(answers=options.max_batch_size, cache_tokens=max(1, min(wanted, fits)), step_tokens=step)


def token_bytes(model: Any) -> int:
    """Return what the keys and values of one token take in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size: int = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    return size


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
