"""A chat's answers as the chunks that OpenAI's clients put together again."""

import time

from msgspec import Struct

from yapit.generation import Generation
from yapit.schemas import TextChunk, ToolCallPart
from yapit.server.calls import new_id
from yapit.server.writing.streams import DONE, completion_usage, encode
from yapit.server.writing.tokens import written


class FunctionCall(Struct, frozen=True, kw_only=True):
    """The name of a function and its arguments, which are JSON text."""

    name: str
    arguments: str


class _FunctionPart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str | None = None
    arguments: str


class _CallPart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    index: int
    id: str | None = None
    type: str | None = None
    function: _FunctionPart


class ChatEvents:
    """Writes the chunks of one response.

    What is the same in all of them is encoded once: a token costs little more than its own text.

    Args:
        model: the model's id.
        usage: whether the usage comes before the end.
        functions: calls have the form that they had before there were tools.
    """

    def __init__(self, model: str, *, usage: bool, functions: bool) -> None:
        head = {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._head = b"data: " + encode(head)[:-1]
        self._usage = usage
        self._functions = functions
        self._end = b',"usage":null}\n\n' if usage else b"}\n\n"
        self._plain = b',"logprobs":null,"finish_reason":null}]' + self._end
        self._begun: dict[int, bytes] = {}  # what comes before a delta of each answer
        self._calls = set[tuple[int, int]]()

    def piece(self, index: int, chunk: TextChunk) -> bytes:
        """Return the chunks for a further piece of answer number `index`."""
        events = []
        begin = self._begun.get(index)
        if begin is None:
            begin = self._begun[index] = b'%b,"choices":[{"index":%d,"delta":' % (self._head, index)
            events.append(begin + b'{"role":"assistant","content":"","refusal":null}' + self._plain)
        if chunk.reasoning:
            events.append(begin + b'{"reasoning_content":' + encode(chunk.reasoning) + b"}" + self._plain)
        if chunk.logprobs:
            events.append(begin + b'{"content":' + encode(chunk.text) + b'},"logprobs":{"content":')
            events.append(encode(written(chunk.logprobs)) + b',"refusal":null},"finish_reason":null}]' + self._end)
        elif chunk.text:
            events.append(begin + b'{"content":' + encode(chunk.text) + b"}" + self._plain)
        events += [begin + self._call(index, part) + self._plain for part in chunk.tool_calls]
        if chunk.finish_reason is not None:
            events.append(
                begin + b'{},"logprobs":null,"finish_reason":' + self._finish(chunk.finish_reason) + self._end
            )
        return b"".join(events)

    def end(self, generation: Generation) -> bytes:
        """Return what comes after the last piece."""
        if not self._usage:
            return DONE
        return b'%b,"choices":[],"usage":%b}\n\n%b' % (self._head, encode(completion_usage(generation.usage)), DONE)

    def _call(self, index: int, part: ToolCallPart) -> bytes:
        """Return the delta of a call; only its first one says what is called."""
        first = (index, part.index) not in self._calls
        self._calls.add((index, part.index))
        function = _FunctionPart(name=(part.name or "") if first else None, arguments=part.arguments)
        if self._functions:
            # There is room for one call only.
            return b'{"function_call":%b}' % encode(function) if part.index == 0 else b"{}"
        name, kind = (part.id or new_id("call_"), "function") if first else (None, None)
        return b'{"tool_calls":[%b]}' % encode(_CallPart(index=part.index, id=name, type=kind, function=function))

    def _finish(self, reason: str) -> bytes:
        return encode("function_call" if self._functions and reason == "tool_calls" else reason) + b"}]"
