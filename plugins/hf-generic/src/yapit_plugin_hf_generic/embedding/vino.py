"""A transformer in OpenVINO: the fastest there is for vectors on a CPU."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from yapit_plugin_hf_generic.embedding.reading import Array
from yapit_plugin_hf_generic.embedding.runtimes import Runtime, last_hidden

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}
_TRACED = "yapit_traced_sdpa"
_STEPS = 127  # of an int8, on each side


class VinoRuntime(Runtime):
    """A transformer in OpenVINO.

    Args:
        graph: the transformer, or the file it is in.
        precision: to compute in.
        threads: that compute.
    """

    def __init__(self, graph: Any, precision: str, threads: int) -> None:
        super().__init__("openvino", precision)
        self._core = openvino.Core()
        native = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision] if native else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # Other models are on the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        if precision == "int8":
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 32
        self._request = self._core.compile_model(graph, "CPU", settings).create_infer_request()

    def hidden(self, ids: Array, mask: Array) -> Tensor:
        """Return the vectors of all tokens, in OpenVINO's own memory."""
        found = self._request.infer([ids, mask], share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0])


class _Hidden(nn.Module):  # type: ignore[misc] # torch is not read for its types
    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return last_hidden(self._model, input_ids, attention_mask)


def converted(model: Any, ids: Array, mask: Array, *, int8: bool = False) -> Any:
    """Return a model of torch as a graph of OpenVINO, which shares its weights.

    Args:
        model: in float32, on the CPU.
        ids: an example with padding; other sizes will do as well.
        mask: of the example.
        int8: the weights of the layers are rounded to int8, each output by a scale of its own.
    """
    example = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    with warnings.catch_warnings(), _plain_masks(model):
        warnings.simplefilter("ignore")  # tracing warns of itself, and of each size that it may have taken for fixed
        # Not by `convert_model`: that tells its makers of each conversion over the network.
        decoder = TorchScriptPythonDecoder(_Hidden(model), example_input=example)
        frontend = FrontEndManager().load_by_framework("pytorch")
        graph = frontend.convert(frontend.load(decoder))
    if int8:
        _round_weights(graph)
    return graph


def write(graph: Any, path: Path, precision: str) -> None:
    """Write a graph; it is read as it lies there, and what is not used takes no memory."""
    # In float16 it takes half of the memory; what bfloat16 keeps of a weight is not lost.
    openvino.save_model(graph, path, compress_to_fp16=precision != "float32")


@contextmanager
def _plain_masks(model: Any) -> Iterator[None]:
    """Let the masks of attention be such as OpenVINO can compute with, while a model is traced."""
    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        yield
        return
    AttentionInterface.register(_TRACED, sdpa_attention_forward)
    AttentionMaskInterface.register(_TRACED, _mask)
    model.set_attn_implementation(_TRACED)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def _mask(*given: Any, **named: Any) -> Tensor | None:
    """Make a mask by broadcasting, since nothing can trace `vmap`, and without rows that see nothing.

    Such are those of padding; the softmax of nothing is no number, and in the next layer it would be everywhere.
    """
    mask: Tensor | None = sdpa_mask(*given, **named | {"use_vmap": False})
    return None if mask is None else mask | ~mask.any(-1, keepdim=True)


def _round_weights(graph: Any) -> None:
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source = node.input_value(1).get_node()
        if source.get_type_name() != "Constant" or len(source.shape) != 2:  # noqa: PLR2004 - a matrix
            continue
        weights = source.data.astype(np.float32)
        inputs = 1 if node.get_attributes()["transpose_b"] else 0
        scale = np.maximum(np.abs(weights).max(axis=inputs, keepdims=True), np.finfo(np.float32).tiny) / _STEPS
        rounded = ops.constant(np.round(weights / scale).astype(np.int8))
        product = ops.multiply(ops.convert(rounded, "f32"), ops.constant(scale.astype(np.float32)))
        node.input(1).replace_source_output(product.output(0))
