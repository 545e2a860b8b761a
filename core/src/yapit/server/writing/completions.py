"""`/v1/completions`: a text in, how it goes on out."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from yapit.catalog import Model
from yapit.generation import Answer, Generation
from yapit.schemas import GenerateRequest, TextChunk
from yapit.server.calls import new_id
from yapit.server.problems import PROBLEMS
from yapit.server.requests import keep_loaded
from yapit.server.services import services
from yapit.server.writing.bodies import Choosing, chosen, options_of, wants_usage
from yapit.server.writing.messages import wrong
from yapit.server.writing.streams import (
    DONE,
    CompletionUsage,
    StreamedOperation,
    completion_usage,
    encode,
    streamed,
    whole,
)
from yapit.server.writing.tokens import ListedTokens, listed

_MAX_TOKENS = 16  # OpenAI's default
_MOST_ANSWERS = 2048
Prompt = str | list[str | int | list[int]]
Text = str | tuple[int, ...]


class CompletionBody(Choosing, frozen=True, kw_only=True):
    """Texts, and how they shall go on; an unknown field is ignored.

    Args:
        prompt: a text, its tokens, or a list of either; an empty text when absent.
        suffix: what comes after the text to be written.
        max_tokens: to write at most; the model's default when absent, or 16.
        echo: begin with the prompt.
        best_of: write as many answers, and return the `n` that the model finds likeliest.
        logprobs: tell how likely each token was, and as many of the likeliest ones.
    """

    prompt: Prompt | None = None
    suffix: str | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=0, le=20)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None


class CompletionChoice(Struct, frozen=True, kw_only=True):
    """One answer, or a piece of one."""

    index: int
    text: str
    logprobs: ListedTokens | None
    finish_reason: str | None


class Completion(Struct, frozen=True, kw_only=True):
    """All answers, and what they took."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


@post(
    ["/v1/completions", "/completions"],
    status_code=200,
    responses={200: ResponseSpec(Completion, description="The answers, or events."), **PROBLEMS},
    operation_class=StreamedOperation,
    tags=["chat"],
)
async def create_completion(request: Request[Any, Any, Any], data: JSONBody[CompletionBody]) -> ASGIApp:
    """Continue `prompt`: streamed as it is written with `stream`."""
    engine = services(request).engine
    model = engine.catalog[data.model]
    keep_loaded(data.keep_alive)
    made = max(data.best_of or 0, data.n or 1)
    generation = Generation(engine, model, _requests(data, model, made), made)
    if data.stream:
        return streamed(_events(generation, CompletionEvents(model.id, data)))
    return whole(_whole(generation, model, data, made))


class CompletionEvents:
    """Writes the chunks of one response; what is the same in all of them is encoded once."""

    def __init__(self, model: str, body: CompletionBody) -> None:
        head = {"id": new_id("cmpl-"), "object": "text_completion", "created": int(time.time()), "model": model}
        self._head = b"data: " + encode(head)[:-1]
        self._usage = wants_usage(body)
        self._logprobs = body.logprobs is not None
        self._end = b'],"usage":null}\n\n' if self._usage else b"]}\n\n"
        self._offsets: dict[int, int] = {}

    def piece(self, index: int, chunk: TextChunk) -> bytes:
        """Return the chunk for a further piece of answer number `index`; nothing if there is nothing to say."""
        if not (chunk.text or chunk.logprobs or chunk.finish_reason):
            return b""
        tokens = None
        if self._logprobs and chunk.logprobs:
            tokens = listed(chunk.logprobs, self._offsets.get(index, 0))
            self._offsets[index] = self._offsets.get(index, 0) + sum(map(len, tokens.tokens))
        choice = CompletionChoice(index=index, text=chunk.text, logprobs=tokens, finish_reason=chunk.finish_reason)
        return self._head + b',"choices":[' + encode(choice) + self._end

    def end(self, generation: Generation) -> bytes:
        """Return what comes after the last piece."""
        if not self._usage:
            return DONE
        return b'%b,"choices":[],"usage":%b}\n\n%b' % (self._head, encode(completion_usage(generation.usage)), DONE)


async def _events(generation: Generation, events: CompletionEvents) -> AsyncGenerator[bytes, None]:
    async with aclosing(generation.pieces()) as pieces:
        async for index, chunk in pieces:
            yield events.piece(index, chunk)
    yield events.end(generation)


async def _whole(generation: Generation, model: Model, body: CompletionBody, made: int) -> AsyncGenerator[bytes, None]:
    answers = await generation.answers()
    if made > (body.n or 1):
        answers = _best(answers, made, body.n or 1)
    yield encode(
        Completion(
            id=new_id("cmpl-"),
            created=int(time.time()),
            model=model.id,
            choices=[
                CompletionChoice(
                    index=index,
                    text=answer.text,
                    logprobs=None if body.logprobs is None else listed(answer.logprobs),
                    finish_reason=answer.finish_reason,
                )
                for index, answer in enumerate(answers)
            ],
            usage=completion_usage(generation.usage),
        )
    )


def _best(answers: list[Answer], made: int, n: int) -> list[Answer]:
    """Return of the answers to each prompt the `n` likeliest ones, best first."""
    chosen_ones: list[Answer] = []
    for start in range(0, len(answers), made):
        ranked = sorted(answers[start : start + made], key=lambda answer: answer.mean_logprob, reverse=True)
        chosen_ones += ranked[:n]
    return chosen_ones


def _requests(body: CompletionBody, model: Model, made: int) -> list[GenerateRequest]:
    """Return the request for each prompt.

    Raises:
        InvalidInputError: fields do not go together, or are too many answers.
    """
    if body.best_of is not None and body.best_of < (body.n or 1):
        raise wrong("best_of", f"it must be at least 'n', which is {body.n or 1}")
    choosing = made > (body.n or 1)
    if choosing and body.stream:
        raise wrong("best_of", "which answers are best is not known while they are streamed")
    prompts = _prompts(body.prompt)
    if len(prompts) * made > _MOST_ANSWERS:
        raise wrong("prompt", f"{len(prompts)} prompts with {made} answers each are more than {_MOST_ANSWERS}")
    max_tokens = _MAX_TOKENS if "max_tokens" not in model.defaults else None
    shared = chosen(body) | {
        "suffix": body.suffix,
        "echo": bool(body.echo),
        "max_tokens": max_tokens if body.max_tokens is None else body.max_tokens,
        "logprobs": 0 if choosing and body.logprobs is None else body.logprobs,
        "options": options_of(body),
    }
    return [GenerateRequest(prompt=prompt, **shared) for prompt in prompts]


def _prompts(prompt: Prompt | None) -> Sequence[Text]:
    """Return each prompt: a text, or tokens."""
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    if not prompt:
        raise wrong("prompt", "there is none in the list")
    texts = [item for item in prompt if isinstance(item, str)]
    if len(texts) == len(prompt):
        return texts
    tokens = [item for item in prompt if isinstance(item, int)]
    if len(tokens) == len(prompt):
        return [_tokens(tokens)]
    lists = [item for item in prompt if isinstance(item, list)]
    if len(lists) == len(prompt):
        return [_tokens(item) for item in lists]
    raise wrong("prompt", "expected text, tokens, or a list of either")


def _tokens(prompt: list[int]) -> tuple[int, ...]:
    if not prompt:
        raise wrong("prompt", "a list of tokens is empty")
    if min(prompt) < 0:
        raise wrong("prompt", f"{min(prompt)} is no token")
    return tuple(prompt)


ROUTES = [create_completion]
