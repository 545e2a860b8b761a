"""POST /v1/completions, in one piece and as chunks."""

import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from litestar.testing import TestClient

from yapit import GenerateRequest, TextChunk, TextGenerator, Usage
from yapit.schemas import TokenLogprob
from yapit.server.app import Application

COMPLETIONS = "/v1/completions"
Check = Callable[[str, Any], None]
Refusal = Callable[[httpx.Response], tuple[int, str | None, str | None]]


class Dicer(TextGenerator):
    """Says its seed, and how likely that is; the prompt's first token has no likelihood."""

    max_concurrency = 8

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        likely = [-0.5, -2.0, -0.25, -1.0][request.seed or 0]
        tokens = (TokenLogprob(text=str(request.seed), logprob=likely),) if request.logprobs is not None else ()
        if request.echo:
            tokens = (TokenLogprob(text="x", logprob=math.nan), *tokens)
        usage = Usage(input_tokens=1, output_tokens=1)
        yield TextChunk(text=str(request.seed), logprobs=tokens, finish_reason="stop", usage=usage)


@pytest.fixture
def dicer(serving: Callable[..., TestClient[Application]]) -> Iterator[TestClient[Application]]:
    with serving(Dicer(), dicer={}) as found:
        yield found


def ask(client: httpx.Client, model: str = "writer", **body: Any) -> dict[str, Any]:
    answer = client.post(COMPLETIONS, json={"model": model, "prompt": "one two three", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def chunks(client: httpx.Client, model: str = "writer", **body: Any) -> list[dict[str, Any]]:
    answer = client.post(COMPLETIONS, json={"model": model, "prompt": "one two three", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = answer.text.split("\n\n")
    assert frames.pop() == ""
    assert frames.pop() == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def test_an_answer_has_the_shape_of_the_contract(client: httpx.Client, check: Check) -> None:
    answer = ask(client)
    check("CreateCompletionResponse", answer)
    assert answer["id"].startswith("cmpl-")
    assert (answer["object"], answer["model"]) == ("text_completion", "org/writer")
    assert answer["choices"] == [{"index": 0, "text": "one two three", "logprobs": None, "finish_reason": "stop"}]
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 3, 6)
    assert client.post("/completions", json={"model": "writer"}).json()["choices"][0]["text"] == ""


def test_sixteen_tokens_are_written_if_nothing_else_is_said(client: httpx.Client) -> None:
    (choice,) = ask(client, prompt="x " * 20)["choices"]
    assert (len(choice["text"].split()), choice["finish_reason"]) == (16, "length")
    (choice,) = ask(client, prompt="x " * 20, max_tokens=20)["choices"]
    assert (len(choice["text"].split()), choice["finish_reason"]) == (20, "stop")


def test_choices_are_in_the_order_of_the_prompts(client: httpx.Client, check: Check) -> None:
    answer = ask(client, prompt=["a", "b c"], n=2)
    check("CreateCompletionResponse", answer)
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [
        (0, "a"),
        (1, "a"),
        (2, "b c"),
        (3, "b c"),
    ]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (3, 6)


def test_prompts_may_be_tokens(client: httpx.Client) -> None:
    assert [choice["text"] for choice in ask(client, prompt=[5, 6])["choices"]] == ["5 6"]
    assert [choice["text"] for choice in ask(client, prompt=[[5, 6], [7]])["choices"]] == ["5 6", "7"]


def test_the_prompt_is_repeated_when_asked_for(client: httpx.Client) -> None:
    assert ask(client, echo=True, max_tokens=1)["choices"][0]["text"] == "one two three one"


def test_logprobs_are_lists_side_by_side(client: httpx.Client, check: Check) -> None:
    answer = ask(client, logprobs=1)
    check("CreateCompletionResponse", answer)
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["one", " two", " three"],
        "token_logprobs": [0.0, 0.0, 0.0],
        "top_logprobs": [{"one": 0.0}, {" two": 0.0}, {" three": 0.0}],
        "text_offset": [0, 3, 7],
    }
    answer = ask(client, "unsure", logprobs=2)
    check("CreateCompletionResponse", answer)
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["H", "\ufffd", "\ufffd"],
        "token_logprobs": [-0.25, -0.5, 0.0],
        # The written one is there, also if it is none of the likeliest.
        "top_logprobs": [{"H": -0.25, "J": -2.0}, {"\ufffd": -0.5, "e": -9999.0}, {"\ufffd": 0.0}],
        "text_offset": [0, 1, 2],
    }


def test_what_has_no_logprob_has_null(dicer: TestClient[Application]) -> None:
    (choice,) = ask(dicer, "dicer", logprobs=1, echo=True, seed=3)["choices"]
    assert choice["logprobs"]["token_logprobs"] == [None, -1.0]
    assert choice["logprobs"]["top_logprobs"] == [None, {"3": -1.0}]


def test_the_best_answers_are_those_that_the_model_finds_likeliest(dicer: TestClient[Application]) -> None:
    answer = ask(dicer, "dicer", best_of=4, n=2, seed=0)
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [(0, "2"), (1, "0")]
    assert [choice["logprobs"] for choice in answer["choices"]] == [None, None]
    assert answer["usage"]["completion_tokens"] == 4, "all of them were written"
    both = ask(dicer, "dicer", prompt=["a", "b"], best_of=4, seed=0, logprobs=0)
    assert [(choice["index"], choice["text"]) for choice in both["choices"]] == [(0, "2"), (1, "2")]
    assert both["choices"][1]["logprobs"]["token_logprobs"] == [-0.25]


# ── chunks ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_chunks_are_pieces_of_the_text(client: httpx.Client, check: Check) -> None:
    found = chunks(client)
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in found}) == 1
    assert found[0]["object"] == "text_completion"
    assert [chunk["choices"][0] for chunk in found] == [
        {"index": 0, "text": "one", "logprobs": None, "finish_reason": None},
        {"index": 0, "text": " two", "logprobs": None, "finish_reason": None},
        {"index": 0, "text": " three", "logprobs": None, "finish_reason": None},
        {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"},
    ]
    assert all("usage" not in chunk for chunk in found)
    # The specification has no null here, which every server sends.
    for chunk in found:
        (choice,) = chunk["choices"]
        check("CreateCompletionResponse", chunk | {"choices": [choice | {"finish_reason": "stop"}]})


def test_the_usage_is_a_chunk_of_its_own_and_null_before(client: httpx.Client, check: Check) -> None:
    *found, last = chunks(client, prompt=["a", "b"], n=2, stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in found] == [None] * 8
    check("CreateCompletionResponse", last)
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (2, 4)
    for index, text in enumerate("aabb"):
        told = [chunk["choices"][0] for chunk in found if chunk["choices"][0]["index"] == index]
        assert ([choice["text"] for choice in told], told[-1]["finish_reason"]) == ([text, ""], "stop")


def test_offsets_go_on_from_chunk_to_chunk(client: httpx.Client) -> None:
    found = [chunk["choices"][0]["logprobs"] for chunk in chunks(client, logprobs=0)]
    assert [told and told["text_offset"] for told in found] == [[0], [3], [7], None]
    assert [told and told["tokens"] for told in found] == [["one"], [" two"], [" three"], None]


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_chunk_has_its_status(
    client: httpx.Client, refusal: Refusal, *, stream: bool
) -> None:
    answer = client.post(COMPLETIONS, json={"model": "brief", "prompt": "a b c d e", "stream": stream})
    assert refusal(answer) == (400, "prompt", "context_length_exceeded")


def test_one_prompt_that_is_refused_is_an_error_of_all(client: httpx.Client, refusal: Refusal) -> None:
    answer = client.post(COMPLETIONS, json={"model": "brief", "prompt": ["a", "b", "a b c d e"]})
    assert refusal(answer) == (400, "prompt", "context_length_exceeded")


def test_an_error_in_mid_stream_is_the_last_event(client: httpx.Client, check: Check) -> None:
    answer = client.post(COMPLETIONS, json={"model": "failing-writer", "prompt": "a b", "stream": True})
    assert answer.status_code == 200
    error = json.loads(answer.text.removesuffix("\n\n").split("\n\n")[-1].removeprefix("data: "))
    check("ErrorResponse", error)
    assert error["error"]["code"] == "backend_error"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"prompt": ["a"] * 20, "n": 128}, "prompt"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": 21}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stream_options": {}}, "stream_options"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_a_refused_value_is_named(client: httpx.Client, refusal: Refusal, change: dict[str, Any], param: str) -> None:
    answer = client.post(COMPLETIONS, json={"model": "writer", "prompt": "x"} | change)
    assert refusal(answer) == (400, param, "invalid_value")
