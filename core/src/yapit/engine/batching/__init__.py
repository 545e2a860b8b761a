"""Requests of many clients run together: joined by cost, sorted by length, answered one by one in order."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from itertools import islice
from time import perf_counter

import structlog

from yapit.catalog import Model
from yapit.engine.batching.joining import Budget, cost, is_token_list, nearest
from yapit.engine.batching.members import Batch, Item, Member
from yapit.engine.turns import FairQueue, Line
from yapit.errors import (
    BackendError,
    CapacityError,
    DeadlineError,
    InvalidInputError,
    OutOfMemoryError,
    RateLimitError,
    RemoteError,
    WorkerDiedError,
    YapitError,
)
from yapit.schemas import Chunk, Request
from yapit.settling import settle
from yapit.tasks import Task
from yapit.tickets import current

# A batch is chosen from the next items in the order of the turns: from twice what fits into it. From more of them it
# would be padded less; but then a client with very many items would have most of the model, and the others wait.
_POOL = 2
_LOOKED_AT = 4096  # waiting items at most for one batch
_NOBODYS_FAULT = (WorkerDiedError, RemoteError, DeadlineError, CapacityError, RateLimitError)
_log = structlog.get_logger(__name__)


class Batcher:
    """Runs the calls of one loaded model, several in one where they can be.

    A request that finds the model idle runs at once. While the model is busy, requests gather; after a batch of
    several requests, the next one waits up to `window_s` until as many have come again.

    Args:
        task: a task whose requests have items.
        model: the model.
        run: runs one request.
        line: how many may wait, and for how long.
        max_tokens: limit of a batch: items times the tokens of the longest one.
        window_s: how long a busy model's next batch waits to be joined.
    """

    def __init__(
        self,
        task: Task,
        model: Model,
        run: Callable[[Request], AsyncGenerator[Chunk, None]],
        line: Line,
        max_tokens: int,
        window_s: float,
    ) -> None:
        self._task = task
        self._model = model
        self._run = run
        self._line = line
        self._budget = Budget(max_tokens)
        self._window_s = window_s
        self._waiting = FairQueue[Item]()
        self._waiting_tokens = 0
        self._queued = set[Member]()  # requests of which some items wait …
        self._fresh = set[Member]()  # … and those of which nothing has run yet
        self._batches = set[Batch]()
        self._expected = 0  # requests that the next batch may hope for
        self._hold: asyncio.TimerHandle | None = None

    @property
    def queued(self) -> int:
        """How many requests wait, and nothing of them has run yet."""
        return len(self._fresh)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield one chunk for each item of the request, in order.

        Raises:
            InvalidInputError: an item is larger than a batch may be.
            RateLimitError: too many wait.
            CapacityError: waiting took too long.
        """
        ticket = current()
        field = next((name for name in self._task.items if getattr(request, name)), self._task.items[0])
        member = Member(request, field, ticket)
        for item in member.items:
            self._check_size(item)
        if not member.items:
            return
        if self._busy:
            self._line.check_room(ticket, self.queued)
        try:
            self._admit(member)
            for item in member.items:
                yield await member.answer(item.index)
        finally:
            await self._leave(member)
            member.items.clear()  # they know their member: left to the collector of garbage, it would stop the server

    def refuse(self, error: Exception) -> None:
        """Send away those of whom nothing has run yet."""
        self._fail(list(self._fresh), error)

    async def close(self) -> None:
        """Return when no batch runs any more; who was not refused is served before."""
        self._window_s = 0.0
        self._stop_holding()
        self._dispatch()
        while self._batches:
            await asyncio.wait([batch.task for batch in self._batches])

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _check_size(self, item: Item) -> None:
        limit, about, context = self._budget.full, "about ", self._model.context_length
        if is_token_list(item.value):
            about = ""
            limit = limit if context is None else min(limit, context)
        # What the adapter may cut is not too long.
        if item.tokens > limit and not getattr(item.member.request, "truncate", False):
            name = f"{item.member.field}[{item.index}]"
            message = (
                f"Invalid '{name}': it has {about}{item.tokens} tokens, "
                f"and the model '{self._model.id}' takes at most {limit} at once."
            )
            raise InvalidInputError(message, param=name, code="input_too_long")

    def _admit(self, member: Member) -> None:
        timeout_s = self._line.timeout_s(member.ticket)
        if timeout_s is not None:
            member.timer = asyncio.get_running_loop().call_later(timeout_s, self._give_up, member)
        self._fresh.add(member)
        self._enqueue(member.items)
        self._dispatch()

    def _give_up(self, member: Member) -> None:
        self._fail([member], self._line.too_long(self.queued - 1))

    def _fail(self, members: Iterable[Member], error: Exception) -> None:
        for member in members:
            self._withdraw(member)
            member.fail(error)

    def _withdraw(self, member: Member) -> None:
        """Run nothing more of the request."""
        member.stop_timer()
        self._dequeue(list(member.waiting))
        self._fresh.discard(member)

    async def _leave(self, member: Member) -> None:
        """Let go of a request; a batch that nobody else waits for is stopped, and has let go when this returns."""
        self._withdraw(member)
        for batch in member.batches:
            batch.members.discard(member)
        alone = [batch for batch in member.batches if not batch.members]
        for batch in alone:
            if batch.unanswered:
                batch.task.cancel()
        if alone:
            await settle(asyncio.gather(*(batch.task for batch in alone), return_exceptions=True))

    # ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _enqueue(self, items: list[Item], *, again: bool = False) -> None:
        """Let the items wait at the end of their clients' lines, or at the beginning if they had their turn."""
        for item in reversed(items) if again else items:
            self._waiting.push(item.member.ticket.client, item, first=again)
            self._waiting_tokens += item.tokens
            item.member.waiting.add(item)
            self._queued.add(item.member)

    def _dequeue(self, items: list[Item]) -> None:
        for item in items:
            self._waiting.discard(item.member.ticket.client, item)
            self._waiting_tokens -= item.tokens
            item.member.waiting.discard(item)
            if not item.member.waiting:
                self._queued.discard(item.member)

    def _next_items(self) -> list[Item]:
        """Take out the item whose turn it is, and of those that may join it the nearest in length."""
        limit, waiting = self._budget.now(), iter(self._waiting)
        head = next(waiting)
        pool, found = [head], head.tokens
        for item in islice(waiting, _LOOKED_AT):
            if found >= _POOL * limit:
                break
            if item.member.key == head.member.key:
                pool.append(item)
                found += item.tokens
        items = nearest(head, pool, limit)
        self._waiting.pass_turn()
        self._dequeue(items)
        return items

    # ── when ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def _busy(self) -> bool:
        return len(self._batches) >= self._line.slots

    @property
    def _worth_waiting(self) -> bool:
        """Whether more requests are likely to come soon, and nothing waits that could go on without them."""
        if self._hold is None or len(self._queued) >= self._expected or len(self._queued) > len(self._fresh):
            return False
        return self._waiting_tokens < self._budget.now()

    def _dispatch(self) -> None:
        """Start as many batches as there are slots for."""
        while self._waiting and not self._busy and not self._worth_waiting:
            self._stop_holding()
            self._start(Batch(self._next_items()))

    def _hold_on(self, requests: int) -> None:
        """Give the clients of a batch the time to send their next requests."""
        self._expected = requests
        self._hold = asyncio.get_running_loop().call_later(self._window_s, self._end_hold)

    def _stop_holding(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def _end_hold(self) -> None:
        self._hold = None
        self._dispatch()

    # ── batches ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def _start(self, batch: Batch) -> None:
        for member in batch.members & self._fresh:
            member.stop_timer()
            member.ticket.admitted = True
            self._line.meter.queue_wait.observe(batch.began - member.came)
        self._fresh -= batch.members
        self._line.meter.batch_size.observe(len(batch.items))
        for member in batch.members:
            member.batches.add(batch)
        self._batches.add(batch)
        batch.task = asyncio.create_task(self._work(batch), name="batch", context=batch.context)
        # Not at the end of the task itself: one that is cancelled before its first step never gets there.
        batch.task.add_done_callback(lambda _: self._end(batch))

    def _end(self, batch: Batch) -> None:
        self._batches.discard(batch)
        for item in batch.items:
            item.member.batches.discard(batch)
        if batch.task.cancelled():
            # If anybody still waits for it, it was not cancelled from here.
            self._fail(batch.members, BackendError(f"The model '{self._model.id}' stopped before it had answered."))
        self._line.served((perf_counter() - batch.began) / batch.requests)
        if batch.requests > 1 and not batch.unanswered and not self._batches and self._window_s:
            self._hold_on(batch.requests)
        self._dispatch()

    async def _work(self, batch: Batch) -> None:
        try:
            await self._fill(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            if not (wanted := batch.wanted()):
                _log.error("batch_failed", task=self._task.name, model=self._model.id, exc_info=error)
            elif isinstance(error, OutOfMemoryError):
                self._halve(batch, wanted, error)
            elif batch.requests == 1:
                self._fail(batch.members, batch.blame(error))
            elif isinstance(error, _NOBODYS_FAULT) or not isinstance(error, YapitError):
                self._fail(batch.members, error)
            else:
                self._part(wanted)

    async def _fill(self, batch: Batch) -> None:
        """Run the batch and hand each answer to its request."""
        async with aclosing(self._run(batch.request())) as chunks:
            async for chunk in chunks:
                batch.deliver(chunk)
        if batch.unanswered:
            answered = len(batch.items) - len(batch.unanswered)
            raise BackendError(f"The model '{self._model.id}' answered {answered} of {len(batch.items)} inputs.")

    def _halve(self, batch: Batch, wanted: list[Item], error: OutOfMemoryError) -> None:
        """Run what is left in smaller batches; an item that is too much by itself fails its request."""
        if len(batch.items) == 1:
            self._fail(batch.members, error)
            return
        spent = cost(batch.items)
        self._budget.halve(spent)
        _log.warning("batch_halved", model=self._model.id, inputs=len(batch.items), tokens=spent)
        self._enqueue(wanted, again=True)

    def _part(self, wanted: list[Item]) -> None:
        """Run each half of the requests apart, until it is clear whose fault the error was."""
        members = list(dict.fromkeys(item.member for item in wanted))
        half = len(members) // 2
        for group in (members[:half], members[half:]):
            key = object()
            for member in group:
                member.key = key
        self._enqueue(wanted, again=True)
