import pytest

from yapit.hub import holds_weights, without_copies, without_foreign

TEXTS = ["README.md", "config.json", "tokenizer.json"]
SAFE = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
FOREIGN = [
    "tf_model.h5",
    "flax_model.msgpack",
    "model.onnx",
    "model.onnx_data",
    "rust_model.ot",
    "model.gguf",
    "model.tflite",
    "onnx/config.json",
    "openvino/openvino_model.bin",
    "original/consolidated.00.pth",
    "coreml/text.mlpackage/Data/weights.json",
]


@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        ([*SAFE, "pytorch_model.bin", "training_args.bin"], SAFE),
        ([*SAFE, "model.fp16.safetensors", "consolidated.safetensors", "model.fp32-00001-of-00002.safetensors"], SAFE),
        (["model.fp16.safetensors"], ["model.fp16.safetensors"]),
        (["pytorch_model.bin", "text.pt"], ["pytorch_model.bin"]),
        (["weights.pt"], ["weights.pt"]),
        ([*SAFE, "2_Dense/pytorch_model.bin"], [*SAFE, "2_Dense/pytorch_model.bin"]),
        (["2_Dense/model.safetensors", "2_Dense/pytorch_model.bin"], ["2_Dense/model.safetensors"]),
        ([], []),
    ],
)
def test_weights_are_chosen_in_one_form(weights: list[str], kept: list[str]) -> None:
    assert without_copies([*TEXTS, *FOREIGN, *weights]) == [*TEXTS, *kept]
    assert without_foreign([*TEXTS, *FOREIGN, *weights]) == [*TEXTS, *weights]
    assert holds_weights(kept) == bool(kept)
