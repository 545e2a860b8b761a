"""Chat about images: what the model's own processor and `generate` make of them."""

import asyncio
import base64
import io
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from models import writers
from yapit import Context, GenerateRequest, Model, TextGenerator
from yapit_plugin_hf_generic.generating.adapter import generator
from yapit_plugin_hf_generic.generating.processors import processor_of
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import Options

FAMILIES: dict[str, Callable[[Path], Path]] = {"qwen3-vl": writers.qwen3_vl, "llava": writers.llava}


def picture(colour: str) -> Image.Image:
    return Image.linear_gradient("L").resize((64, 64)).convert("RGB").point(lambda value: value * len(colour) // 8)


def data_url(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def asked(*colours: str) -> tuple[dict[str, Any], ...]:
    parts = [{"type": "image_url", "image_url": {"url": data_url(picture(colour))}} for colour in colours]
    return ({"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]},)


@pytest.fixture(scope="module", params=FAMILIES)
def entry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    return Model(id="seeing", backend="hf-generic", tasks=("generate",), source=str(folder))


@pytest.fixture(scope="module")
def seer(entry: Model) -> Iterator[TextGenerator]:
    made = generator(entry, Context())
    yield made
    made.close()


def answers(seer: TextGenerator, *requests: GenerateRequest) -> list[str]:
    async def one(request: GenerateRequest) -> str:
        arriving: Any = seer.generate(request)
        async with aclosing(arriving):
            return "".join([chunk.text async for chunk in arriving])

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(one, requests))

    return asyncio.run(all_of_them())


def expected(entry: Model, *colours: str, length: int = 12) -> str:
    loader = Loader(entry, Context(), Options())
    processor = processor_of(loader)
    model = loader.weights(AutoModelForImageTextToText)
    parts = [{"type": "image", "image": picture(colour)} for colour in colours]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        whole = model.generate(**inputs, max_new_tokens=length, do_sample=False)
    text: str = processor.tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text


def test_an_image_is_answered_as_transformers_answers_it(entry: Model, seer: TextGenerator) -> None:
    requests = [
        GenerateRequest(messages=asked(*colours), max_tokens=12, temperature=0.0)
        for colours in (("red",), ("turquoise",), ("red", "turquoise"))
    ]
    found = answers(seer, *requests)
    assert found == [
        expected(entry, "red"),
        expected(entry, "turquoise"),
        expected(entry, "red", "turquoise"),
    ]
    assert len(set(found)) > 1, "the model sees no difference"


def test_text_alone_is_answered_too(seer: TextGenerator) -> None:
    plain = GenerateRequest(messages=({"role": "user", "content": "Hello"},), max_tokens=5, temperature=0.0)
    assert answers(seer, plain) == answers(seer, plain)
