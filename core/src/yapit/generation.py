"""From prompts to answers: the model's defaults, several answers at once, what they took together."""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import msgspec
from msgspec import Struct

from yapit.catalog import Model
from yapit.engine import Engine
from yapit.errors import BackendError
from yapit.schemas import GenerateRequest, TextChunk, TokenLogprob, ToolCallPart, Usage
from yapit.settling import settle
from yapit.tasks import GENERATE, TASKS

Piece = tuple[int, TextChunk]
_AHEAD = 64  # chunks of all answers together that nobody has read yet
_FILLED = (
    "response_format",
    "reasoning_effort",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "stop",
    "seed",
)
_FIELDS = {field.name: field for field in msgspec.structs.fields(GenerateRequest)}
_KNOWN = {field.name for task in TASKS.values() for field in msgspec.structs.fields(task.request)}


def with_defaults(model: Model, request: GenerateRequest) -> GenerateRequest:
    """Return the request with the model's `defaults` where it says nothing.

    A default that is no field of any request is one of the model's own options.

    Raises:
        BackendError: the catalog has a default that its field does not take.
    """
    filled: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in model.defaults.items():
        if name in _FILLED and getattr(request, name) in (None, (), {}):
            filled[name] = _converted(model, name, value)
        elif name not in _KNOWN:
            options[name] = value
    if options:
        filled["options"] = options | request.options
    return msgspec.structs.replace(request, **filled) if filled else request


def _converted(model: Model, name: str, value: object) -> object:
    if name == "stop" and isinstance(value, str):
        return (value,)
    try:
        return msgspec.convert(value, _FIELDS[name].type, strict=False)
    except msgspec.ValidationError as error:
        raise BackendError(f"The model '{model.id}' has a wrong default '{name}': {error}") from error


class ToolCall(Struct):
    """A call of a function, as far as it is known."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class Answer:
    """One answer, collected from its chunks."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, list[ToolCallPart]] = {}
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason = "stop"

    def add(self, chunk: TextChunk) -> None:
        """Take the next chunk."""
        if chunk.text:
            self._text.append(chunk.text)
        if chunk.reasoning:
            self._reasoning.append(chunk.reasoning)
        for part in chunk.tool_calls:
            self._tool_calls.setdefault(part.index, []).append(part)
        self.logprobs += chunk.logprobs
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """What the model thought first."""
        return "".join(self._reasoning)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls it makes, in order."""
        return [
            ToolCall(
                id=next((part.id for part in parts if part.id), ""),
                name=next((part.name for part in parts if part.name), ""),
                arguments="".join(part.arguments for part in parts),
            )
            for _, parts in sorted(self._tool_calls.items())
        ]

    @property
    def mean_logprob(self) -> float:
        """How likely the model found it, by token; minus infinity if it did not say."""
        known = [token.logprob for token in self.logprobs if not math.isnan(token.logprob)]
        return sum(known) / len(known) if known else float("-inf")


class _End(Struct, frozen=True):
    """What follows the last piece; the error if it is not all there."""

    error: BaseException | None


class Generation:
    """Answers in the making: iterate `pieces`, or await `answers`; then `usage` is final.

    The first answer is begun alone. The others begin with its first chunk: the request has then been let in, and the
    prompt has been read.

    Args:
        engine: runs one call for each answer.
        model: writes.
        requests: one for each prompt.
        n: answers to each; answer number `i` is to request `i // n`. With a seed, each has a seed of its own.
    """

    def __init__(self, engine: Engine, model: Model, requests: Sequence[GenerateRequest], n: int = 1) -> None:
        self._engine = engine
        self._model = model
        self._n = n
        self._calls = [call for request in requests for call in _repeated(with_defaults(model, request), n)]
        self._usages: dict[int, Usage] = {}

    def pieces(self) -> AsyncGenerator[Piece, None]:
        """Yield each chunk with the number of its answer; each answer ends with a finish reason."""
        return self._call(0) if len(self._calls) == 1 else self._merged()

    async def answers(self) -> list[Answer]:
        """Return the whole answers."""
        answers = [Answer() for _ in self._calls]
        async with aclosing(self.pieces()) as pieces:
            async for index, chunk in pieces:
                answers[index].add(chunk)
        return answers

    @property
    def usage(self) -> Usage:
        """What all answers took; a prompt with several answers counts once."""
        written = self._usages.values()
        read = {index // self._n: usage for index, usage in sorted(self._usages.items(), reverse=True)}.values()
        return Usage(
            input_tokens=sum(usage.input_tokens for usage in read),
            output_tokens=sum(usage.output_tokens for usage in written),
            cached_tokens=sum(usage.cached_tokens for usage in read),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in written),
        )

    async def _call(self, index: int) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of one answer."""
        finished = False
        async with aclosing(self._engine.stream(GENERATE, self._model, self._calls[index])) as chunks:
            async for chunk in chunks:
                assert isinstance(chunk, TextChunk)  # noqa: S101 - the executor checked it; this tells mypy
                if chunk.usage is not None:
                    self._usages[index] = chunk.usage
                finished = finished or chunk.finish_reason is not None
                yield index, chunk
        if not finished:
            yield index, TextChunk(finish_reason="stop")

    async def _merged(self) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of all answers while a task collects them."""
        made: asyncio.Queue[Piece | _End] = asyncio.Queue(_AHEAD)
        making = asyncio.create_task(self._make(made), name="generation")
        try:
            while not isinstance(piece := await made.get(), _End):
                yield piece
            if piece.error is not None:
                raise piece.error
        finally:
            making.cancel()
            await settle(making)

    async def _make(self, made: "asyncio.Queue[Piece | _End]") -> None:
        error: BaseException | None = None
        try:
            await self._run(made)
        except Exception as failure:  # noqa: BLE001 - the reader raises it again
            # Of a group the first is the one for which the other calls were stopped.
            error = failure.exceptions[0] if isinstance(failure, ExceptionGroup) else failure
        await made.put(_End(error))

    async def _run(self, made: "asyncio.Queue[Piece | _End]") -> None:
        """Run the calls, all but the first at the same time."""
        begun = asyncio.Event()

        async def run(index: int) -> None:
            async with aclosing(self._call(index)) as pieces:
                async for piece in pieces:
                    begun.set()
                    await made.put(piece)

        async with AsyncExitStack() as held, asyncio.TaskGroup() as group:
            group.create_task(run(0))
            await begun.wait()
            if not await self._all_kept():
                await held.enter_async_context(self._engine.hold(GENERATE, self._model))
            for index in range(1, len(self._calls)):
                group.create_task(run(index))

    async def _all_kept(self) -> bool:
        """Tell whether the cache has every other answer, so that the model is not needed."""
        for call in self._calls[1:]:
            if not await self._engine.knows(GENERATE, self._model, call):
                return False
        return True


def _repeated(request: GenerateRequest, n: int) -> Iterator[GenerateRequest]:
    """Yield the request once for each answer."""
    for number in range(n):
        seed = request.seed
        yield request if seed is None else msgspec.structs.replace(request, seed=seed + number)
