"""A request as a member of batches, and items that run together."""

import asyncio
import contextvars
from time import perf_counter
from typing import Any

import msgspec
from msgspec import Struct

from yapit.engine.batching.joining import tokens
from yapit.errors import BackendError, YapitError
from yapit.schemas import Chunk, Request
from yapit.tickets import Ticket

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Item(Struct, frozen=True, eq=False):
    """One input of a request; `index` is its place there."""

    member: "Member"
    index: int
    value: Any
    tokens: int


class Member:
    """A request, its items, and the answers that have come for it."""

    def __init__(self, request: Request, field: str, ticket: Ticket) -> None:
        self.request = request
        self.field = field
        self.ticket = ticket
        self.key: object = _key(request, field)
        self.items = [Item(self, index, value, tokens(value)) for index, value in enumerate(getattr(request, field))]
        self.waiting: set[Item] = set()
        self.batches: set[Batch] = set()
        self.came = perf_counter()
        self.timer: asyncio.TimerHandle | None = None  # until it has waited too long
        self.context = contextvars.copy_context()
        self._error: Exception | None = None
        self._chunks: dict[int, Chunk] = {}
        self._news = asyncio.Event()

    def tell(self, index: int, chunk: Chunk) -> None:
        """Take the answer to one item."""
        self._chunks[index] = msgspec.structs.replace(chunk, index=index)
        self._news.set()

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self._error = error
        self._news.set()

    async def answer(self, index: int) -> Chunk:
        """Return the answer to one item when it is there, or raise the error."""
        while index not in self._chunks:
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        return self._chunks.pop(index)

    def stop_timer(self) -> None:
        """Let it wait for ever."""
        if self.timer is not None:
            self.timer.cancel()


class Batch:
    """Items that run together, and the requests that wait for it."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.unanswered = set(items)
        self.members = {item.member for item in items}
        self.requests = len(self.members)
        self.began = perf_counter()
        self.task: asyncio.Task[None]

    @property
    def context(self) -> contextvars.Context:
        """What is bound to the request; nothing where several share the batch."""
        (member, *others) = self.members
        return contextvars.Context() if others else member.context.copy()

    def request(self) -> Request:
        """Return the request for all of them."""
        first = self.items[0].member
        return msgspec.structs.replace(first.request, **{first.field: tuple(item.value for item in self.items)})

    def deliver(self, chunk: Chunk) -> None:
        """Hand an answer to its request.

        Raises:
            BackendError: it answers nothing that is not yet answered.
        """
        place: Any = getattr(chunk, "index", None)
        item = self.items[place] if place in range(len(self.items)) else None
        if item not in self.unanswered:
            raise BackendError("The model answered an input twice, or one that it was not given.")
        self.unanswered.discard(item)
        item.member.tell(item.index, chunk)

    def blame(self, error: Exception) -> Exception:
        """Return the error of its one request; the input it names has the number that it has there."""
        if isinstance(error, YapitError) and error.param is not None:
            for place, item in enumerate(self.items):
                here, there = (f"{item.member.field}[{number}]" for number in (place, item.index))
                if error.param == here:
                    error.param, error.message = there, error.message.replace(here, there)
                    error.args = (error.message,)
                    break
        return error

    def wanted(self) -> list[Item]:
        """Return the items that have no answer and that somebody waits for."""
        return [item for item in self.items if item in self.unanswered and item.member in self.members]


def _key(request: Request, field: str) -> object:
    """Return what requests have in common that may be joined: everything but their items."""
    try:
        return _encode((field, msgspec.structs.replace(request, **{field: ()})))
    except (TypeError, ValueError, OverflowError):
        return object()  # options that no message can hold: it runs alone
