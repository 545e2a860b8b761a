"""One run for all equal requests that come while it lasts."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from yapit.errors import CapacityError
from yapit.settling import settle
from yapit.tickets import CacheOutcome, Ticket, current

_AHEAD = 16  # items that the work may be ahead of its fastest reader
_OVERHEAD_BYTES = 64  # of an object
Item = TypeVar("Item", bound=Struct)


class Flight(Generic[Item]):
    """Work that goes on in a task of its own as long as anybody reads.

    Whoever comes late reads from the beginning. Nobody who reads slowly holds the others back, but is given up when
    more would have to be kept for them than `largest_bytes`; the work goes no further than its fastest reader wants.

    Args:
        work: yields the items; gets a function to note what the cache has. Runs with a ticket like that of the request
            which is being served now, but without its deadline.
        largest_bytes: of items that are kept for those who come late.
        full: called once, when nobody may come any more.
    """

    def __init__(
        self,
        work: Callable[[Callable[[CacheOutcome], None]], AsyncGenerator[Item, None]],
        largest_bytes: int,
        full: Callable[[], None],
    ) -> None:
        self.ticket = _without_deadline(current())
        self.outcome: CacheOutcome | None = None
        self._work = work
        self._largest_bytes = largest_bytes
        self._full: Callable[[], None] | None = full
        self._items: dict[int, Item] = {}  # by number
        self._first = 0  # that is not gone
        self._count = 0
        self._bytes = 0
        self._read: dict[object, int] = {}  # how many items each reader has
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self.task = asyncio.create_task(self._fly(), name="flight")
        self.task.add_done_callback(self._landed)

    async def read(self) -> AsyncGenerator[Item, None]:
        """Yield all items; the last reader who leaves stops the work, which has let go then.

        Raises:
            CapacityError: the work was stopped, or it was read too slowly.
        """
        me = object()
        self._read[me] = 0
        try:
            while True:
                if (number := self._read[me]) < self._count:
                    item = self._item(number)
                    self._read[me] += 1
                    self._room.set()
                    yield item
                elif self.task.done():
                    break
                else:
                    await self._news.wait()
            if self.task.cancelled():
                raise CapacityError("The work on this request was stopped.", retry_after_s=1)
            self.task.result()
        finally:
            await self._leave(me)

    async def stop(self) -> None:
        """Stop the work, whoever reads; it has let go when this returns."""
        self.task.cancel()
        await settle(self.task)

    async def _fly(self) -> None:
        try:
            with self.ticket.bound():
                async with aclosing(self._work(self._note)) as items:
                    async for item in items:
                        self._add(item)
                        await self._until_wanted()
        finally:
            self._fill()

    def _note(self, outcome: CacheOutcome) -> None:
        self.outcome = outcome

    def _add(self, item: Item) -> None:
        self._items[self._count] = item
        self._count += 1
        self._bytes += weight(item)
        if self._bytes > self._largest_bytes:
            self._fill()
            self._forget()
        self._wake()

    def _forget(self) -> None:
        """Drop the oldest items, but none that the fastest reader has not had."""
        fastest = max(self._read.values(), default=0)
        while self._bytes > self._largest_bytes and self._first < fastest:
            self._bytes -= weight(self._items.pop(self._first))
            self._first += 1

    async def _until_wanted(self) -> None:
        while self._count - max(self._read.values(), default=self._count) >= _AHEAD:
            self._room.clear()
            await self._room.wait()

    def _item(self, number: int) -> Item:
        if number < self._first:
            message = "The answer was read too slowly to be shared with others."
            raise CapacityError(message, code="read_too_slowly", retry_after_s=1)
        return self._items[number]

    async def _leave(self, reader: object) -> None:
        del self._read[reader]
        if not self._read and not self.task.done():
            self._fill()
            await self.stop()

    def _fill(self) -> None:
        """Let nobody come any more."""
        full, self._full = self._full, None
        if full is not None:
            full()

    def _landed(self, task: asyncio.Task[None]) -> None:
        # Read here too: everybody may have left before the work failed.
        if not task.cancelled():
            task.exception()
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def weight(item: Any) -> int:
    """Return about how many bytes an item takes."""
    if isinstance(item, bytes | str):
        return _OVERHEAD_BYTES + len(item)
    if isinstance(item, Struct):
        item = msgspec.structs.astuple(item)
    if isinstance(item, tuple | list):
        return _OVERHEAD_BYTES + sum(map(weight, item))
    return _OVERHEAD_BYTES


def _without_deadline(ticket: Ticket) -> Ticket:
    """Return a ticket for work that may outlast the request that begins it."""
    made = Ticket(ticket.id, ticket.client, keep_alive_s=ticket.keep_alive_s, store=ticket.store)
    made.admitted = ticket.admitted
    made.held = set(ticket.held)
    return made
