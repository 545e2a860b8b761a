"""A response in the making: its items, and the events that tell of them."""

import time
from typing import Any

import msgspec

from yapit.errors import RateLimitError, RequestError, YapitError
from yapit.schemas import TextChunk, TokenLogprob, ToolCallPart, Usage
from yapit.server.calls import new_id
from yapit.server.writing.response_shapes import (
    IncompleteDetails,
    ModelResponse,
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputText,
    ReasoningText,
    ResponseError,
    response_usage,
)
from yapit.server.writing.streams import encode
from yapit.server.writing.tokens import written

_EARLY = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Item:
    """An item while it is written.

    Args:
        index: its place in the output.
        prefix: of its id.
        delta: the event that tells of a further piece.
        place: further fields that say where a piece belongs.
    """

    def __init__(self, index: int, prefix: str, delta: str, **place: int) -> None:
        self.id = new_id(prefix)
        self.place: dict[str, Any] = {"item_id": self.id, "output_index": index, **place}
        self.index = index
        self.pieces: list[str] = []
        # What is the same in all of its deltas is encoded once.
        name = delta.encode()
        self._head = b'event: %b\ndata: {"type":"%b",%b,"delta":' % (name, name, encode(self.place)[1:-1])

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def delta(self, piece: str, number: int, further: bytes = b"") -> bytes:
        self.pieces.append(piece)
        return b'%b%b%b,"sequence_number":%d}\n\n' % (self._head, encode(piece), further, number)


class _Message(_Item):
    def __init__(self, index: int) -> None:
        super().__init__(index, "msg_", "response.output_text.delta", content_index=0)
        self.logprobs: list[TokenLogprob] = []

    def part(self) -> OutputText:
        return OutputText(text=self.text, logprobs=written(self.logprobs))

    def item(self, status: str) -> OutputMessage:
        return OutputMessage(id=self.id, status=status, content=[self.part()] if status != "in_progress" else [])


class _Reasoning(_Item):
    def __init__(self, index: int) -> None:
        super().__init__(index, "rs_", "response.reasoning_text.delta", content_index=0)

    def part(self) -> ReasoningText:
        return ReasoningText(text=self.text)

    def item(self, status: str) -> OutputReasoning:
        return OutputReasoning(id=self.id, status=status, content=[self.part()] if status != "in_progress" else [])


class _Call(_Item):
    def __init__(self, index: int, first: ToolCallPart) -> None:
        super().__init__(index, "fc_", "response.function_call_arguments.delta")
        self.call_id = first.id or new_id("call_")
        self.name = first.name or ""

    def item(self, status: str) -> OutputCall:
        return OutputCall(id=self.id, status=status, call_id=self.call_id, name=self.name, arguments=self.text)


class ResponseEvents:
    """Collects a response from its chunks, and writes the events.

    Args:
        response: as it is before anything is written.
    """

    def __init__(self, response: ModelResponse) -> None:
        self.response = response
        self._number = 0
        self._items: list[_Message | _Reasoning | _Call] = []
        self._open: _Message | _Reasoning | None = None
        self._calls: dict[int, _Call] = {}
        self._done: dict[int, OutputItem] = {}
        self._finish = "stop"

    def begin(self) -> bytes:
        """Return the first events."""
        return self._lifecycle("response.created") + self._lifecycle("response.in_progress")

    def piece(self, chunk: TextChunk) -> bytes:
        """Return the events for a further piece."""
        events: list[bytes] = []
        if chunk.reasoning:
            item = self._continued(_Reasoning, events)
            events.append(item.delta(chunk.reasoning, self._next()))
        if chunk.text or chunk.logprobs:
            message = self._continued(_Message, events)
            message.logprobs += chunk.logprobs
            tokens = b',"logprobs":%b' % (encode(written(chunk.logprobs)) if chunk.logprobs else b"[]")
            events.append(message.delta(chunk.text, self._next(), tokens))
        for part in chunk.tool_calls:
            if part.index not in self._calls:
                self._close(events)
                call = self._calls[part.index] = _Call(len(self._items), part)
                self._add(call, events)
            if part.arguments:
                events.append(self._calls[part.index].delta(part.arguments, self._next()))
        self._finish = chunk.finish_reason or self._finish
        return b"".join(events)

    def end(self, usage: Usage) -> bytes:
        """Return the last events; then `response` is final."""
        events: list[bytes] = []
        if not self._items:
            self._continued(_Message, events)
        early = _EARLY.get(self._finish)
        status = "incomplete" if early else "completed"
        # Only what was being written when it ended can be incomplete.
        self._close(events, status)
        for call in self._calls.values():
            self._close_call(call, events, status if call is self._items[-1] else "completed")
        self.response = msgspec.structs.replace(
            self.response,
            status=status,
            completed_at=None if early else int(time.time()),
            incomplete_details=IncompleteDetails(early) if early else None,
            output=[self._done[item.index] for item in self._items],
            usage=response_usage(usage),
        )
        events.append(self._lifecycle(f"response.{status}"))
        return b"".join(events)

    def failed(self, error: YapitError) -> bytes:
        """Return the last events for a response that fails."""
        told = {"code": error.code, "message": error.message, "param": error.param}
        event = self._event("error", told)
        self.response = msgspec.structs.replace(
            self.response,
            status="failed",
            error=ResponseError(_code(error), error.message),
            output=[self._done.get(item.index) or item.item("incomplete") for item in self._items],
        )
        return event + self._lifecycle("response.failed")

    def _continued(self, kind: type[Any], events: list[bytes]) -> Any:
        """Return the open item if it is of this kind, or else a new one."""
        if not isinstance(self._open, kind):
            self._close(events)
            self._open = kind(len(self._items))
            self._add(self._open, events)
            part = {"part": self._open.part()}
            events.append(self._event("response.content_part.added", self._open.place | part))
        return self._open

    def _add(self, item: _Message | _Reasoning | _Call, events: list[bytes]) -> None:
        self._items.append(item)
        told = {"output_index": item.index, "item": item.item("in_progress")}
        events.append(self._event("response.output_item.added", told))

    def _close(self, events: list[bytes], status: str = "completed") -> None:
        """End the message, or the reasoning, that is open."""
        item, self._open = self._open, None
        if item is None:
            return
        said = {"text": item.text}
        if isinstance(item, _Message):
            events.append(
                self._event("response.output_text.done", item.place | said | {"logprobs": written(item.logprobs)})
            )
        else:
            events.append(self._event("response.reasoning_text.done", item.place | said))
        events.append(self._event("response.content_part.done", item.place | {"part": item.part()}))
        self._finished(item, events, status)

    def _close_call(self, call: _Call, events: list[bytes], status: str) -> None:
        told = call.place | {"name": call.name, "arguments": call.text}
        events.append(self._event("response.function_call_arguments.done", told))
        self._finished(call, events, status)

    def _finished(self, item: _Message | _Reasoning | _Call, events: list[bytes], status: str) -> None:
        done = self._done[item.index] = item.item(status)
        events.append(self._event("response.output_item.done", {"output_index": item.index, "item": done}))

    def _lifecycle(self, name: str) -> bytes:
        return self._event(name, {"response": self.response})

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        told = {"type": name, **fields, "sequence_number": self._next()}
        return b"event: %b\ndata: %b\n\n" % (name.encode(), encode(told))

    def _next(self) -> int:
        self._number += 1
        return self._number - 1


def _code(error: YapitError) -> str:
    """Return the nearest of the codes that a failed response may have."""
    match error:
        case RateLimitError():
            return "rate_limit_exceeded"
        case RequestError():
            return "invalid_prompt"
    return "server_error"
