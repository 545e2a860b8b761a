"""`/v1/responses`: items in, items out. Nothing is kept, so every request brings the whole conversation."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any

from litestar import Request, Router, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from yapit.catalog import Model
from yapit.errors import InvalidInputError, NotFoundError
from yapit.generation import Generation
from yapit.schemas import GenerateRequest
from yapit.server.calls import new_id
from yapit.server.problems import PROBLEMS, spelled
from yapit.server.requests import keep_loaded
from yapit.server.services import services
from yapit.server.writing.bodies import Count, Effort, Fields, Sampling, options_of, sampled
from yapit.server.writing.messages import missing
from yapit.server.writing.response_events import ResponseEvents
from yapit.server.writing.response_input import Conversation, conversation
from yapit.server.writing.response_shapes import ModelResponse
from yapit.server.writing.streams import StreamedOperation, encode, streamed, whole
from yapit.server.writing.tools import Toolbox, answer_format, toolbox

_LOGPROBS = "message.output_text.logprobs"
_NAMES = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text.format"}
_NAMES |= {"reasoning_effort": "reasoning.effort", "logprobs": "top_logprobs"}


class TextSettings(Struct, frozen=True, kw_only=True):
    """What the text must be: text, a JSON object, or JSON of a schema."""

    format: Fields | None = None


class ReasoningSettings(Struct, frozen=True, kw_only=True):
    """How much the model thinks first, if it does."""

    effort: Effort | None = None


class ResponseBody(Sampling, frozen=True, kw_only=True):
    """What was said, and how the model shall answer; an unknown field is ignored.

    Args:
        input: a text, or items: messages, calls of functions and what they returned.
        instructions: a system message before them.
        max_output_tokens: to write at most; as many as fit when absent.
        tools: functions that the model may call.
        tool_choice: none, auto, required, a function, or allowed ones.
        parallel_tool_calls: false allows one call in an answer.
        text: what the text must be.
        reasoning: how much the model thinks first.
        include: `message.output_text.logprobs` tells how likely each token was.
        top_logprobs: with each token as many of the likeliest ones.
        metadata: comes back with the response.
        chat_template_kwargs: for the template of the model.
        store: accepted; nothing is kept.
        background: refused when true.
        previous_response_id: refused, since nothing is kept.
        conversation: refused likewise.
        prompt: refused likewise.
    """

    input: str | list[Fields] | None = None
    instructions: str | None = None
    max_output_tokens: Count | None = None
    tools: list[Fields] | None = None
    tool_choice: str | Fields | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    metadata: dict[str, str] | None = None
    chat_template_kwargs: Fields | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | Fields | None = None
    prompt: Fields | None = None


@post(
    ["/v1/responses", "/responses"],
    status_code=200,
    responses={200: ResponseSpec(ModelResponse, description="The response, or events."), **PROBLEMS},
    operation_class=StreamedOperation,
    tags=["chat"],
)
async def create_response(request: Request[Any, Any, Any], data: JSONBody[ResponseBody]) -> ASGIApp:
    """Answer `input`: streamed as it is written with `stream`."""
    engine = services(request).engine
    model = engine.catalog[data.model]
    keep_loaded(data.keep_alive)
    _check(data)
    if data.input is None:
        raise missing("input")
    said = conversation(data.input, data.instructions)
    generation = Generation(engine, model, [_request(data, said)])
    events = ResponseEvents(_begun(data, model))
    names = _NAMES | said.names
    if data.stream:
        return streamed(_events(generation, events, names), events.failed)
    return whole(_whole(generation, events, names))


@get(sync_to_thread=False, responses=PROBLEMS, tags=["chat"])
def retrieve_response(response_id: FromPath[str]) -> ModelResponse:
    """Say that there is no such response: none is kept."""
    raise _not_kept(response_id)


@delete(sync_to_thread=False, status_code=200, responses=PROBLEMS, tags=["chat"])
def delete_response(response_id: FromPath[str]) -> ModelResponse:
    """Say that there is no such response: none is kept."""
    raise _not_kept(response_id)


async def _events(
    generation: Generation, events: ResponseEvents, names: Mapping[str, str]
) -> AsyncGenerator[bytes, None]:
    head = events.begin()
    with spelled(names):
        async with aclosing(generation.pieces()) as pieces:
            async for _, chunk in pieces:
                yield head + events.piece(chunk)
                head = b""
    yield events.end(generation.usage)


async def _whole(
    generation: Generation, events: ResponseEvents, names: Mapping[str, str]
) -> AsyncGenerator[bytes, None]:
    with spelled(names):
        async with aclosing(generation.pieces()) as pieces:
            async for _, chunk in pieces:
                events.piece(chunk)
    events.end(generation.usage)
    yield encode(events.response)


def _check(body: ResponseBody) -> None:
    """Raise `InvalidInputError` for what needs a memory."""
    if body.previous_response_id is not None:
        message = f"Previous response with id '{body.previous_response_id}' not found: this server keeps no responses."
        raise InvalidInputError(message, param="previous_response_id", code="previous_response_not_found")
    wanted = {"conversation": body.conversation, "prompt": body.prompt, "background": body.background or None}
    for field, value in wanted.items():
        if value is not None:
            message = f"Invalid '{field}': it is not supported, since this server keeps no responses."
            raise InvalidInputError(message, param=field, code="unsupported_value")


def _request(body: ResponseBody, said: Conversation) -> GenerateRequest:
    tools = _tools(body)
    return GenerateRequest(
        messages=tuple(said.messages),
        tools=tools.tools,
        tool_choice=tools.choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        response_format=_format(body.text),
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
        max_tokens=body.max_output_tokens,
        logprobs=(body.top_logprobs or 0) if _LOGPROBS in (body.include or ()) else None,
        options=options_of(body, "chat_template_kwargs"),
        **sampled(body),
    )


def _tools(body: ResponseBody) -> Toolbox:
    """Return the tools in the chat's shape, where the function has an object of its own."""
    tools = [
        tool
        if tool.get("type") != "function"
        else {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
        for tool in body.tools or []
    ]
    return toolbox(tools, _choice(body.tool_choice), inner="")


def _choice(choice: str | Fields | None) -> str | Fields | None:
    match choice:
        case {"type": "function", "name": name}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": [*tools]}:
            inner = {"mode": mode, "tools": [_choice(tool) for tool in tools]}
            return {"type": "allowed_tools", "allowed_tools": inner}
    return choice


def _format(text: TextSettings | None) -> Fields | None:
    wanted = text.format if text is not None else None
    if wanted is not None and wanted.get("type") == "json_schema":
        schema = {key: value for key, value in wanted.items() if key != "type"}
        wanted = {"type": "json_schema", "json_schema": schema}
    return answer_format(wanted, "text.format", "")


def _begun(body: ResponseBody, model: Model) -> ModelResponse:
    """Return the response as it is before anything is written."""
    function = {"type": "function", "description": None, "parameters": None, "strict": None}
    return ModelResponse(
        id=new_id("resp_"),
        created_at=int(time.time()),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        model=model.id,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        reasoning={"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        temperature=body.temperature,
        text={"format": (body.text.format if body.text else None) or {"type": "text"}},
        tool_choice=body.tool_choice or "auto",
        tools=[function | tool for tool in body.tools or []],
        top_logprobs=body.top_logprobs or 0,
        top_p=body.top_p,
        metadata=body.metadata or {},
    )


def _not_kept(name: str) -> NotFoundError:
    return NotFoundError(f"Response with id '{name}' not found: this server keeps no responses.", param="response_id")


ROUTES: list[HTTPRouteHandler | Router] = [
    create_response,
    # In routers, so that what Litestar answers to OPTIONS names both methods.
    *(
        Router(path=f"{prefix}/responses/{{response_id:str}}", route_handlers=[retrieve_response, delete_response])
        for prefix in ("/v1", "")
    ),
]
