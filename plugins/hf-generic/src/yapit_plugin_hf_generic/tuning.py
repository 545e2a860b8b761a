"""Options with which a model may be faster on this machine; whoever tries them measures that. No torch here."""

import os
from typing import Any

from yapit import Model

_EMBED = (
    {"runtime": "openvino", "precision": "bfloat16"},
    {"runtime": "openvino", "precision": "float32"},
    {"runtime": "openvino", "precision": "int8"},
    {"runtime": "torch", "precision": "bfloat16"},
    {"runtime": "torch", "precision": "float32"},
)
_OTHERS = ({"dtype": "bfloat16"}, {"dtype": "float16"}, {"dtype": "float32"}, {"attn_implementation": "sdpa"})


def offers(model: Model) -> list[dict[str, Any]]:
    """Return what may be tried; answers to a model that speaks cannot be compared, so that nothing is for one."""
    if not {"embed", "rerank", "classify", "generate", "transcribe"} & set(model.tasks):
        return []
    tried = _EMBED if model.tasks == ("embed",) else _OTHERS
    halves = (os.cpu_count() or 1) // 2
    return [*map(dict, tried), *([{"threads": halves}] if halves > 1 else [])]
