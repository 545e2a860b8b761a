"""What a response consists of."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from yapit.schemas import Usage
from yapit.server.writing.tokens import WrittenToken


class OutputText(Struct, frozen=True, kw_only=True, tag="output_text"):
    """The text of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[WrittenToken] = []


class ReasoningText(Struct, frozen=True, kw_only=True, tag="reasoning_text"):
    """What the model thought."""

    text: str


class OutputMessage(Struct, frozen=True, kw_only=True, tag="message"):
    """What the model says."""

    id: str
    status: str
    role: str = "assistant"
    content: list[OutputText]


class OutputReasoning(Struct, frozen=True, kw_only=True, tag="reasoning"):
    """What the model thinks before it says something."""

    id: str
    status: str
    summary: list[Any] = []
    content: list[ReasoningText]


class OutputCall(Struct, frozen=True, kw_only=True, tag="function_call"):
    """A call of a function; `arguments` is JSON text."""

    id: str
    status: str
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | OutputReasoning | OutputCall


class InputDetails(Struct, frozen=True):
    """Of the tokens read, those that had been read before, and those that were kept for later."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct, frozen=True):
    """Of the tokens written, those for reasoning."""

    reasoning_tokens: int


class ResponseUsage(Struct, frozen=True, kw_only=True):
    """Tokens read and written."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class IncompleteDetails(Struct, frozen=True):
    """Why a response ends early."""

    reason: str


class ResponseError(Struct, frozen=True):
    """Why a response failed."""

    code: str
    message: str


class ModelResponse(Struct, frozen=True, kw_only=True):
    """A response: what was asked, and what came of it; it has no usage before its end."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None = None
    status: str = "in_progress"
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool
    previous_response_id: None = None
    reasoning: dict[str, Any]
    store: bool = False
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float | None
    truncation: str = "disabled"
    usage: ResponseUsage | UnsetType = UNSET
    metadata: dict[str, str]


def response_usage(usage: Usage) -> ResponseUsage:
    """Return the usage as responses tell it."""
    return ResponseUsage(
        input_tokens=usage.input_tokens,
        input_tokens_details=InputDetails(usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputDetails(usage.reasoning_tokens),
        total_tokens=usage.input_tokens + usage.output_tokens,
    )
