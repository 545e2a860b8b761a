"""What the routes share in how they answer: headers, ids, usage, and the event for an error."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Operation, Schema
from litestar.types import ASGIApp
from msgspec import Struct

from yapit.errors import YapitError
from yapit.schemas import Usage
from yapit.server.problems import envelope
from yapit.server.responses import ChunkedResponse, sse

encode = msgspec.json.Encoder().encode
DONE = sse(b"[DONE]")
_STREAMED = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class PromptDetails(Struct, frozen=True):
    """Of the tokens read, those that had been read before."""

    cached_tokens: int


class CompletionDetails(Struct, frozen=True):
    """Of the tokens written, those for reasoning."""

    reasoning_tokens: int


class CompletionUsage(Struct, frozen=True, kw_only=True):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


def completion_usage(usage: Usage) -> CompletionUsage:
    """Return the usage as chat and completions tell it."""
    return CompletionUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=PromptDetails(usage.cached_tokens),
        completion_tokens_details=CompletionDetails(usage.reasoning_tokens),
    )


@dataclass
class StreamedOperation(Operation):
    """Documents that the answer may be a stream of events."""

    def __post_init__(self) -> None:
        event = Schema(type="object")  # type: ignore[arg-type]  # a plain OpenAPI type name
        content = self.responses["200"].content  # type: ignore[index, union-attr]  # filled by Litestar before this runs
        assert content is not None  # noqa: S101 - likewise
        content["text/event-stream"] = OpenAPIMediaType(schema=event)


def streamed(events: AsyncGenerator[bytes, None], on_error: Callable[[YapitError], bytes] | None = None) -> ASGIApp:
    """Return the response that sends events."""
    return ChunkedResponse(events, _same, "text/event-stream", _STREAMED, on_error=on_error or _error_event)


def whole(body: AsyncGenerator[bytes, None]) -> ASGIApp:
    """Return the response that sends one JSON object."""
    return ChunkedResponse(body, _same, "application/json", whole=True)


def _same(body: bytes) -> bytes:
    return body


def _error_event(error: YapitError) -> bytes:
    return sse(encode(envelope(error)))
