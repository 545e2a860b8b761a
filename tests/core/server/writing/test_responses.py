"""POST /v1/responses, in one piece and as events; nothing is kept."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

RESPONSES = "/v1/responses"
Check = Callable[[str, Any], None]
Refusal = Callable[[httpx.Response], tuple[int, str | None, str | None]]
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}

SCHEMAS = {
    "created": "ResponseCreatedEvent",
    "in_progress": "ResponseInProgressEvent",
    "completed": "ResponseCompletedEvent",
    "incomplete": "ResponseIncompleteEvent",
    "failed": "ResponseFailedEvent",
    "error": "ResponseErrorEvent",
    "output_item.added": "ResponseOutputItemAddedEvent",
    "output_item.done": "ResponseOutputItemDoneEvent",
    "content_part.added": "ResponseContentPartAddedEvent",
    "content_part.done": "ResponseContentPartDoneEvent",
    "output_text.delta": "ResponseTextDeltaEvent",
    "output_text.done": "ResponseTextDoneEvent",
    "reasoning_text.delta": "ResponseReasoningTextDeltaEvent",
    "reasoning_text.done": "ResponseReasoningTextDoneEvent",
    "function_call_arguments.delta": "ResponseFunctionCallArgumentsDeltaEvent",
    "function_call_arguments.done": "ResponseFunctionCallArgumentsDoneEvent",
}


def ask(client: httpx.Client, model: str = "writer", **body: Any) -> dict[str, Any]:
    answer = client.post(RESPONSES, json={"model": model, "input": "one two three", **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def events(client: httpx.Client, model: str = "writer", **body: Any) -> list[dict[str, Any]]:
    answer = client.post(RESPONSES, json={"model": model, "input": "one two three", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    frames = answer.text.split("\n\n")
    assert frames.pop() == ""
    for number, frame in enumerate(frames):
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        found.append(event)
    return found


def check_all(check: Check, found: list[dict[str, Any]]) -> None:
    """Validate each event against the schema of its own type."""
    for event in found:
        check(SCHEMAS[event["type"].removeprefix("response.")], event)


def alike(response: dict[str, Any]) -> dict[str, Any]:
    """Return what two responses to the same request have in common."""
    output = [{key: value for key, value in item.items() if key != "id"} for item in response["output"]]
    return response | {"id": "", "created_at": 0, "completed_at": bool(response["completed_at"]), "output": output}


# ── in one piece ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_response_has_the_shape_of_the_contract(client: httpx.Client, check: Check) -> None:
    response = ask(client, metadata={"a": "b"}, temperature=0.5, instructions="i", tools=[WEATHER], tool_choice="none")
    check("Response", response)
    assert response["id"].startswith("resp_")
    assert (response["object"], response["model"], response["status"]) == ("response", "org/writer", "completed")
    assert (response["error"], response["incomplete_details"]) == (None, None)
    (item,) = response["output"]
    assert item.pop("id").startswith("msg_")
    assert item == {
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "one two three", "annotations": [], "logprobs": []}],
    }
    assert response["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 6,
    }
    assert (response["metadata"], response["temperature"], response["instructions"]) == ({"a": "b"}, 0.5, "i")
    assert (response["tool_choice"], response["tools"][0]["name"], response["store"]) == ("none", "weather", False)


def test_reasoning_text_and_calls_are_items_in_the_order_they_were_made(client: httpx.Client, check: Check) -> None:
    response = ask(client, "caller", tools=[WEATHER])
    check("Response", response)
    reasoning, message, weather, clock = response["output"]
    assert (reasoning["type"], reasoning["content"]) == (
        "reasoning",
        [{"type": "reasoning_text", "text": "Let me see."}],
    )
    assert message["content"][0]["text"] == "Calling."
    assert weather.pop("id").startswith("fc_")
    assert weather == {
        "type": "function_call",
        "status": "completed",
        "call_id": "call_a",
        "name": "weather",
        "arguments": '{"city": "Rome"}',
    }
    assert (clock["call_id"], clock["name"], clock["arguments"]) == ("call_b", "clock", "{}")
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 4


def test_an_answer_that_is_cut_off_is_incomplete(client: httpx.Client, check: Check) -> None:
    response = ask(client, max_output_tokens=2)
    check("Response", response)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (response["output"][0]["status"], response["completed_at"]) == ("incomplete", None)
    assert response["output"][0]["content"][0]["text"] == "one two"


def test_of_several_calls_the_last_one_is_incomplete_when_it_is_cut_off(client: httpx.Client, check: Check) -> None:
    response = ask(client, "cut-caller")
    check("Response", response)
    assert [(item["name"], item["arguments"], item["status"]) for item in response["output"]] == [
        ("clock", "{}", "completed"),
        ("weather", '{"ci', "incomplete"),
    ]
    assert response["status"] == "incomplete"


def test_an_empty_answer_is_a_message_all_the_same(client: httpx.Client, check: Check) -> None:
    response = ask(client, input="")
    check("Response", response)
    assert response["output"][0]["content"][0]["text"] == ""


def test_logprobs_come_when_they_are_included(client: httpx.Client, check: Check) -> None:
    response = ask(client, "unsure", **LOGPROBS)
    check("Response", response)
    tokens = response["output"][0]["content"][0]["logprobs"]
    assert [(token["token"], token["bytes"], len(token["top_logprobs"])) for token in tokens] == [
        ("H", [72], 2),
        ("\ufffd", [0xC3], 1),
        ("\ufffd", [0xA9], 0),
    ]


# ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_events_are_those_of_the_contract_in_its_order(client: httpx.Client, check: Check) -> None:
    found = events(client)
    check_all(check, found)
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in found if "delta" in event] == ["one", " two", " three"]
    assert (found[0]["response"]["status"], found[0]["response"]["output"]) == ("in_progress", [])
    assert found[2]["item"]["status"] == "in_progress"
    assert len({event["item_id"] for event in found if "item_id" in event}) == 1
    assert found[7]["text"] == found[8]["part"]["text"] == "one two three"
    assert found[9]["item"] == found[10]["response"]["output"][0]


def test_each_item_has_its_own_events(client: httpx.Client, check: Check) -> None:
    found = events(client, "caller")
    check_all(check, found)
    told = [(event["type"].removeprefix("response."), event.get("output_index")) for event in found]
    assert told[2:-1] == [
        ("output_item.added", 0),
        ("content_part.added", 0),
        ("reasoning_text.delta", 0),
        ("reasoning_text.delta", 0),
        ("reasoning_text.done", 0),
        ("content_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.delta", 2),
        ("output_item.added", 3),
        ("function_call_arguments.delta", 3),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("function_call_arguments.done", 3),
        ("output_item.done", 3),
    ]
    done = [event for event in found if event["type"] == "response.function_call_arguments.done"]
    assert [(event["name"], event["arguments"]) for event in done] == [
        ("weather", '{"city": "Rome"}'),
        ("clock", "{}"),
    ]


@pytest.mark.parametrize("model", ["writer", "caller", "only-caller", "json", "unsure", "brief"])
def test_the_stream_ends_with_what_the_whole_response_is(client: httpx.Client, model: str) -> None:
    found = events(client, model, **LOGPROBS)
    whole = ask(client, model, **LOGPROBS)
    assert alike(found[-1]["response"]) == alike(whole)
    assert found[-1]["type"] == f"response.{whole['status']}"
    added = {event["output_index"]: event["item"]["id"] for event in found if event["type"].endswith("item.added")}
    assert [item["id"] for item in found[-1]["response"]["output"]] == [added[index] for index in sorted(added)]


def test_logprobs_come_with_their_delta(client: httpx.Client, check: Check) -> None:
    found = events(client, "unsure", **LOGPROBS)
    check_all(check, found)
    (delta,) = (event for event in found if event["type"].endswith("output_text.delta"))
    (done,) = (event for event in found if event["type"].endswith("output_text.done"))
    assert [token["token"] for token in delta["logprobs"]] == ["H", "\ufffd", "\ufffd"]
    assert delta["logprobs"] == done["logprobs"]


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_error_before_the_first_event_has_its_status(client: httpx.Client, refusal: Refusal) -> None:
    for stream in (False, True):
        answer = client.post(RESPONSES, json={"model": "brief", "input": "one two three four five", "stream": stream})
        assert refusal(answer) == (400, "input", "context_length_exceeded")


def test_an_error_in_mid_stream_fails_the_response(client: httpx.Client, check: Check) -> None:
    found = events(client, "failing-writer")
    check_all(check, found)
    error, failed = found[-2:]
    assert (error["type"], error["code"]) == ("error", "backend_error")
    assert "told to fail" in error["message"]
    response = failed["response"]
    assert (failed["type"], response["status"]) == ("response.failed", "failed")
    assert (response["error"]["code"], response["output"][0]["status"]) == ("server_error", "incomplete")
    assert response["output"][0]["content"][0]["text"] == "one"


def test_an_error_after_the_first_event_is_a_status_if_nothing_was_sent(client: httpx.Client, refusal: Refusal) -> None:
    answer = client.post(RESPONSES, json={"model": "failing-writer", "input": "x"})
    assert refusal(answer) == (500, None, "backend_error")


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": 5}, "input", "invalid_value"),
        ({"input": ["x"]}, "input", "invalid_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_value"),
        ({"background": True}, "background", "unsupported_value"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "previous_response_not_found"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_value"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_value"),
    ],
)
def test_a_refused_value_is_named(
    client: httpx.Client, refusal: Refusal, change: dict[str, Any], param: str, code: str
) -> None:
    answer = client.post(RESPONSES, json={"model": "writer", "input": "x"} | change)
    status, named, told = refusal(answer)
    assert (status, (named or "").split("[")[0], told) == (400, param, code)


@pytest.mark.parametrize(
    "change",
    [
        dict.fromkeys(("instructions", "tools", "text", "reasoning", "include", "metadata", "store", "background")),
        {"store": True, "background": False, "truncation": "auto", "user": "u", "service_tier": "auto"},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}, "reasoning": {"effort": None, "summary": "auto"}},
        {"include": ["reasoning.encrypted_content"], "max_tool_calls": 3, "stream_options": {"include_obfuscation": 0}},
    ],
)
def test_every_field_of_the_contract_is_taken(client: httpx.Client, check: Check, change: dict[str, Any]) -> None:
    response = ask(client, **change)
    check("Response", response)
    assert response["output"][0]["content"][0]["text"] == "one two three"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_no_response_is_kept(client: httpx.Client, refusal: Refusal, method: str, prefix: str) -> None:
    name = ask(client, store=True)["id"]
    answer = client.request(method, f"{prefix}/responses/{name}")
    assert refusal(answer) == (404, "response_id", "not_found")
