"""Real clients with real models of transformers, tiny ones: what they get is what transformers computes."""

import base64
import json
import math
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import cohere
import httpx
import litellm
import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from clients.tiny import CONTEXT, LABELS, PATIENCE_S, Tiny

MESSAGES: Any = [{"role": "user", "content": "Hello, who are you?"}]
QUERY = "the cat sleeps"
DOCUMENTS = ["rain", "a dog runs on the bank of the river", "the cat sleeps in the sun", "money"]
TEXTS = ["the cat sleeps in the sun", "rain"]


class City(BaseModel):
    """What a model of random weights would never write by itself."""

    model_config = ConfigDict(extra="forbid")
    city: Annotated[str, Field(max_length=6, pattern="^[A-Z][a-z]*$")]
    degrees: Annotated[int, Field(ge=-50, le=50)]


TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": City.model_json_schema(), "strict": True}}
]
CALLING: Any = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}


def picture(colour: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


def data_url(colour: str) -> str:
    return "data:image/png;base64," + base64.b64encode(picture(colour)).decode()


def seen(url: str) -> Any:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": parts}]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two vectors of length 1."""
    return sum(left * right for left, right in zip(one, other, strict=True))


@pytest.fixture
def client(tiny: Tiny) -> Iterator[openai.OpenAI]:
    """One that refuses whatever does not match its own models."""
    with openai.OpenAI(
        base_url=tiny.url, api_key="unused", max_retries=0, timeout=PATIENCE_S, _strict_response_validation=True
    ) as opened:
        yield opened


@pytest.fixture
def lenient(tiny: Tiny) -> Iterator[openai.OpenAI]:
    """One that decodes base64, which its own models do not know."""
    with openai.OpenAI(base_url=tiny.url, api_key="unused", max_retries=0, timeout=PATIENCE_S) as opened:
        yield opened


# ── OpenAI, Python: chat ──────────────────────────────────────────────────────────────────────────────────────────────
def written(folder: Path, prompt: str, length: int) -> str:
    """Return what transformers writes by itself."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = words(prompt, return_tensors="pt", add_special_tokens=False)
    with torch.inference_mode():
        whole = model.generate(**ids, max_new_tokens=length, do_sample=False)
    text: str = words.decode(whole[0, ids.input_ids.shape[1] :], skip_special_tokens=True)
    return text


def asked(folder: Path) -> str:
    """Return the conversation as the model's template writes it."""
    from transformers import AutoTokenizer

    text: str = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True
    )
    return text


def test_openais_client_gets_what_transformers_writes(client: openai.OpenAI, tiny: Tiny) -> None:
    folder = tiny.folders["tiny-chat"]
    wanted = written(folder, asked(folder), 24)
    how: Any = {"model": "tiny-chat", "temperature": 0, "max_completion_tokens": 24}
    answer = client.chat.completions.create(messages=MESSAGES, **how)
    assert answer.choices[0].message.content == wanted
    assert answer.usage
    assert answer.usage.prompt_tokens == len(asked(folder)) - len("<|im_start|>") * 2 - len("<|im_end|>") + 3
    with client.chat.completions.create(
        messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **how
    ) as stream:
        *chunks, last = stream
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(texts) == wanted
    assert len([text for text in texts if text]) > 3
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason
    assert (last.choices, last.usage) == ([], answer.usage)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_openais_client_parses_what_no_random_model_writes_by_itself(client: openai.OpenAI, temperature: float) -> None:
    answer = client.chat.completions.parse(
        model="tiny-chat", messages=MESSAGES, response_format=City, temperature=temperature, seed=3
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, City)


def test_openais_client_gets_calls_that_are_required(client: openai.OpenAI) -> None:
    how: Any = {"model": "tiny-chat", "messages": MESSAGES, "temperature": 1, "seed": 4, **CALLING}
    answer = client.chat.completions.create(**how)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    City.model_validate_json(call.function.arguments)
    with client.chat.completions.stream(**how) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion().choices[0]
    (again,) = final.message.tool_calls or []
    assert kinds.count("tool_calls.function.arguments.delta") > 3
    assert (again.function.name, again.function.arguments) == ("weather", call.function.arguments)
    assert final.finish_reason == "tool_calls"
    told: Any = [*MESSAGES, message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    further = client.chat.completions.create(model="tiny-chat", messages=told, tools=TOOLS, max_tokens=4)
    assert further.usage
    assert answer.usage
    assert further.usage.prompt_tokens > answer.usage.prompt_tokens


def test_openais_client_gets_several_answers_that_a_seed_repeats(client: openai.OpenAI) -> None:
    def answers(seed: int) -> list[Any]:
        answer = client.chat.completions.create(
            model="tiny-chat",
            messages=MESSAGES,
            n=2,
            seed=seed,
            temperature=1,
            max_tokens=8,
            logprobs=True,
            top_logprobs=3,
        )
        for choice in answer.choices:
            assert choice.logprobs
            for token in choice.logprobs.content or []:
                best = [likely.logprob for likely in token.top_logprobs]
                assert len(best) == 3
                assert best == sorted(best, reverse=True)
                assert token.logprob <= best[0] < 0
        return [choice.message.content for choice in answer.choices]

    first = answers(11)
    assert first[0] != first[1]
    assert answers(11) == first
    assert answers(12) != first


def test_openais_client_gets_no_text_from_a_stop_on(client: openai.OpenAI) -> None:
    how: Any = {"model": "tiny-chat", "messages": MESSAGES, "temperature": 1, "seed": 1, "max_tokens": 40}
    letters = {str(token): 100 for token in range(66, 80)}  # tokens of single letters
    plain = client.chat.completions.create(logit_bias=letters, **how).choices[0].message.content or ""
    assert len(plain) == 40
    stop = plain[20:23]
    answer = client.chat.completions.create(logit_bias=letters, stop=[stop], **how)
    assert answer.choices[0].message.content == plain[: plain.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    with client.chat.completions.create(logit_bias=letters, stop=[stop], stream=True, **how) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == plain[: plain.index(stop)]


def test_openais_client_is_told_that_a_conversation_is_too_long(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "x" * CONTEXT}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="tiny-chat", messages=long, stream=stream)
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
        assert str(CONTEXT) in refused.value.message


# ── OpenAI, Python: completions and responses ─────────────────────────────────────────────────────────────────────────
def test_openais_client_completes_with_an_echo(client: openai.OpenAI, lenient: openai.OpenAI, tiny: Tiny) -> None:
    wanted = written(tiny.folders["tiny-chat"], "Once", 6)
    how: Any = {"model": "tiny-chat", "prompt": "Once", "max_tokens": 6, "temperature": 0}
    assert client.completions.create(**how).choices[0].text == wanted
    # Not strict: its model has no null for the first token, which OpenAI's own server sent.
    answer = lenient.completions.create(echo=True, logprobs=2, **how).choices[0]
    assert answer.text == "Once" + wanted
    assert answer.logprobs
    assert (answer.logprobs.tokens or [])[:4] == ["O", "n", "c", "e"]
    first, *others = answer.logprobs.token_logprobs or []
    assert first is None  # nothing was before it
    assert len(others) == 9
    assert all(number < 0 for number in others)


def test_openais_client_gets_a_response_whole_and_in_events(client: openai.OpenAI) -> None:
    how: Any = {"model": "tiny-chat", "input": "Hello, who are you?", "temperature": 0, "max_output_tokens": 24}
    whole = client.responses.create(**how)
    chat = client.chat.completions.create(model="tiny-chat", messages=MESSAGES, temperature=0, max_tokens=24)
    assert whole.output_text == chat.choices[0].message.content
    assert whole.usage
    assert chat.usage
    assert whole.usage.total_tokens == chat.usage.total_tokens
    with client.responses.create(stream=True, **how) as stream:
        events = list(stream)
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(texts) == whole.output_text
    assert len(texts) > 3
    assert events[-1].type in {"response.completed", "response.incomplete"}
    parsed = client.responses.parse(model="tiny-chat", input="Where?", text_format=City)
    assert isinstance(parsed.output_parsed, City)


# ── OpenAI, Python: images ────────────────────────────────────────────────────────────────────────────────────────────
def test_openais_client_shows_an_image(client: openai.OpenAI) -> None:
    def answer(messages: Any) -> tuple[list[float], int]:
        found = client.chat.completions.create(
            model="tiny-vision", messages=messages, temperature=0, max_tokens=4, logprobs=True
        )
        assert found.usage
        listed = found.choices[0].logprobs
        return [token.logprob for token in (listed and listed.content) or []], found.usage.prompt_tokens

    red, length = answer(seen(data_url("red")))
    assert answer(seen(data_url("red"))) == (red, length)
    assert answer(seen(data_url("blue")))[0] != red
    without, shorter = answer([{"role": "user", "content": "What is it?"}])
    assert without != red
    assert length == shorter + 4 + 2  # four tokens of the image, between two marks


def test_openais_client_is_told_what_lets_images_be_fetched(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"'remote_images' in plugin_settings\.hf-generic") as refused:
        client.chat.completions.create(model="tiny-vision", messages=seen("https://example.org/x.png"))
    assert refused.value.param == "messages[0].content[1].image_url"


# ── OpenAI, Python: embeddings ────────────────────────────────────────────────────────────────────────────────────────
def test_openais_client_gets_the_same_vectors_as_base64_and_as_floats(
    client: openai.OpenAI, lenient: openai.OpenAI
) -> None:
    texts = ["A kitten on a mat", "The cat sat on the mat", "Stocks fell on Monday"]
    floats = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    raw = lenient.embeddings.with_raw_response.create(model="minilm", input=texts)
    assert b'"embedding":"' in raw.content
    kitten, cat, stocks = (item.embedding for item in raw.parse().data)
    for one, other in zip(floats.data, (kitten, cat, stocks), strict=True):
        assert one.embedding == pytest.approx(other, abs=1e-7)
    assert len(cat) == 384
    assert cosine(cat, cat) == pytest.approx(1, abs=1e-4)
    assert cosine(cat, kitten) > 0.5 > cosine(cat, stocks) + 0.2


def test_openais_client_gets_shorter_vectors_only_where_the_model_was_trained_for_it(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="minilm", input="cat", encoding_format="float", dimensions=64)
    assert refused.value.param == "dimensions"
    whole = client.embeddings.create(model="minilm", input="cat", encoding_format="float", dimensions=384)
    assert len(whole.data[0].embedding) == 384


def test_openais_client_gets_what_sentence_transformers_computes(client: openai.OpenAI, tiny: Tiny) -> None:
    from sentence_transformers import SentenceTransformer

    found = client.embeddings.create(model="tiny-embed", input=TEXTS, encoding_format="float")
    right = SentenceTransformer(str(tiny.folders["tiny-embed"]), device="cpu").encode(TEXTS, normalize_embeddings=True)
    for item, wanted in zip(found.data, right.tolist(), strict=True):
        assert cosine(item.embedding, wanted) > 0.9999


# ── OpenAI, Node ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_node_client_gets_the_same(tiny: Tiny, node: Callable[..., Any]) -> None:
    told = node("hf.mjs", tiny.url, data_url("red"), json.dumps(TOOLS), json.dumps(City.model_json_schema()))
    folder = tiny.folders["tiny-chat"]
    wanted = written(folder, asked(folder), 24)
    assert (told["answer"], told["streamed"]) == (wanted, wanted)
    assert told["chunks"] > 3
    for text in (told["structured"], told["call"]["arguments"], told["streamedCall"]["arguments"]):
        City.model_validate_json(text)
    assert (told["call"]["name"], told["finish"]) == ("weather", "tool_calls")
    assert told["streamedCall"] == told["call"]
    assert told["response"] == wanted
    assert told["events"][0] == "response.created"
    assert len(told["usual"]) == 384
    assert told["usual"] == pytest.approx(told["floats"], abs=1e-7)
    assert told["imageTokens"] > 4
    assert told["tooLong"] == {"kind": "BadRequestError", "code": "context_length_exceeded", "param": "messages"}


# ── LangChain ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def connected(tiny: Tiny) -> Iterator[dict[str, Any]]:
    """What LangChain's classes are made with; the transport is closed here, since they have no way to be closed."""
    with httpx.Client(timeout=PATIENCE_S) as transport:
        yield {"base_url": tiny.url, "api_key": "unused", "max_retries": 0, "http_client": transport}


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_chats_and_streams(connected: dict[str, Any], tiny: Tiny, *, responses: bool) -> None:
    folder = tiny.folders["tiny-chat"]
    wanted = written(folder, asked(folder), 24)
    model = ChatOpenAI(
        **connected,
        model="tiny-chat",
        temperature=0,
        max_completion_tokens=24,
        use_responses_api=responses,
        stream_usage=True,
    )
    answer = model.invoke(MESSAGES[0]["content"])
    assert answer.text == wanted
    whole = AIMessageChunk(content="")
    for chunk in model.stream(MESSAGES[0]["content"]):
        assert isinstance(chunk, AIMessageChunk)
        whole += chunk
    assert whole.text == wanted
    assert answer.usage_metadata
    assert whole.usage_metadata
    assert whole.usage_metadata["total_tokens"] == answer.usage_metadata["total_tokens"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_asks_for_structured_output(connected: dict[str, Any], method: Any) -> None:
    model = ChatOpenAI(**connected, model="tiny-chat", temperature=1, seed=6)
    assert isinstance(model.with_structured_output(City, method=method, strict=True).invoke("Where?"), City)


@pytest.mark.parametrize("choice", ["City", "required"])
def test_langchain_binds_tools(connected: dict[str, Any], choice: str) -> None:
    model = ChatOpenAI(**connected, model="tiny-chat", temperature=1, seed=7)
    bound = model.bind_tools([City], tool_choice=choice, strict=True, parallel_tool_calls=False)
    (call,) = AIMessage.model_validate(bound.invoke("Where?")).tool_calls
    assert call["name"] == "City"
    City.model_validate(call["args"])


def test_langchain_embeds(connected: dict[str, Any], lenient: openai.OpenAI) -> None:
    found = OpenAIEmbeddings(**connected, model="minilm", check_embedding_ctx_length=False).embed_documents(TEXTS)
    right = lenient.embeddings.create(model="minilm", input=TEXTS).data
    assert found == [pytest.approx(item.embedding, abs=1e-6) for item in right]


# ── LiteLLM ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm_chats_streams_calls_and_embeds(tiny: Tiny, lenient: openai.OpenAI, provider: str) -> None:
    there: Any = {"api_base": tiny.url, "api_key": "unused", "max_retries": 0, "timeout": PATIENCE_S}
    how: Any = {"messages": MESSAGES, "temperature": 0, "max_tokens": 24, **there}
    folder = tiny.folders["tiny-chat"]
    wanted = written(folder, asked(folder), 24)
    assert litellm.completion(f"{provider}/tiny-chat", **how).choices[0].message.content == wanted
    chunks = litellm.completion(f"{provider}/tiny-chat", stream=True, **how)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == wanted
    called = litellm.completion(f"{provider}/tiny-chat", messages=MESSAGES, seed=5, **CALLING, **there)
    (call,) = called.choices[0].message.tool_calls
    # To vLLM it does not send that further arguments are forbidden.
    City.model_validate_json(call.function.arguments, extra="ignore")
    vectors = litellm.embedding(f"{provider}/minilm", input=TEXTS, **there).data
    right = lenient.embeddings.create(model="minilm", input=TEXTS).data
    for one, other in zip(vectors, right, strict=True):
        assert one["embedding"] == pytest.approx(other.embedding, abs=1e-6)


@pytest.mark.parametrize("provider", ["hosted_vllm", "cohere"])
def test_litellm_ranks_as_transformers_does(tiny: Tiny, provider: str) -> None:
    answer = litellm.rerank(
        model=f"{provider}/tiny-rank",
        query=QUERY,
        documents=DOCUMENTS,
        api_base=tiny.server.url,
        api_key="unused",
        timeout=PATIENCE_S,
    )
    assert ranking(answer.results) == relevances(tiny)


# ── Cohere ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def rows(folder: Path, *texts: Sequence[str]) -> Any:
    """Return the logits that transformers computes for each text, or each pair of texts, by itself."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [model(**words(*each, return_tensors="pt")).logits[0] for each in zip(*texts, strict=True)]


def relevances(tiny: Tiny) -> Any:
    """Return the places of the documents and their relevances, best first."""
    logits = rows(tiny.folders["tiny-rank"], [QUERY] * len(DOCUMENTS), DOCUMENTS)
    best = sorted(enumerate(float(row.sigmoid()) for row in logits), key=lambda pair: -pair[1])
    return [(place, pytest.approx(score, abs=1e-4)) for place, score in best]


def ranking(results: Sequence[Any]) -> list[tuple[int, float]]:
    found = [item if isinstance(item, dict) else item.model_dump() for item in results]
    return [(item["index"], item["relevance_score"]) for item in found]


def test_coheres_client_ranks_as_transformers_does(tiny: Tiny) -> None:
    with httpx.Client(timeout=PATIENCE_S) as transport:
        client = cohere.ClientV2(api_key="unused", base_url=tiny.server.url, httpx_client=transport)
        answer = client.rerank(model="tiny-rank", query=QUERY, documents=DOCUMENTS)
        best = client.rerank(model="tiny-rank", query=QUERY, documents=DOCUMENTS, top_n=2)
    assert ranking(answer.results) == relevances(tiny)
    assert len({round(item.relevance_score, 2) for item in answer.results}) > 1
    assert ranking(best.results) == relevances(tiny)[:2]


# ── classify, over plain HTTP ─────────────────────────────────────────────────────────────────────────────────────────
def labelled(answer: httpx.Response) -> list[dict[str, float]]:
    assert answer.status_code == httpx.codes.OK, answer.text
    return [{pair["label"]: pair["score"] for pair in item["scores"]} for item in answer.json()["data"]]


def test_texts_get_the_models_own_labels(tiny: Tiny) -> None:
    found = labelled(tiny.post("/v1/classify", model="tiny-class", input=TEXTS))
    for scores, row in zip(found, rows(tiny.folders["tiny-class"], TEXTS), strict=True):
        assert scores == pytest.approx(dict(zip(LABELS, row.softmax(0).tolist(), strict=True)), abs=1e-4)


def test_texts_get_any_labels_from_what_follows_from_them(tiny: Tiny) -> None:
    labels = ["cat", "dog", "rain"]
    answer = tiny.post("/v1/classify", model="tiny-class", input=TEXTS[0], labels=labels)
    sentences = [f"This example is {label}." for label in labels]
    entailed = [float(row[-1]) for row in rows(tiny.folders["tiny-class"], [TEXTS[0]] * 3, sentences)]
    powers = [math.exp(logit) for logit in entailed]
    (found,) = labelled(answer)
    assert found == pytest.approx({label: p / sum(powers) for label, p in zip(labels, powers, strict=True)}, abs=1e-4)


def test_an_image_is_uploaded_and_gets_labels(tiny: Tiny) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = tiny.folders["tiny-image"]
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    files = [("file", (f"{colour}.png", picture(colour), "image/png")) for colour in ("red", "blue")]
    answer = httpx.post(f"{tiny.url}/classify", data={"model": "tiny-image"}, files=files, timeout=PATIENCE_S)
    found = labelled(answer)
    images = [Image.open(BytesIO(data)) for _, (_, data, _) in files]
    with torch.inference_mode():
        right = model(**processor(images=images, return_tensors="pt")).logits.softmax(1).tolist()
    assert found == [pytest.approx(dict(zip(("cat", "dog"), row, strict=True)), abs=1e-4) for row in right]
    assert found[0] != found[1]
    shown = tiny.post("/v1/classify", model="tiny-image", input={"image_url": data_url("red")})
    assert labelled(shown) == [pytest.approx(found[0])]
