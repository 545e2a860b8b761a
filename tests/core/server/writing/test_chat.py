"""POST /v1/chat/completions, in one piece and as chunks, as clients of OpenAI's API read it."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from live import Server

CHAT = "/v1/chat/completions"
SAID: list[dict[str, Any]] = [{"role": "user", "content": "one two three"}]
Check = Callable[[str, Any], None]
Refusal = Callable[[httpx.Response], tuple[int, str | None, str | None]]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def ask(client: httpx.Client, model: str = "writer", **body: Any) -> dict[str, Any]:
    answer = client.post(CHAT, json={"model": model, "messages": SAID, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def chunks(client: httpx.Client, model: str = "writer", **body: Any) -> list[dict[str, Any]]:
    answer = client.post(CHAT, json={"model": model, "messages": SAID, "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = answer.text.split("\n\n")
    assert frames.pop() == ""
    assert frames.pop() == "data: [DONE]"
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def deltas(found: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in found for choice in chunk["choices"] if choice["index"] == index]


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_answer_has_the_shape_of_the_contract(client: httpx.Client, check: Check) -> None:
    answer = ask(client)
    check("CreateChatCompletionResponse", answer)
    assert answer["id"].startswith("chatcmpl-")
    assert (answer["object"], answer["model"]) == ("chat.completion", "org/writer")
    assert answer["created"] > 1_700_000_000
    (choice,) = answer["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "one two three", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_the_route_is_there_without_its_prefix_and_ids_are_new_each_time(client: httpx.Client) -> None:
    body = {"model": "writer", "messages": SAID}
    ids = [client.post(path, json=body).json()["id"] for path in (CHAT, "/chat/completions")]
    assert len(set(ids)) == 2


def test_calls_of_tools_and_reasoning_come_beside_the_text(client: httpx.Client, check: Check) -> None:
    answer = ask(client, "caller", tools=[WEATHER, CLOCK])
    check("CreateChatCompletionResponse", answer)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Calling.",
        "refusal": None,
        "reasoning_content": "Let me see.",
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
        ],
    }
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (9, 12, 21)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 3}


def test_the_content_is_null_if_there_are_only_calls(client: httpx.Client, check: Check) -> None:
    answer = ask(client, "only-caller", tools=[WEATHER])
    check("CreateChatCompletionResponse", answer)
    assert answer["choices"][0]["message"]["content"] is None
    assert ask(client, messages=[{"role": "user", "content": ""}])["choices"][0]["message"]["content"] == ""


def test_each_answer_has_its_index_and_the_prompt_counts_once(client: httpx.Client, check: Check) -> None:
    answer = ask(client, n=3)
    check("CreateChatCompletionResponse", answer)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in answer["choices"]} == {"one two three"}
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (3, 9)


def test_logprobs_have_their_bytes_and_no_infinity(client: httpx.Client, check: Check) -> None:
    answer = ask(client, "unsure", logprobs=True, top_logprobs=2)
    check("CreateChatCompletionResponse", answer)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] == {
        "content": [
            {
                "token": "H",
                "logprob": -0.25,
                "bytes": [72],
                "top_logprobs": [
                    {"token": "H", "logprob": -0.25, "bytes": [72]},
                    {"token": "J", "logprob": -2.0, "bytes": [74]},
                ],
            },
            {
                "token": "\ufffd",
                "logprob": -0.5,
                "bytes": [0xC3],
                "top_logprobs": [{"token": "e", "logprob": -9999.0, "bytes": [101]}],
            },
            {"token": "\ufffd", "logprob": 0.0, "bytes": [0xA9], "top_logprobs": []},
        ],
        "refusal": None,
    }
    assert bytes(byte for token in choice["logprobs"]["content"] for byte in token["bytes"]).decode() == "Hé"
    assert ask(client, "unsure")["choices"][0]["logprobs"] is None


def test_who_asks_in_the_older_form_is_answered_in_it(client: httpx.Client, check: Check) -> None:
    answer = ask(client, "only-caller", functions=[WEATHER["function"]])
    check("CreateChatCompletionResponse", answer)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "function_call"
    called = {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "function_call": called}
    found = chunks(client, "caller", functions=[WEATHER["function"]])
    for chunk in found:
        check("CreateChatCompletionStreamResponse", chunk)
    calls = [delta["function_call"] for delta in deltas(found) if "function_call" in delta]
    assert calls == [{"name": "weather", "arguments": ""}, {"arguments": '{"city":'}, {"arguments": ' "Rome"}'}]
    assert all("tool_calls" not in delta for delta in deltas(found))
    assert found[-1]["choices"][0]["finish_reason"] == "function_call"


# ── chunks ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_chunks_are_role_text_and_finish(client: httpx.Client, check: Check) -> None:
    found = chunks(client)
    for chunk in found:
        check("CreateChatCompletionStreamResponse", chunk)
        assert set(chunk) == {"id", "object", "created", "model", "choices"}
        assert set(chunk["choices"][0]) == {"index", "delta", "logprobs", "finish_reason"}
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in found}) == 1
    assert found[0]["object"] == "chat.completion.chunk"
    assert deltas(found) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "one"},
        {"content": " two"},
        {"content": " three"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None] * 4 + ["stop"]


def test_the_usage_is_a_chunk_of_its_own_and_null_before(client: httpx.Client, check: Check) -> None:
    *found, last = chunks(client, stream_options={"include_usage": True}, n=2)
    check("CreateChatCompletionStreamResponse", last)
    assert [chunk["usage"] for chunk in found] == [None] * 10
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (3, 6)
    without = chunks(client, stream_options={"include_usage": False})
    assert all("usage" not in chunk for chunk in without)


def test_a_call_says_its_name_once_and_then_its_arguments(client: httpx.Client, check: Check) -> None:
    found = chunks(client, "caller", tools=[WEATHER, CLOCK])
    for chunk in found:
        check("CreateChatCompletionStreamResponse", chunk)
    role, *rest, last = deltas(found)
    assert role["role"] == "assistant"
    assert rest[:3] == [{"reasoning_content": "Let me"}, {"reasoning_content": " see."}, {"content": "Calling."}]
    assert [delta["tool_calls"] for delta in rest[3:]] == [
        [{"index": 0, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"city":'}}],
        [{"index": 0, "function": {"arguments": ' "Rome"}'}}],
        [{"index": 1, "id": "call_b", "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
    ]
    assert last == {}
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_each_answer_of_a_stream_is_whole(client: httpx.Client) -> None:
    found = chunks(client, n=3)
    for index in range(3):
        told = deltas(found, index)
        assert told[0] == {"role": "assistant", "content": "", "refusal": None}
        assert "".join(delta.get("content", "") for delta in told) == "one two three"
        reasons = [
            choice["finish_reason"] for chunk in found for choice in chunk["choices"] if choice["index"] == index
        ]
        assert reasons == [None] * 4 + ["stop"]


def test_logprobs_come_with_their_text(client: httpx.Client, check: Check) -> None:
    found = chunks(client, "unsure", logprobs=True, top_logprobs=2)
    for chunk in found:
        check("CreateChatCompletionStreamResponse", chunk)
    whole = ask(client, "unsure", logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]
    assert [chunk["choices"][0]["logprobs"] for chunk in found] == [None, whole, None]
    assert found[1]["choices"][0]["delta"] == {"content": "Hé"}


def test_the_stream_and_the_whole_answer_say_the_same(client: httpx.Client) -> None:
    for model in ("writer", "caller", "json", "unsure"):
        message = ask(client, model)["choices"][0]["message"]
        told = deltas(chunks(client, model))
        assert "".join(delta.get("content", "") for delta in told) == (message["content"] or "")
        reasoning = "".join(delta.get("reasoning_content", "") for delta in told)
        assert reasoning == message.get("reasoning_content", "")


def test_a_text_of_any_characters_is_one_line(client: httpx.Client) -> None:
    odd = 'line\u2028\n\n"quoted"\\ 😀 \u0000 data: [DONE]'
    words = " ".join(odd.split())
    found = chunks(client, messages=[{"role": "user", "content": odd}])
    assert "".join(delta.get("content", "") for delta in deltas(found)) == words


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_error_before_the_first_chunk_has_its_status(client: httpx.Client, refusal: Refusal) -> None:
    long = [{"role": "user", "content": "one two three four five"}]
    for stream in (False, True):
        answer = client.post(CHAT, json={"model": "brief", "messages": long, "stream": stream, "n": 2})
        assert refusal(answer) == (400, "messages", "context_length_exceeded")


def test_an_error_in_mid_stream_is_the_last_event(client: httpx.Client, check: Check) -> None:
    answer = client.post(CHAT, json={"model": "failing-writer", "messages": SAID, "stream": True})
    assert answer.status_code == 200
    *before, last = answer.text.removesuffix("\n\n").split("\n\n")
    assert len(before) == 2, "the role and the first word"
    error = json.loads(last.removeprefix("data: "))
    check("ErrorResponse", error)
    assert error["error"]["code"] == "backend_error"
    assert "told to fail" in error["error"]["message"]


def test_an_error_after_the_first_chunk_is_a_status_if_nothing_was_sent(client: httpx.Client, refusal: Refusal) -> None:
    answer = client.post(CHAT, json={"model": "failing-writer", "messages": SAID})
    assert refusal(answer) == (500, None, "backend_error")


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"model": "writers"}, 404, "model", "model_not_found"),
        ({"model": "deaf"}, 400, "model", "unsupported_task"),
        ({"model": None}, 400, "model", "invalid_value"),
        ({"messages": None}, 400, "messages", "invalid_value"),
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"messages": ["x"]}, 400, "messages[0]", "invalid_value"),
        ({"temperature": 2.1}, 400, "temperature", "invalid_value"),
        ({"temperature": -0.1}, 400, "temperature", "invalid_value"),
        ({"top_p": 1.1}, 400, "top_p", "invalid_value"),
        ({"min_p": 1.1}, 400, "min_p", "invalid_value"),
        ({"top_k": -2}, 400, "top_k", "invalid_value"),
        ({"frequency_penalty": 2.1}, 400, "frequency_penalty", "invalid_value"),
        ({"presence_penalty": -2.1}, 400, "presence_penalty", "invalid_value"),
        ({"repetition_penalty": 0}, 400, "repetition_penalty", "invalid_value"),
        ({"n": 0}, 400, "n", "invalid_value"),
        ({"n": 129}, 400, "n", "invalid_value"),
        ({"max_tokens": 0}, 400, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 0}, 400, "max_completion_tokens", "invalid_value"),
        ({"top_logprobs": 21, "logprobs": True}, 400, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 1}, 400, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 1, "logprobs": False}, 400, "top_logprobs", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop", "invalid_value"),
        ({"stop": 5}, 400, "stop", "invalid_value"),
        ({"seed": 2**63}, 400, "seed", "invalid_value"),
        ({"logit_bias": {"1": 100.5}}, 400, "logit_bias", "invalid_value"),
        ({"logit_bias": {"the": 1}}, 400, "logit_bias", "invalid_value"),
        ({"logit_bias": {"-1": 1}}, 400, "logit_bias", "invalid_value"),
        ({"logit_bias": {"²": 1}}, 400, "logit_bias", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "invalid_value"),
        ({"reasoning_effort": "huge"}, 400, "reasoning_effort", "invalid_value"),
        ({"response_format": {"type": "yaml"}}, 400, "response_format.type", "invalid_value"),
        ({"response_format": {}}, 400, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_schema"}},
            400,
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            400,
            "response_format.json_schema.name",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 1}}},
            400,
            "response_format.json_schema.schema",
            "invalid_value",
        ),
        ({"modalities": ["text", "audio"]}, 400, "modalities", "unsupported_value"),
        ({"web_search_options": {}}, 400, "web_search_options", "unsupported_value"),
        ({"keep_alive": "soon"}, 400, "keep_alive", "invalid_value"),
    ],
)
def test_a_refused_value_is_named(
    client: httpx.Client, refusal: Refusal, change: dict[str, Any], status: int, param: str, code: str
) -> None:
    answer = client.post(CHAT, json={"model": "writer", "messages": SAID} | change)
    assert refusal(answer) == (status, param, code)


@pytest.mark.parametrize(
    "change",
    [
        dict.fromkeys(("temperature", "stop", "logit_bias", "tools", "n", "stream", "stream_options", "logprobs")),
        {"temperature": 2, "top_p": 1, "frequency_penalty": -2, "presence_penalty": 2, "n": 1, "seed": -(2**63)},
        {"unknown": 1, "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "verbosity": "low", "user": "u"},
        {"prompt_cache_key": "k", "safety_identifier": "s", "prediction": {"type": "content", "content": "x"}},
        {"modalities": ["text"], "response_format": {"type": "text"}, "tool_choice": "none"},
        {"logit_bias": {"0": -100, "50256": 100}, "stop": "", "top_k": -1, "min_p": 0, "repetition_penalty": 1.2},
        {"stream_options": None, "reasoning_effort": "none", "parallel_tool_calls": False, "keep_alive": "5m"},
    ],
)
def test_every_field_of_the_contract_is_taken(client: httpx.Client, change: dict[str, Any]) -> None:
    assert ask(client, **change)["choices"][0]["message"]["content"] == "one two three"


def test_fields_are_obeyed(client: httpx.Client) -> None:
    def told(**body: Any) -> tuple[str, str]:
        (choice,) = ask(client, **body)["choices"]
        return choice["message"]["content"], choice["finish_reason"]

    assert told(stop=" three") == ("one two", "stop")
    assert told(stop=["three", "o t"]) == ("one tw", "stop")
    assert told(max_tokens=1) == ("one", "length")
    assert told(max_tokens=1, max_completion_tokens=2) == ("one two", "length")
    assert told(model="brief") == ("one two", "length")
    assert told(model="brief", max_tokens=3) == ("one two three", "stop")


def test_the_prompt_is_in_no_log_line(server: Server, client: httpx.Client) -> None:
    said = [{"role": "user", "content": "xylophone quagmire"}]
    for body in ({"model": "writer"}, {"model": "nobody"}, {"model": "failing-writer"}, {"model": "brief", "n": 0}):
        client.post(CHAT, json={"messages": said, **body})
    assert "xylophone" not in json.dumps(server.lines)
