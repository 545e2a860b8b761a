"""Calls that are answered in one piece, when all their chunks are there."""

import random
from collections.abc import Mapping
from contextlib import aclosing

from msgspec import Struct

from yapit.catalog import Model
from yapit.engine import Engine
from yapit.errors import InvalidInputError
from yapit.schemas import ChunkT, Request
from yapit.server.problems import spelled
from yapit.tasks import Task

ITEMS = 2048  # in one request, as OpenAI and Jina have it


class TokenUsage(Struct, frozen=True, kw_only=True):
    """The tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


async def answers(
    engine: Engine, task: Task, model: Model, request: Request, kind: type[ChunkT], names: Mapping[str, str]
) -> list[ChunkT]:
    """Return the chunks of one call, which are of `kind`; `names` are the client's ones, as `spelled` takes them."""
    with spelled(names):
        async with aclosing(engine.stream(task, model, request)) as chunks:
            # The executor has checked their kind; this tells mypy.
            return [chunk async for chunk in chunks if isinstance(chunk, kind)]


def check_count(count: int, field: str) -> None:
    """Raise `InvalidInputError` unless there are 1 to 2048 items in `field`."""
    if not count:
        raise InvalidInputError(f"Invalid '{field}': it is empty.", param=field, code="empty_input")
    if count > ITEMS:
        message = f"Invalid '{field}': at most {ITEMS} items are taken in one request, and these are {count}."
        raise InvalidInputError(message, param=field, code="array_above_max_length")


def new_id(prefix: str) -> str:
    """Return a new id for something that is answered, such as `chatcmpl-4f…`."""
    # A name, not a secret: no system call for it.
    return f"{prefix}{random.getrandbits(96):024x}"
