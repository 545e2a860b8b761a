"""`/v1/chat/completions`: a conversation in, its next message out."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from yapit.errors import InvalidInputError
from yapit.generation import Answer, Generation
from yapit.schemas import GenerateRequest
from yapit.server.calls import new_id
from yapit.server.problems import PROBLEMS, spelled
from yapit.server.requests import keep_loaded
from yapit.server.services import services
from yapit.server.writing.bodies import Choosing, Count, Effort, Fields, chosen, options_of, wants_usage
from yapit.server.writing.chat_events import ChatEvents, FunctionCall
from yapit.server.writing.messages import checked
from yapit.server.writing.streams import (
    CompletionUsage,
    StreamedOperation,
    completion_usage,
    encode,
    streamed,
    whole,
)
from yapit.server.writing.tokens import WrittenToken, written
from yapit.server.writing.tools import Toolbox, answer_format, toolbox


class ChatBody(Choosing, frozen=True, kw_only=True):
    """A conversation, and how it shall go on; an unknown field is ignored.

    Args:
        messages: what was said.
        max_completion_tokens: to write at most; as many as fit when absent.
        max_tokens: its older name.
        tools: functions that the model may call.
        tool_choice: none, auto, required, a function, or allowed ones.
        parallel_tool_calls: false allows one call in an answer.
        functions: the older form of tools.
        function_call: the older form of their choice: none, auto, or a name in an object.
        response_format: what the text must be: text, a JSON object, or JSON of a schema.
        reasoning_effort: how much the model thinks first, if it does.
        logprobs: tell how likely each token was.
        top_logprobs: with each token as many of the likeliest ones.
        modalities: text.
        audio: refused, as is search.
        web_search_options: refused.
        chat_template_kwargs: for the template of the model.
        continue_final_message: go on with the last message instead of beginning a new one.
        add_generation_prompt: false lets the model write who speaks.
    """

    messages: Annotated[list[Fields], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None
    tools: list[Fields] | None = None
    tool_choice: str | Fields | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Fields] | None = None
    function_call: str | Fields | None = None
    response_format: Fields | None = None
    reasoning_effort: Effort | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    modalities: list[str] | None = None
    audio: Fields | None = None
    web_search_options: Fields | None = None
    chat_template_kwargs: Fields | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


class ToolCall(Struct, frozen=True, kw_only=True):
    """A call that the model makes; `arguments` is JSON text."""

    id: str
    type: str = "function"
    function: FunctionCall


class ChatMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the model says; `content` is null if it only calls functions."""

    role: str
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] = []
    function_call: FunctionCall | None = None


class ChatLogprobs(Struct, frozen=True):
    """The tokens of the text."""

    content: list[WrittenToken]
    refusal: None = None


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """All answers, and what they took."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage


@post(
    ["/v1/chat/completions", "/chat/completions"],
    status_code=200,
    responses={200: ResponseSpec(ChatCompletion, description="The answers, or events."), **PROBLEMS},
    operation_class=StreamedOperation,
    tags=["chat"],
)
async def create_chat_completion(request: Request[Any, Any, Any], data: JSONBody[ChatBody]) -> ASGIApp:
    """Answer `messages`: streamed as it is written with `stream`."""
    engine = services(request).engine
    model = engine.catalog[data.model]
    keep_loaded(data.keep_alive)
    generation = Generation(engine, model, [_request(data)], data.n or 1)
    names = {"max_tokens": "max_completion_tokens"} if data.max_completion_tokens else {}
    if data.stream:
        events = ChatEvents(model.id, usage=wants_usage(data), functions=data.functions is not None)
        return streamed(_events(generation, events, names))
    return whole(_whole(generation, model.id, data, names))


async def _events(generation: Generation, events: ChatEvents, names: dict[str, str]) -> AsyncGenerator[bytes, None]:
    with spelled(names):
        async with aclosing(generation.pieces()) as pieces:
            async for index, chunk in pieces:
                yield events.piece(index, chunk)
    yield events.end(generation)


async def _whole(
    generation: Generation, model: str, body: ChatBody, names: dict[str, str]
) -> AsyncGenerator[bytes, None]:
    with spelled(names):
        answers = await generation.answers()
    yield encode(
        ChatCompletion(
            id=new_id("chatcmpl-"),
            created=int(time.time()),
            model=model,
            choices=[_choice(index, answer, body) for index, answer in enumerate(answers)],
            usage=completion_usage(generation.usage),
        )
    )


def _choice(index: int, answer: Answer, body: ChatBody) -> ChatChoice:
    calls = [FunctionCall(name=call.name, arguments=call.arguments) for call in answer.tool_calls]
    older = body.functions is not None and bool(calls)
    ids = [call.id or new_id("call_") for call in answer.tool_calls]
    tools = [ToolCall(id=name, function=call) for name, call in zip(ids, calls, strict=True)]
    message = ChatMessage(
        role="assistant",
        content=answer.text if answer.text or not calls else None,
        refusal=None,
        reasoning_content=answer.reasoning or None,
        tool_calls=[] if older else tools,
        function_call=calls[0] if older else None,
    )
    finish = "function_call" if older and answer.finish_reason == "tool_calls" else answer.finish_reason
    logprobs = ChatLogprobs(written(answer.logprobs)) if body.logprobs else None
    return ChatChoice(index=index, message=message, logprobs=logprobs, finish_reason=finish)


def _request(body: ChatBody) -> GenerateRequest:
    """Return the request for one answer.

    Raises:
        InvalidInputError: fields do not go together, or ask for what there is not.
    """
    if body.top_logprobs is not None and not body.logprobs:
        message = "Invalid 'top_logprobs': it is only allowed when 'logprobs' is true."
        raise InvalidInputError(message, param="top_logprobs")
    if body.modalities is not None and body.modalities != ["text"]:
        raise _unsupported("modalities", "the only one is 'text'")
    if body.web_search_options is not None:
        raise _unsupported("web_search_options", "there is no search")
    tools = _tools(body)
    return GenerateRequest(
        messages=checked(body.messages),
        tools=tools.tools,
        tool_choice=tools.choice,
        parallel_tool_calls=body.parallel_tool_calls is not False and body.functions is None,
        response_format=answer_format(body.response_format),
        reasoning_effort=body.reasoning_effort,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        options=options_of(body, "chat_template_kwargs", "continue_final_message", "add_generation_prompt"),
        **chosen(body),
    )


def _tools(body: ChatBody) -> Toolbox:
    if body.functions is None:
        return toolbox(body.tools or [], body.tool_choice)
    if body.tools is not None:
        raise InvalidInputError("Invalid 'functions': 'tools' is there as well.", param="functions")
    choice = body.function_call
    if isinstance(choice, dict):
        choice = {"type": "function", "function": choice}
    tools = [{"type": "function", "function": function} for function in body.functions]
    with spelled({"tool_choice": "function_call"}):
        return toolbox(tools, choice, "functions", "")


def _unsupported(field: str, reason: str) -> InvalidInputError:
    return InvalidInputError(f"Invalid '{field}': {reason}.", param=field, code="unsupported_value")


ROUTES = [create_chat_completion]
