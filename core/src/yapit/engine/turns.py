"""Whose turn it is: clients take turns in rotation, the line is bounded, and nobody waits for ever."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Generic, TypeVar

from msgspec import Struct

from yapit.engine.meters import Meter
from yapit.errors import CapacityError, RateLimitError
from yapit.tickets import Ticket, current

Item = TypeVar("Item", bound=Hashable)
_NEWEST = 0.2  # the weight of the newest service time in their running mean
_LONGEST_RETRY_S = 60.0  # clients such as OpenAI's give up when they are told to wait for much longer


class FairQueue(Generic[Item]):
    """First in, first out for each client; clients take turns.

    Nothing but the iteration takes longer when more wait. Ordered dicts, since the first key of a plain one is behind
    all those that were taken out.
    """

    def __init__(self) -> None:
        self._lines = OrderedDict[str, OrderedDict[Item, None]]()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """Iterate in the order of the turns; meanwhile nothing may come or go."""
        lines: Iterable[Iterator[Item]] = map(iter, self._lines.values())
        while lines:
            going_on = []
            for line in lines:
                for item in line:
                    yield item
                    going_on.append(line)
                    break
            lines = going_on

    def push(self, client: str, item: Item, *, first: bool = False) -> None:
        """Put an item that is not there at the end of its client's line, or at the beginning."""
        line = self._lines.setdefault(client, OrderedDict())
        line[item] = None
        self._count += 1
        if first:
            line.move_to_end(item, last=False)

    def pop(self) -> Item:
        """Take out the item whose turn it is; its client's next turn is the last one of all.

        Raises:
            StopIteration: nobody waits.
        """
        client, line = next(iter(self._lines.items()))
        item = next(iter(line))
        self.pass_turn()
        self.discard(client, item)
        return item

    def discard(self, client: str, item: Item) -> None:
        """Take out the item if it is there; the client's turn stays where it is."""
        line = self._lines.get(client)
        if line is not None and item in line:
            del line[item]
            self._count -= 1
            if not line:
                del self._lines[client]

    def pass_turn(self) -> None:
        """Let the client whose turn it is be the last one of all."""
        if self._lines:
            self._lines.move_to_end(next(iter(self._lines)))


class Limits(Struct, frozen=True, kw_only=True):
    """How many requests may wait, for how many seconds (0 = no limit), and for which model."""

    model: str
    max_queue: int
    timeout_s: float


class Line:
    """The rules of waiting for a model, for whoever keeps those that wait.

    Args:
        limits: how many may wait, and for how long.
        slots: how many are served at once.
        meter: where waits are counted.
    """

    def __init__(self, limits: Limits, slots: int, meter: Meter) -> None:
        self.limits = limits
        self.slots = slots
        self.meter = meter
        self._service_s: float | None = None

    def served(self, seconds: float) -> None:
        """Learn for how long one request takes a slot."""
        known = self._service_s
        self._service_s = seconds if known is None else known + _NEWEST * (seconds - known)

    def check_room(self, ticket: Ticket, waiting: int) -> None:
        """Raise `RateLimitError` if nobody more may wait; what has begun goes on."""
        if ticket.admitted or waiting < self.limits.max_queue:
            return
        raise RateLimitError(
            f"Too many requests wait for the model '{self.limits.model}' ({waiting} of {self.limits.max_queue}).",
            code="queue_full",
            retry_after_s=self.retry_after_s(waiting),
        )

    def timeout_s(self, ticket: Ticket) -> float | None:
        """Return for how long this one waits; what has begun is bounded by its deadline alone."""
        return None if ticket.admitted or not self.limits.timeout_s else self.limits.timeout_s

    def too_long(self, waiting: int) -> CapacityError:
        """Return the error of one that has waited too long."""
        return CapacityError(
            f"The request waited for the model '{self.limits.model}' longer than {self.limits.timeout_s:g} s.",
            code="queue_timeout",
            retry_after_s=self.retry_after_s(waiting),
        )

    def retry_after_s(self, waiting: int) -> float:
        """Return when a request that comes then will probably be served at once: 1 to 60 whole seconds."""
        expected_s = (self._service_s or 1.0) * (waiting + 1) / self.slots
        return min(max(1.0, math.ceil(expected_s)), _LONGEST_RETRY_S)


class Slots:
    """The calls that may run at once on one loaded model."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._free = line.slots
        self._waiting = FairQueue[asyncio.Future[None]]()

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot.

        Raises:
            RateLimitError: too many wait.
            CapacityError: waiting took too long.
        """
        came = perf_counter()
        await self._take(current())
        began = perf_counter()
        self._line.meter.queue_wait.observe(began - came)
        try:
            yield
        finally:
            self._line.served(perf_counter() - began)
            self._pass_on()

    def refuse(self, error: Exception) -> None:
        """Send those that wait away."""
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_exception(error)

    async def _take(self, ticket: Ticket) -> None:
        if self._free:
            self._free -= 1
        else:
            self._line.check_room(ticket, len(self._waiting))
            await self._wait(ticket)
        ticket.admitted = True

    async def _wait(self, ticket: Ticket) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.push(ticket.client, turn)
        try:
            async with asyncio.timeout(self._line.timeout_s(ticket)):
                await turn
        except BaseException as error:
            self._waiting.discard(ticket.client, turn)
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._pass_on()  # it was given a slot and cancelled before it could know
            if isinstance(error, TimeoutError):
                raise self._line.too_long(len(self._waiting)) from None
            raise

    def _pass_on(self) -> None:
        """Give the slot to the one whose turn it is."""
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
