"""What the three routes make of a body, seen by an adapter that keeps its requests."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from litestar.testing import TestClient

from yapit import GenerateRequest, InvalidInputError, TextChunk, TextGenerator
from yapit.server.app import Application

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
USER = {"role": "user", "content": "x"}
F = {"type": "function", "function": {"name": "f", "description": "does", "parameters": {"type": "object"}}}
G = {"type": "function", "function": {"name": "g", "strict": True}}
FLAT_F = {"type": "function", "name": "f", "description": "does", "parameters": {"type": "object"}}
FLAT_G = {"type": "function", "name": "g", "strict": True}
LEAST: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [USER]},
    COMPLETIONS: {"prompt": "x"},
    RESPONSES: {"input": "x"},
}
Serving = Callable[..., TestClient[Application]]
Refusal = Callable[[httpx.Response], tuple[int, str | None, str | None]]


class Keeper(TextGenerator):
    """Keeps its requests; refuses what the option `refuse` names."""

    def __init__(self) -> None:
        self.requests: list[GenerateRequest] = []

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        self.requests.append(request)
        if "refuse" in request.options:
            raise InvalidInputError(f"Invalid '{request.options['refuse']}': no.", param=request.options["refuse"])
        yield TextChunk(text="y", finish_reason="stop")


@pytest.fixture(scope="module")
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture(scope="module")
def client(keeper: Keeper, serving: Serving) -> Iterator[TestClient[Application]]:
    defaults = {"max_tokens": 50, "beams": 3}
    with serving(keeper, keeper={}, tuned={"defaults": defaults}) as found:
        yield found


@pytest.fixture
def sent(client: TestClient[Application], keeper: Keeper) -> Callable[..., list[GenerateRequest]]:
    def send(path: str, **body: Any) -> list[GenerateRequest]:
        keeper.requests.clear()
        answer = client.post(path, json={"model": "keeper", **LEAST[path], **body})
        assert answer.status_code == 200, answer.text
        return list(keeper.requests)

    return send


Sent = Callable[..., list[GenerateRequest]]
SAMPLING = {"temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.5}


# ── fields ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_field_of_a_chat_arrives(sent: Sent) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True}}
    (request,) = sent(
        CHAT,
        **SAMPLING,
        max_completion_tokens=9,
        max_tokens=8,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"5": -1, "6": 2.5},
        stop=["a", ""],
        seed=4,
        logprobs=True,
        top_logprobs=3,
        response_format=schema,
        reasoning_effort="high",
        parallel_tool_calls=False,
        options={"own": 1},
        chat_template_kwargs={"enable_thinking": False},
        continue_final_message=True,
        add_generation_prompt=False,
    )
    assert request == GenerateRequest(
        messages=(USER,),
        **SAMPLING,  # type: ignore[arg-type]  # floats and an integer
        max_tokens=9,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={5: -1.0, 6: 2.5},
        stop=("a",),
        seed=4,
        logprobs=3,
        response_format=schema,
        reasoning_effort="high",
        parallel_tool_calls=False,
        options={
            "own": 1,
            "chat_template_kwargs": {"enable_thinking": False},
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, GenerateRequest(messages=(USER,))),
        (COMPLETIONS, GenerateRequest(prompt="x", max_tokens=16)),
        (RESPONSES, GenerateRequest(messages=(USER,))),
    ],
)
def test_what_a_client_leaves_out_is_left_out(sent: Sent, path: str, body: GenerateRequest) -> None:
    assert sent(path) == [body]
    assert sent(path, **dict.fromkeys([*SAMPLING, "stream", "options", "tools", "stop", "text", "include"])) == [body]


@pytest.mark.parametrize(("top_k", "meant"), [(-1, 0), (0, 0), (5, 5)])
def test_minus_one_is_all_tokens_as_zero_is(sent: Sent, top_k: int, meant: int) -> None:
    assert [request.top_k for request in sent(CHAT, top_k=top_k)] == [meant]


def test_logprobs_without_a_number_are_those_of_the_written_tokens(sent: Sent) -> None:
    assert sent(CHAT, logprobs=True)[0].logprobs == 0
    assert sent(CHAT, logprobs=False)[0].logprobs is None
    assert sent(COMPLETIONS, logprobs=0)[0].logprobs == 0


def test_every_field_of_a_completion_arrives(sent: Sent) -> None:
    (request,) = sent(
        COMPLETIONS, **SAMPLING, suffix="after", max_tokens=0, echo=True, logprobs=2, seed=1, stop="a", options={"o": 1}
    )
    assert request == GenerateRequest(
        prompt="x",
        **SAMPLING,  # type: ignore[arg-type]  # floats and an integer
        suffix="after",
        max_tokens=0,
        echo=True,
        logprobs=2,
        seed=1,
        stop=("a",),
        options={"o": 1},
    )


def test_a_models_own_defaults_are_before_those_of_the_route(sent: Sent) -> None:
    assert (sent(COMPLETIONS, model="tuned")[0].max_tokens, sent(COMPLETIONS)[0].max_tokens) == (50, 16)
    (request,) = sent(CHAT, model="tuned", options={"own": 1})
    assert (request.max_tokens, request.options) == (50, {"beams": 3, "own": 1})
    assert sent(RESPONSES, model="tuned", max_output_tokens=5)[0].max_tokens == 5


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        (None, [""]),
        ("", [""]),
        ("a", ["a"]),
        (["a", ""], ["a", ""]),
        ([5, 6], [(5, 6)]),
        ([[5], [6, 7]], [(5,), (6, 7)]),
    ],
)
def test_a_prompt_is_text_or_tokens_or_several(sent: Sent, prompt: object, prompts: list[object]) -> None:
    assert [request.prompt for request in sent(COMPLETIONS, prompt=prompt)] == prompts


def test_the_best_of_some_are_chosen_by_logprobs_that_nobody_else_asked_for(sent: Sent) -> None:
    assert [request.logprobs for request in sent(COMPLETIONS, best_of=3, seed=1)] == [0, 0, 0]
    assert [request.logprobs for request in sent(COMPLETIONS, best_of=2, n=2, seed=1)] == [None, None]
    assert [request.logprobs for request in sent(COMPLETIONS, best_of=2, logprobs=4, seed=1)] == [4, 4]


def test_every_field_of_a_response_arrives(sent: Sent) -> None:
    (request,) = sent(
        RESPONSES,
        **SAMPLING,
        instructions="Be brief.",
        max_output_tokens=9,
        tools=[FLAT_F, FLAT_G],
        tool_choice="required",
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True}},
        reasoning={"effort": "low", "summary": "auto"},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        chat_template_kwargs={"a": 1},
        options={"own": 1},
    )
    assert request == GenerateRequest(
        messages=({"role": "system", "content": "Be brief."}, USER),
        **SAMPLING,  # type: ignore[arg-type]  # floats and an integer
        max_tokens=9,
        tools=(F, G),
        tool_choice="required",
        parallel_tool_calls=False,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
        },
        reasoning_effort="low",
        logprobs=2,
        options={"own": 1, "chat_template_kwargs": {"a": 1}},
    )
    assert sent(RESPONSES, top_logprobs=2)[0].logprobs is None
    assert sent(RESPONSES, text={"format": {"type": "json_object"}})[0].response_format == {"type": "json_object"}
    assert sent(RESPONSES, text={"format": {"type": "text"}, "verbosity": "low"})[0].response_format is None


# ── tools ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


@pytest.mark.parametrize(
    ("choice", "tools", "meant"),
    [
        (None, (F, G), "auto"),
        ("auto", (F, G), "auto"),
        ("none", (), "auto"),
        ("required", (F, G), "required"),
        (named("g"), (G,), "required"),
        (allowed("auto", "f"), (F,), "auto"),
        (allowed("required", "g", "f"), (F, G), "required"),
    ],
)
def test_the_choice_of_tools_narrows_them(sent: Sent, choice: object, tools: tuple[object, ...], meant: str) -> None:
    (request,) = sent(CHAT, tools=[F, G], tool_choice=choice)
    assert (request.tools, request.tool_choice) == (tools, meant)


@pytest.mark.parametrize(
    ("choice", "tools", "meant"),
    [
        ({"type": "function", "name": "g"}, (G,), "required"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            (F,),
            "auto",
        ),
    ],
)
def test_a_response_has_its_own_spelling_of_that(
    sent: Sent, choice: object, tools: tuple[object, ...], meant: str
) -> None:
    (request,) = sent(RESPONSES, tools=[FLAT_F, FLAT_G], tool_choice=choice)
    assert (request.tools, request.tool_choice) == (tools, meant)


@pytest.mark.parametrize(("choice", "names"), [(None, "fg"), ("auto", "fg"), ("none", ""), ({"name": "g"}, "g")])
def test_functions_of_the_older_form_are_tools_of_which_one_is_called(sent: Sent, choice: object, names: str) -> None:
    (request,) = sent(CHAT, functions=[F["function"], G["function"]], function_call=choice)
    assert [tool["function"]["name"] for tool in request.tools] == list(names)
    assert all(tool["type"] == "function" for tool in request.tools)
    assert (request.tool_choice, request.parallel_tool_calls) == ("required" if names == "g" else "auto", False)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [F, {"function": {"name": "x"}}]}, "tools[1].type", "missing_required_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": 1}]}, "tools[0].function", "invalid_value"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "missing_required_parameter"),
        ({"tools": [named("")]}, "tools[0].function.name", "invalid_value"),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": []}}]},
            "tools[0].function.parameters",
            "invalid_value",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "description": 5}}]},
            "tools[0].function.description",
            "invalid_value",
        ),
        ({"tools": [F, G, F]}, "tools", "invalid_value"),
        ({"tools": [named(f"f{number}") for number in range(129)]}, "tools", "invalid_value"),
        ({"tools": [F], "tool_choice": named("h")}, "tool_choice", "invalid_value"),
        ({"tools": [F], "tool_choice": allowed("auto", "h")}, "tool_choice", "invalid_value"),
        ({"tools": [F], "tool_choice": allowed("never", "f")}, "tool_choice", "invalid_value"),
        ({"tools": [F], "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice", "invalid_value"),
        ({"tools": [F], "tool_choice": "f"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": named("f")}, "tool_choice", "invalid_value"),
        ({"functions": [{"name": "f"}], "tools": [F]}, "functions", "invalid_value"),
        ({"functions": [{}]}, "functions[0].name", "missing_required_parameter"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call", "invalid_value"),
    ],
)
def test_a_tool_that_is_none_is_named(
    client: TestClient[Application], refusal: Refusal, body: dict[str, Any], param: str, code: str
) -> None:
    answer = client.post(CHAT, json={"model": "keeper", "messages": [USER], **body})
    assert refusal(answer) == (400, param, code)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "function", "name": "x", "parameters": 1}]}, "tools[0].parameters", "invalid_value"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type", "invalid_value"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name", "missing_required_parameter"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": 1}}},
            "text.format.schema",
            "invalid_value",
        ),
    ],
)
def test_a_response_names_them_in_its_own_spelling(
    client: TestClient[Application], refusal: Refusal, body: dict[str, Any], param: str, code: str
) -> None:
    answer = client.post(RESPONSES, json={"model": "keeper", "input": "x", **body})
    assert refusal(answer) == (400, param, code)


# ── messages ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_conversation_arrives_as_it_was_but_with_todays_roles(sent: Sent) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    (request,) = sent(
        CHAT,
        messages=[
            {"role": "developer", "content": "d", "name": "boss"},
            {"role": "system", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": [{"type": "text", "text": "u"}, image]},
            {"role": "assistant", "tool_calls": [call], "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": "1", "content": "t"},
            {"role": "assistant", "content": "a", "refusal": None, "audio": None, "function_call": None},
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "tool_calls": []},
        ],
    )
    assert request.messages == (
        {"role": "system", "content": "d", "name": "boss"},
        {"role": "system", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "content": [{"type": "text", "text": "u"}, image]},
        {"role": "assistant", "tool_calls": [call], "reasoning_content": "hm", "content": None},
        {"role": "tool", "tool_call_id": "1", "content": "t"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "no"},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
    )


def test_a_call_and_its_answer_in_the_older_form_are_a_tools(sent: Sent) -> None:
    called = {"name": "f", "arguments": "{}"}
    (request,) = sent(
        CHAT,
        messages=[
            USER,
            {"role": "assistant", "content": None, "function_call": called},
            {"role": "function", "name": "f", "content": "5"},
        ],
    )
    _, assistant, tool = request.messages
    (call,) = assistant["tool_calls"]
    assert call["function"] == called
    assert tool == {"role": "tool", "tool_call_id": call["id"], "name": "f", "content": "5"}


def test_an_image_given_by_its_address_alone_is_an_image(sent: Sent) -> None:
    content = [{"type": "image_url", "image_url": "http://h/x.png"}]
    (request,) = sent(CHAT, messages=[{"role": "user", "content": content}])
    assert request.messages[0]["content"] == [{"type": "image_url", "image_url": {"url": "http://h/x.png"}}]


FUNCTION_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ({"role": "robot", "content": "x"}, "role", "invalid_value"),
        ({"role": ["user"], "content": "x"}, "role", "invalid_value"),
        ({"content": "x"}, "role", "missing_required_parameter"),
        ({"role": "user"}, "content", "missing_required_parameter"),
        ({"role": "user", "content": None}, "content", "missing_required_parameter"),
        ({"role": "user", "content": 5}, "content", "invalid_value"),
        ({"role": "user", "content": "x", "name": 5}, "name", "invalid_value"),
        ({"role": "system"}, "content", "missing_required_parameter"),
        ({"role": "assistant"}, "content", "missing_required_parameter"),
        ({"role": "assistant", "tool_calls": {}}, "tool_calls", "invalid_value"),
        ({"role": "assistant", "tool_calls": [1]}, "tool_calls[0]", "invalid_value"),
        ({"role": "assistant", "tool_calls": [FUNCTION_CALL | {"id": None}]}, "tool_calls[0].id", None),
        ({"role": "assistant", "tool_calls": [FUNCTION_CALL | {"function": None}]}, "tool_calls[0].function", None),
        (
            {"role": "assistant", "tool_calls": [FUNCTION_CALL | {"function": {"name": "f", "arguments": {}}}]},
            "tool_calls[0].function.arguments",
            "invalid_value",
        ),
        (
            {"role": "assistant", "tool_calls": [FUNCTION_CALL | {"type": "custom"}]},
            "tool_calls[0].type",
            "invalid_value",
        ),
        ({"role": "assistant", "function_call": {"name": "f"}}, "function_call.arguments", None),
        ({"role": "tool", "content": "x"}, "tool_call_id", "missing_required_parameter"),
        ({"role": "tool", "tool_call_id": "1"}, "content", "missing_required_parameter"),
        ({"role": "function", "content": "x"}, "name", "missing_required_parameter"),
        ({"role": "user", "content": ["x"]}, "content[0]", "invalid_value"),
        ({"role": "user", "content": [{"text": "x"}]}, "content[0].type", "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "video"}]}, "content[0].type", "invalid_value"),
        ({"role": "user", "content": [{"type": {"a": 1}}]}, "content[0].type", "invalid_value"),
        ({"role": "user", "content": [{"type": "text"}]}, "content[0].text", "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}, "content[0].type", "invalid_value"),
        (
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]},
            "content[1].image_url",
            "missing_required_parameter",
        ),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "content[0].image_url.url", None),
        ({"role": "user", "content": [{"type": "image_url", "image_url": 5}]}, "content[0].image_url", "invalid_value"),
        (
            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "content[0].type",
            "invalid_value",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]},
            "content[0]",
            "unsupported_value",
        ),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "content[0]", "unsupported_value"),
    ],
)
def test_a_message_that_is_none_is_named(
    client: TestClient[Application], refusal: Refusal, message: dict[str, Any], param: str, code: str | None
) -> None:
    answer = client.post(CHAT, json={"model": "keeper", "messages": [USER, message]})
    assert refusal(answer) == (400, f"messages[1].{param}", code or "missing_required_parameter")


# ── items ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_items_are_messages(sent: Sent) -> None:
    (request,) = sent(
        RESPONSES,
        instructions="i",
        input=[
            {"role": "developer", "content": "d"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                ],
            },
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "a", "annotations": []},
                    {"type": "refusal", "refusal": "b"},
                ],
            },
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "[]"},
            {"type": "function_call_output", "call_id": "1", "output": "one"},
            {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]},
            {"type": "function_call", "call_id": "3", "name": "f", "arguments": "{}"},
        ],
    )

    def call(name: str, function: str, arguments: str) -> dict[str, Any]:
        return {"id": name, "type": "function", "function": {"name": function, "arguments": arguments}}

    assert request.messages == (
        {"role": "system", "content": "i"},
        {"role": "system", "content": "d"},
        {"role": "user", "content": "u"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
            ],
        },
        {"role": "assistant", "content": "ab", "tool_calls": [call("1", "f", "{}"), call("2", "g", "[]")]},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
        {"role": "assistant", "content": None, "tool_calls": [call("3", "f", "{}")]},
    )


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({"content": "x"}, ".type", "missing_required_parameter"),
        ({"type": "item_reference", "id": "x"}, ".type", "unsupported_value"),
        ({"type": ["message"]}, ".type", "unsupported_value"),
        ({"type": "message", "content": "x"}, ".role", "missing_required_parameter"),
        ({"role": "tool", "content": "x"}, ".role", "invalid_value"),
        ({"role": {}, "content": "x"}, ".role", "missing_required_parameter"),
        ({"role": "user"}, ".content", "missing_required_parameter"),
        ({"role": "user", "content": 5}, ".content", "invalid_value"),
        ({"role": "user", "content": [5]}, ".content[0]", "invalid_value"),
        ({"role": "user", "content": [{}]}, ".content[0].type", "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "input_text"}]}, ".content[0].text", "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "input_file"}]}, ".content[0]", "unsupported_value"),
        ({"role": "user", "content": [{"type": []}]}, ".content[0]", "unsupported_value"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, ".content[0].file_id", None),
        ({"role": "user", "content": [{"type": "input_image"}]}, ".content[0].image_url", "missing_required_parameter"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, ".call_id", "missing_required_parameter"),
        ({"type": "function_call_output", "call_id": "1"}, ".output", "missing_required_parameter"),
    ],
)
def test_an_item_that_is_none_is_named(
    client: TestClient[Application], refusal: Refusal, item: dict[str, Any], param: str, code: str | None
) -> None:
    answer = client.post(RESPONSES, json={"model": "keeper", "input": [USER, item], "instructions": "i"})
    assert refusal(answer) == (400, f"input[1]{param}", code or "unsupported_value")


# ── errors of the adapter ─────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        (CHAT, {}, ("messages", "messages")),
        (CHAT, {}, ("max_tokens", "max_tokens")),
        (CHAT, {"max_tokens": 5}, ("max_tokens", "max_tokens")),
        (CHAT, {"max_completion_tokens": 5}, ("max_tokens", "max_completion_tokens")),
        (CHAT, {"logprobs": True}, ("logprobs", "logprobs")),
        (COMPLETIONS, {}, ("suffix", "suffix")),
        (COMPLETIONS, {}, ("prompt", "prompt")),
        (RESPONSES, {}, ("messages", "input")),
        (RESPONSES, {}, ("messages[0].content", "input[0].content")),
        (RESPONSES, {}, ("max_tokens", "max_output_tokens")),
        (RESPONSES, {}, ("response_format", "text.format")),
        (RESPONSES, {}, ("response_format.json_schema", "text.format.json_schema")),
        (RESPONSES, {}, ("reasoning_effort", "reasoning.effort")),
        (RESPONSES, {}, ("tools", "tools")),
        (
            RESPONSES,
            {
                "instructions": "i",
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]},
                    {"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]},
                ],
            },
            ("messages[2].content[1]", "input[1].content[1]"),
        ),
    ],
)
def test_an_adapters_error_names_the_field_as_the_client_does(
    client: TestClient[Application], refusal: Refusal, path: str, body: dict[str, Any], names: tuple[str, str]
) -> None:
    engines, clients = names
    for stream in (False, True):
        said = {"model": "keeper", **LEAST[path], **body, "stream": stream, "options": {"refuse": engines}}
        answer = client.post(path, json=said)
        assert refusal(answer) == (400, clients, "invalid_value")
        assert answer.json()["error"]["message"] == f"Invalid '{clients}': no."
