"""OpenAI's clients, LangChain and LiteLLM chat, complete and respond, with models whose answers are known."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import litellm
import openai
import pytest
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

from live import WRITERS, Server, serve

MESSAGES: Any = [{"role": "user", "content": "one two three"}]
TEXT = "one two three"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}},
    {"type": "function", "function": {"name": "clock", "parameters": {}}},
]
CALLS = [("call_a", "weather", '{"city": "Rome"}'), ("call_b", "clock", "{}")]


class City(BaseModel):
    """What the model `json` writes."""

    city: str
    degrees: int


def weather(city: str) -> str:
    """Return the weather of a city."""
    return city


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("writers")
    (folder / "models.yaml").write_text(WRITERS)
    with serve(folder) as running:
        yield running


@pytest.fixture
def client(writers: Server) -> Iterator[openai.OpenAI]:
    """One that refuses whatever does not match its own models."""
    with openai.OpenAI(
        base_url=f"{writers.url}/v1", api_key="unused", max_retries=0, _strict_response_validation=True
    ) as opened:
        yield opened


# ── OpenAI, Python ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_openais_client_chats(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="writer", messages=MESSAGES, n=2, logprobs=True, top_logprobs=1)
    assert [choice.message.content for choice in answer.choices] == [TEXT, TEXT]
    assert answer.choices[0].logprobs
    assert [token.token for token in answer.choices[0].logprobs.content or []] == ["one", " two", " three"]
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 6)
    assert answer._request_id


def test_openais_client_reads_chunks(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="writer", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    ) as stream:
        *chunks, last = stream
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert (last.choices, last.usage and last.usage.total_tokens) == ([], 6)


def test_openais_helper_puts_calls_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="caller", messages=MESSAGES, tools=TOOLS) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert {"content.done", "tool_calls.function.arguments.done"} <= kinds
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []] == CALLS
    assert message.content == "Calling."


def test_openais_client_calls_tools_and_tells_what_they_returned(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="only-caller", messages=MESSAGES, tools=TOOLS, tool_choice="required")
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = message.tool_calls or []
    again: Any = [*MESSAGES, message, {"role": "tool", "tool_call_id": call.id, "content": "sunny in Rome"}]
    answer = client.chat.completions.create(model="writer", messages=again, tools=TOOLS)
    assert answer.choices[0].message.content == "sunny in Rome"


def test_openais_client_parses_what_has_a_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="json", messages=MESSAGES, response_format=City)
    assert answer.choices[0].message.parsed == City(city="Rome", degrees=21)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="writer", messages=MESSAGES, response_format=City, max_tokens=1)


def test_openais_client_completes(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="writer", prompt=["a", "b c"], n=2, logprobs=1, echo=True)
    assert [choice.text for choice in answer.choices] == ["a a", "a a", "b c b c", "b c b c"]
    assert answer.choices[3].logprobs
    assert answer.choices[3].logprobs.text_offset == [0, 1, 3, 5]


def test_openais_client_reads_the_chunks_of_a_completion(writers: Server) -> None:
    # Not strict: its model has no null for a finish reason that is not there yet, which every server sends.
    with (
        openai.OpenAI(base_url=f"{writers.url}/v1", api_key="unused", max_retries=0) as lenient,
        lenient.completions.create(model="writer", prompt=TEXT, stream=True) as stream,
    ):
        assert [chunk.choices[0].text for chunk in stream] == ["one", " two", " three", ""]


def test_openais_client_gets_responses(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}]
    response = client.responses.create(model="caller", input="x", tools=tools)
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]
    assert response.output_text == "Calling."
    assert response.usage
    assert response.usage.output_tokens_details.reasoning_tokens == 3
    outputs: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": f"sunny, {item.name}"}
        for item in response.output
        if item.type == "function_call"
    ]
    conversation: Any = [*MESSAGES, *response.output, *outputs]
    again = client.responses.create(model="writer", input=conversation, tools=tools)
    assert again.output_text == "sunny, clock"


def test_openais_client_reads_the_events_of_a_response(client: openai.OpenAI) -> None:
    with client.responses.create(model="caller", input="x", stream=True) as stream:
        kinds = [event.type for event in stream]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    with client.responses.stream(model="caller", input="x") as helper:
        for _ in helper:
            pass
        assert helper.get_final_response().output_text == "Calling."


def test_openais_client_parses_a_response_that_has_a_schema(client: openai.OpenAI) -> None:
    assert client.responses.parse(model="json", input="x", text_format=City).output_parsed == City(
        city="Rome", degrees=21
    )


def test_openais_client_raises_its_own_errors(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "one two three four five"}]
    with pytest.raises(openai.BadRequestError) as early:
        client.chat.completions.create(model="brief", messages=long, stream=True)
    assert (early.value.code, early.value.param) == ("context_length_exceeded", "messages")
    with (
        client.chat.completions.create(model="failing-writer", messages=MESSAGES, stream=True) as stream,
        pytest.raises(openai.APIError, match="told to fail"),
    ):
        list(stream)
    with client.responses.create(model="failing-writer", input="x", stream=True) as events:
        assert [event.type for event in events][-2:] == ["error", "response.failed"]


# ── OpenAI, Node ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_node_client_chats_completes_and_responds(writers: Server, node: Callable[..., Any]) -> None:
    seen = node("chat.mjs", f"{writers.url}/v1")
    assert (seen["answers"], seen["usage"]) == ([TEXT, TEXT], 9)
    assert (seen["chunks"], seen["streamedUsage"]) == (["one", " two", " three"], 6)
    assert ([tuple(call) for call in seen["calls"]], seen["finish"]) == (CALLS, "tool_calls")
    assert seen["parsed"] == {"city": "Rome", "degrees": 21}
    assert seen["completions"] == [["a", [0]], ["b c", [0, 1]]]
    assert seen["pieces"] == ["a", " b", ""]
    assert (seen["output"][:2], seen["text"]) == (["reasoning", "message"], "Calling.")
    assert (seen["events"][0], seen["events"][-1]) == ("response.created", "response.completed")
    assert seen["finalText"] == "one two"
    assert seen["early"] == {
        "kind": "BadRequestError",
        "status": 400,
        "code": "context_length_exceeded",
        "param": "messages",
    }
    assert (seen["late"]["kind"], seen["late"]["code"]) == ("APIError", "backend_error")


# ── LangChain ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def connected(writers: Server) -> Iterator[dict[str, Any]]:
    """What LangChain's classes are made with; the transport is closed here, since they have no way to be closed."""
    with httpx.Client() as transport:
        yield {"base_url": f"{writers.url}/v1", "api_key": "unused", "max_retries": 0, "http_client": transport}


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_chats(connected: dict[str, Any], *, responses: bool) -> None:
    model = ChatOpenAI(**connected, model="writer", use_responses_api=responses)
    answer = model.invoke(TEXT)
    assert answer.text == TEXT
    assert answer.usage_metadata
    assert answer.usage_metadata["total_tokens"] == 6


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_streams(connected: dict[str, Any], *, responses: bool) -> None:
    model = ChatOpenAI(**connected, model="writer", use_responses_api=responses, stream_usage=True)
    whole = AIMessageChunk(content="")
    texts = []
    for chunk in model.stream(TEXT):
        assert isinstance(chunk, AIMessageChunk)
        texts.append(chunk.text)
        whole += chunk
    assert [text for text in texts if text] == ["one", " two", " three"]
    assert whole.usage_metadata
    assert whole.usage_metadata["total_tokens"] == 6


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_binds_tools(connected: dict[str, Any], *, responses: bool) -> None:
    model = ChatOpenAI(**connected, model="caller", use_responses_api=responses).bind_tools([weather])
    wanted = [("call_a", "weather", {"city": "Rome"}), ("call_b", "clock", {})]
    answer = model.invoke("x")
    assert [(call["id"], call["name"], call["args"]) for call in answer.tool_calls] == wanted
    whole = AIMessageChunk(content="")
    for chunk in model.stream("x"):
        assert isinstance(chunk, AIMessageChunk)
        whole += chunk
    assert [(call["id"], call["name"], call["args"]) for call in whole.tool_calls] == wanted


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_langchain_asks_for_structured_output(connected: dict[str, Any], method: Any) -> None:
    model = ChatOpenAI(**connected, model="json").with_structured_output(City, method=method)
    assert model.invoke("x") == City(city="Rome", degrees=21)


def test_langchain_completes(connected: dict[str, Any]) -> None:
    model = OpenAI(**connected, model="writer")
    assert model.invoke(TEXT) == TEXT
    assert model.generate(["a", "b c"]).generations[1][0].text == "b c"
    assert "".join(model.stream(TEXT)) == TEXT


# ── LiteLLM ───────────────────────────────────────────────────────────────────────────────────────────────────────────
providers = pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])


@pytest.fixture
def asked(writers: Server) -> dict[str, Any]:
    return {"api_base": f"{writers.url}/v1", "api_key": "unused", "max_retries": 0, "timeout": 20}


@providers
def test_litellm_chats(asked: dict[str, Any], provider: str) -> None:
    answer = litellm.completion(f"{provider}/writer", messages=MESSAGES, **asked)
    assert (answer.choices[0].message.content, answer.usage.total_tokens) == (TEXT, 6)
    answer = litellm.completion(f"{provider}/caller", messages=MESSAGES, tools=TOOLS, **asked)
    message = answer.choices[0].message
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls] == CALLS
    assert message.reasoning_content == "Let me see."


@providers
def test_litellm_streams(asked: dict[str, Any], provider: str) -> None:
    chunks = list(litellm.completion(f"{provider}/writer", messages=MESSAGES, stream=True, **asked))
    assert [text for chunk in chunks if (text := chunk.choices[0].delta.content)] == ["one", " two", " three"]
    assert chunks[-1].choices[0].finish_reason == "stop"


@providers
def test_litellm_completes(asked: dict[str, Any], provider: str) -> None:
    answer = litellm.text_completion(model=f"{provider}/writer", prompt=TEXT, **asked)
    assert answer.choices[0].text == TEXT
    chunks = litellm.text_completion(model=f"{provider}/writer", prompt=TEXT, stream=True, **asked)
    assert "".join(chunk.choices[0].text or "" for chunk in chunks) == TEXT
