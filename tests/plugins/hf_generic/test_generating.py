"""The adapter that writes: what `generate` writes, with what OpenAI's API may ask for on top."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from loops import PATIENCE_S
from models import writers
from yapit import BackendError, Context, GenerateRequest, InvalidInputError, Model, TextChunk
from yapit_plugin_hf_generic.generating import batching
from yapit_plugin_hf_generic.generating.adapter import HFTextGenerator, generator
from yapit_plugin_hf_generic.generating.attending import attend
from yapit_plugin_hf_generic.generating.grammar import Constraint

T = TypeVar("T")
HELLO = ({"role": "user", "content": "Hello, who are you?"},)


def run(main: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(PATIENCE_S):
            return await main

    return asyncio.run(bounded())


def entry(folder: Path, **fields: Any) -> Model:
    return Model(id="tiny", backend="hf-generic", tasks=("generate",), source=str(folder), **fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writers.qwen3(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="module")
def writer(folder: Path) -> Iterator[HFTextGenerator]:
    made = generator(entry(folder), Context())
    assert isinstance(made, HFTextGenerator)
    yield made
    made.close()


async def chunks(writer: HFTextGenerator, request: GenerateRequest) -> list[TextChunk]:
    async with aclosing(writer.generate(request)) as arriving:  # type: ignore[type-var]  # it is a generator
        return [chunk async for chunk in arriving]


def answer(writer: HFTextGenerator, request: GenerateRequest) -> list[TextChunk]:
    return run(chunks(writer, request))


def text(found: list[TextChunk]) -> str:
    return "".join(chunk.text for chunk in found)


def expected(folder: Path, prompt: str, length: int, **arguments: Any) -> tuple[str, int, int]:
    """Return what transformers writes, and how many tokens it read and wrote."""
    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    read = words(prompt, return_tensors="pt")
    with torch.inference_mode():
        whole = model.generate(**read, max_new_tokens=length, do_sample=False, **arguments)
    written = whole[0, read.input_ids.shape[1] :]
    return words.decode(written, skip_special_tokens=True), read.input_ids.shape[1], len(written)


def chat(folder: Path) -> str:
    found: str = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        list(HELLO), tokenize=False, add_generation_prompt=True
    )
    return found


def test_a_chat_is_answered_as_generate_answers_it(folder: Path, writer: HFTextGenerator) -> None:
    found = answer(writer, GenerateRequest(messages=HELLO, max_tokens=40, temperature=0.0))
    wanted, read, written = expected(folder, chat(folder), 40)
    assert text(found) == wanted
    assert found[-1].usage is not None
    assert (found[-1].usage.input_tokens, found[-1].usage.output_tokens) == (read, written)
    assert found[-1].finish_reason == ("length" if written == 40 else "stop")
    assert len(found) > 3


def test_a_prompt_is_continued(folder: Path, writer: HFTextGenerator) -> None:
    wanted, *_ = expected(folder, "Once upon a time", 30)
    ids = tuple(AutoTokenizer.from_pretrained(folder)("Once upon a time").input_ids)
    for prompt in ("Once upon a time", ids):
        assert text(answer(writer, GenerateRequest(prompt=prompt, max_tokens=30, temperature=0.0))) == wanted


def test_many_different_requests_at_once_change_nothing_for_each_other(folder: Path, writer: HFTextGenerator) -> None:
    plain = [GenerateRequest(prompt=f"story {n} " * (1 + n % 5), max_tokens=20, temperature=0.0) for n in range(16)]
    odd = [
        GenerateRequest(prompt=f"odd {n}", max_tokens=20, temperature=0.9, seed=n, top_p=0.8, logprobs=2)
        for n in range(8)
    ]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer", "maximum": 99}}}
    bound = [
        GenerateRequest(prompt=f"number {n}", max_tokens=20, temperature=1.0, seed=n, response_format=schema)
        for n in range(8)
    ]
    alone = [answer(writer, request) for request in (*plain, *odd, *bound)]

    async def together() -> list[list[TextChunk]]:
        return await asyncio.gather(*(chunks(writer, request) for request in (*plain, *odd, *bound)))

    found = run(together())
    assert [text(each) for each in found] == [text(each) for each in alone]
    assert [each[-1].usage for each in found] == [each[-1].usage for each in alone]
    wanted, *_ = expected(folder, "story 3 story 3 story 3 story 3 ", 20)
    assert text(found[3]) == wanted


def test_a_stop_ends_the_answer_before_it(folder: Path, writer: HFTextGenerator) -> None:
    assert isinstance(writer._source, batching.Batch)
    letters = dict.fromkeys(AutoTokenizer.from_pretrained(folder)("abcdefgh").input_ids, 50.0)

    def written(*stop: str) -> list[TextChunk]:
        asked = GenerateRequest(
            prompt="Once", max_tokens=60, temperature=3.0, top_k=8, seed=4, logit_bias=letters, stop=stop
        )
        return answer(writer, asked)

    whole = text(written())
    assert len(whole) == 60
    for length in (1, 3):
        stop = whole[20 : 20 + length]
        before = writer._source._manager.current_batch
        found = written(stop, "never")
        assert writer._source._manager.current_batch - before < 50, "it was decoded to its end"
        assert text(found) == whole[: whole.index(stop)]
        assert found[-1].finish_reason == "stop"
        assert found[-1].usage is not None
        assert found[-1].usage.output_tokens < 60


def test_a_seed_repeats_an_answer(writer: HFTextGenerator) -> None:
    def written(seed: int | None) -> str:
        return text(answer(writer, GenerateRequest(prompt="dice", max_tokens=20, temperature=1.0, seed=seed)))

    assert written(5) == written(5)
    assert len({written(seed) for seed in (1, 2, 3, None)}) > 1


def test_logprobs_are_those_of_the_model(folder: Path, writer: HFTextGenerator) -> None:
    found = answer(writer, GenerateRequest(prompt="Once", max_tokens=8, temperature=0.0, logprobs=4))
    listed = [token for chunk in found for token in chunk.logprobs]
    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = words("Once").input_ids
    assert b"".join(token.data for token in listed).decode("utf-8", "replace") == text(found)
    for token in listed:
        with torch.inference_mode():
            row = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], -1)
        assert token.logprob == pytest.approx(float(row.max()), abs=1e-4)
        assert len(token.top) == 4
        assert token.top[0].logprob == pytest.approx(token.logprob, abs=1e-6)
        assert [each.logprob for each in token.top] == pytest.approx(row.topk(4).values.tolist(), abs=1e-4)
        ids.append(int(row.argmax()))


def test_an_echo_has_the_prompt_and_its_logprobs(folder: Path, writer: HFTextGenerator) -> None:
    found = answer(writer, GenerateRequest(prompt="Once upon", max_tokens=0, echo=True, logprobs=1))
    assert text(found) == "Once upon"
    assert found[-1].finish_reason == "length"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)("Once upon", return_tensors="pt").input_ids
    with torch.inference_mode():
        rows = torch.log_softmax(model(ids).logits[0], -1)
    wanted = [float(row[token]) for row, token in zip(rows[:-1], ids[0, 1:], strict=True)]
    assert [token.logprob for token in found[0].logprobs][1:] == pytest.approx(wanted, abs=1e-4)


def test_a_schema_is_kept(writer: HFTextGenerator) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 3}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}
    request = GenerateRequest(messages=HELLO, max_tokens=200, temperature=1.0, seed=3, response_format=wanted)
    found = answer(writer, request)
    assert found[-1].finish_reason == "stop"
    parsed = json.loads(text(found))
    assert set(parsed) == {"name", "age"}
    assert parsed["age"] >= 3


def test_a_call_that_is_required_is_made(writer: HFTextGenerator) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    request = GenerateRequest(
        messages=HELLO,
        tools=(tool,),
        tool_choice="required",
        max_tokens=300,
        temperature=1.0,
        seed=1,
        parallel_tool_calls=False,
        reasoning_effort="none",
    )
    found = answer(writer, request)
    calls = [part for chunk in found for part in chunk.tool_calls]
    assert calls[0].name == "weather"
    assert json.loads("".join(part.arguments for part in calls))["city"] in ("Paris", "Rome")
    assert found[-1].finish_reason == "tool_calls"
    assert text(found).strip() == ""


def test_a_prompt_that_is_too_long_is_refused(writer: HFTextGenerator) -> None:
    with pytest.raises(InvalidInputError, match="maximum context length is 2048 tokens") as refused:
        answer(writer, GenerateRequest(prompt="x" * 3000, max_tokens=5))
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")
    long = ({"role": "user", "content": "y" * 3000},)
    with pytest.raises(InvalidInputError) as refused:
        answer(writer, GenerateRequest(messages=long))
    assert refused.value.param == "messages"


def test_an_answer_ends_where_the_context_does(writer: HFTextGenerator) -> None:
    for wanted in (None, 500):
        found = answer(writer, GenerateRequest(prompt="x" * 2040, temperature=0.0, max_tokens=wanted))
        assert found[-1].usage is not None
        assert found[-1].usage.output_tokens <= 8


def test_a_bias_beyond_the_vocabulary_is_refused(writer: HFTextGenerator) -> None:
    with pytest.raises(InvalidInputError, match="no token 99999") as refused:
        answer(writer, GenerateRequest(prompt="x", logit_bias={99999: 1.0}))
    assert refused.value.param == "logit_bias"


def test_an_empty_prompt_is_a_beginning(writer: HFTextGenerator) -> None:
    found = answer(writer, GenerateRequest(prompt="", max_tokens=3))
    assert found[-1].usage is not None
    assert found[-1].usage.input_tokens == 1


def test_the_cache_s_room_bounds_a_prompt(folder: Path) -> None:
    made = generator(entry(folder, options={"kv_cache_tokens": 256, "max_batch_size": 4}), Context())
    assert isinstance(made, HFTextGenerator)
    try:
        assert made.max_concurrency == 4
        found = answer(made, GenerateRequest(prompt="x" * 200, temperature=0.0))
        assert found[-1].usage is not None
        assert found[-1].usage.input_tokens + found[-1].usage.output_tokens <= 256
        with pytest.raises(InvalidInputError, match="256 tokens"):
            answer(made, GenerateRequest(prompt="x" * 300))
    finally:
        made.close()


def test_a_model_that_cannot_be_paged_is_decoded_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(module: Any, query: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        return torch.ones_like(query.transpose(1, 2)), None

    with monkeypatch.context() as patch:
        patch.setattr(batching, "attend", blind_to_others(blind))
        made = generator(entry(folder), Context())
        assert isinstance(made, HFTextGenerator)
        try:
            assert made.max_concurrency == 1
            found = answer(made, GenerateRequest(prompt="Once upon a time", max_tokens=20, temperature=0.0))
        finally:
            made.close()
    AttentionInterface.register("sdpa", attend)  # what other models of this process have
    wanted, *_ = expected(folder, "Once upon a time", 20)
    assert text(found) == wanted


def blind_to_others(paged: Callable[..., Any]) -> Callable[..., Any]:
    """Return an attention that is wrong where it is paged, and right elsewhere."""

    def attention(*arguments: Any, cache: Any = None, **named: Any) -> Any:
        return sdpa_attention_forward(*arguments, **named) if cache is None else paged(*arguments, **named)

    return attention


def test_an_answer_whose_form_fails_is_an_error(writer: HFTextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise BackendError("the grammar is too complex")

    monkeypatch.setattr(Constraint, "mask", broken)
    with pytest.raises(BackendError, match="too complex"):
        answer(writer, GenerateRequest(messages=HELLO, max_tokens=9, response_format={"type": "json_object"}))


def test_who_speaks_may_be_left_to_the_model(folder: Path, writer: HFTextGenerator) -> None:
    asked = GenerateRequest(messages=HELLO, max_tokens=9, temperature=0.0, options={"add_generation_prompt": False})
    template = AutoTokenizer.from_pretrained(folder).apply_chat_template(list(HELLO), tokenize=False)
    assert text(answer(writer, asked)) == expected(folder, template, 9)[0]
