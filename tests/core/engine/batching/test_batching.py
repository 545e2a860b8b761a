import asyncio
import gc
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from structlog.testing import capture_logs

from loops import run, turns
from yapit.catalog import Model
from yapit.engine import batching
from yapit.engine.batching import Batcher, joining, members
from yapit.engine.meters import Meters
from yapit.engine.turns import Limits, Line
from yapit.errors import (
    BackendError,
    CapacityError,
    InvalidInputError,
    OutOfMemoryError,
    RateLimitError,
    RemoteError,
    WorkerDiedError,
    YapitError,
)
from yapit.schemas import (
    Chunk,
    Classification,
    ClassifyRequest,
    Embedding,
    EmbedRequest,
    Request,
    RerankRequest,
    Score,
    TextChunk,
)
from yapit.tasks import CLASSIFY, EMBED, RERANK, Task
from yapit.tickets import Ticket, current

MODEL = Model(id="m", backend="b", tasks=("embed", "rerank", "classify"))
Inputs = tuple[Any, ...]


def text(name: str, tokens: int) -> str:
    """Return a text that counts as so many tokens."""
    return name.ljust(4 * (tokens - 1), ".")


def tokens_of(value: Any) -> int:
    return len(value) // 4 + 1 if isinstance(value, str) else len(value)


class Script:
    """What runs batches, as a test tells it to: `trouble` may raise, `held` waits until a batch is let go.

    Each embedding's vector is its input, so that an answer can be told to be the right one.
    """

    def __init__(self, trouble: Callable[[Inputs], None] = lambda inputs: None, *, held: bool = False) -> None:
        self.trouble = trouble
        self.calls: list[Inputs] = []
        self.tickets: list[Ticket] = []
        self.inside = self.closed = self.most = 0
        self.held = held
        self.closing_turns: list[int] = []
        self._go_on = asyncio.Semaphore(0)

    def let_go(self, batches: int = 1) -> None:
        for _ in range(batches):
            self._go_on.release()

    def open(self) -> None:
        """Hold no batch any more."""
        self.held = False
        self.let_go(self.inside)

    async def run(self, request: Request) -> AsyncGenerator[Chunk, None]:
        assert isinstance(request, EmbedRequest)
        self.calls.append(request.inputs)
        self.tickets.append(current())
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if self.held:
                await self._go_on.acquire()
            self.trouble(request.inputs)
            for index, value in enumerate(request.inputs):
                yield Embedding(index=index, vector=repr(value).encode(), tokens=len(value))
        finally:
            try:
                await turns(self.closing_turns.pop() if self.closing_turns else 2)  # letting go takes a while
            finally:
                self.inside -= 1
                self.closed += 1

    def names(self) -> list[str]:
        """Return the first letters of each batch's texts."""
        return ["".join(sorted(value[0] for value in call)) for call in self.calls]


class Rules(Struct, kw_only=True):
    """What a batcher is made with."""

    slots: int = 1
    max_queue: int = 100_000
    timeout_s: float = 0.0
    max_tokens: int = 16_384
    window_s: float = 0.0
    model: Model = MODEL
    task: Task = EMBED


def batcher(script: Script | Callable[[Any], AsyncGenerator[Chunk, None]], **rules: Any) -> Batcher:
    given = Rules(**rules)
    meter = Meters(lambda _: None, lambda: ()).of(given.task, given.model)
    limits = Limits(model="m", max_queue=given.max_queue, timeout_s=given.timeout_s)
    ways = script.run if isinstance(script, Script) else script
    return Batcher(given.task, given.model, ways, Line(limits, given.slots, meter), given.max_tokens, given.window_s)


async def embed(made: Batcher, *inputs: Any, ticket: Ticket | None = None, **fields: Any) -> list[str]:
    """Return the inputs that the answers are to, in order; each must have the index it has in this request."""
    with (ticket or Ticket()).bound():
        async with aclosing(made.stream(EmbedRequest(inputs=inputs, **fields))) as chunks:
            answers = [chunk async for chunk in chunks]
    assert [chunk.index for chunk in answers if isinstance(chunk, Embedding)] == list(range(len(answers)))
    return [chunk.vector.decode() for chunk in answers if isinstance(chunk, Embedding)]


def start(made: Batcher, *inputs: Any, client: str = "", **fields: Any) -> asyncio.Task[list[str]]:
    return asyncio.create_task(embed(made, *inputs, ticket=Ticket(client=client), **fields))


def reprs(inputs: Iterable[Any]) -> list[str]:
    return [repr(value) for value in inputs]


async def outcomes(tasks: Iterable[asyncio.Task[list[str]]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def check_empty(made: Batcher) -> None:
    """Assert that nothing waits, runs or is counted any more."""
    left = (made._batches, made._queued, made._fresh, list(made._waiting), made._waiting_tokens, made.queued)
    assert left == (set(), set(), set(), [], 0, 0)


def total(meter: Any) -> float:
    """Return the sum of what a histogram has seen."""
    return float(meter._sum.get())


# ── joining ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_request_that_finds_the_model_idle_runs_at_once() -> None:
    async def main() -> None:
        script = Script()
        made = batcher(script, window_s=60.0)
        assert await embed(made, "a") == reprs(["a"])
        assert await embed(made, "b") == reprs(["b"])
        assert script.calls == [("a",), ("b",)]
        check_empty(made)

    run(main())


def test_requests_that_come_while_the_model_works_run_together_sorted_by_length() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script)
        inputs = [("x",), (text("b", 7), "a"), (text("c", 3), text("d", 9), text("e", 5)), ("f",)]
        tasks = [start(made, *some, client=str(number)) for number, some in enumerate(inputs)]
        await turns()
        assert (script.calls, made.queued) == ([("x",)], 3)
        script.open()
        assert await asyncio.gather(*tasks) == [reprs(some) for some in inputs]
        (joined,) = script.calls[1:]
        assert [tokens_of(value) for value in joined] == [1, 1, 3, 5, 7, 9]
        check_empty(made)

    run(main())


def test_as_many_batches_run_at_once_as_there_are_slots() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, slots=2)
        tasks = [start(made, name) for name in "abcde"]
        await turns()
        assert (script.names(), script.inside, made.queued) == (["a", "b"], 2, 3)
        script.open()
        await asyncio.gather(*tasks)
        assert (script.names(), script.most) == (["a", "b", "cde"], 2)
        check_empty(made)

    run(main())


async def joined(*fields: dict[str, Any]) -> list[str]:
    """Return which of several requests ran together, each with one letter and its own fields."""
    script = Script(held=True)
    made = batcher(script)
    tasks = [start(made, "x")]
    await turns()
    tasks += [start(made, "abcdef"[place], **some) for place, some in enumerate(fields)]
    await turns()
    script.open()
    await asyncio.gather(*tasks)
    return script.names()[1:]


def test_only_requests_that_are_equal_but_for_their_items_are_joined() -> None:
    async def main() -> None:
        assert await joined({}, {"dimensions": 8}, {}, {"options": {"a": 1}}, {"dimensions": 8}) == ["ac", "be", "d"]
        assert await joined({"options": {"a": 1}}, {"options": {"a": 1.5}}, {"options": {"a": True}}) == ["a", "b", "c"]
        assert await joined({"options": {"a": 1, "b": [2]}}, {"options": {"b": [2], "a": 1}}) == ["ab"]

    run(main())


@pytest.mark.parametrize("odd", ["\ud800", 10**30, object()])
def test_options_that_cannot_be_compared_are_joined_with_nothing(odd: object) -> None:
    async def main() -> None:
        options = {"options": {"odd": odd}}
        assert await joined(options, {}, options, {}) == ["a", "bd", "c"]

    run(main())


def test_the_cost_of_a_batch_is_its_items_times_the_longest() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_tokens=40)
        tasks = [start(made, "x")]
        await turns()
        tasks += [start(made, text(name, 10)) for name in "abcde"]
        tasks += [start(made, *(text(name, length) for name, length in (("f", 20), ("g", 5), ("h", 5), ("i", 40))))]
        script.open()
        await asyncio.gather(*tasks)
        sizes = [[tokens_of(value) for value in call] for call in script.calls[1:]]
        assert sizes == [[10, 10, 10, 10], [5, 5, 10], [20], [40]]

    run(main())


def test_a_request_larger_than_a_batch_runs_in_several_and_is_answered_in_order() -> None:
    async def main() -> None:
        script = Script()
        made = batcher(script, max_tokens=10)
        inputs = [text(str(number), 1 + number * 7 % 5) for number in range(57)]
        assert await embed(made, *inputs) == reprs(inputs)
        assert len(script.calls) > 10
        assert all(len(call) * max(map(tokens_of, call)) <= 10 for call in script.calls)
        check_empty(made)

    run(main())


def test_a_request_without_items_is_answered_without_the_model() -> None:
    async def main() -> None:
        script = Script(held=True)
        assert await embed(batcher(script)) == []
        assert script.calls == []

    run(main())


def test_lists_of_tokens_are_joined_with_texts() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script)
        tasks = [start(made, "x"), start(made, (5, 6, 7)), start(made, "a", (8,))]
        await turns()
        script.open()
        assert await asyncio.gather(*tasks) == [reprs(["x"]), reprs([(5, 6, 7)]), reprs(["a", (8,)])]
        assert len(script.calls) == 2

    run(main())


def test_pairs_and_texts_and_images_are_joined_as_well() -> None:
    async def main() -> None:
        calls: list[Any] = []

        async def score(request: RerankRequest) -> AsyncGenerator[Chunk, None]:
            calls.append(request.pairs)
            await turns(3)
            for index, (_, document) in enumerate(request.pairs):
                yield Score(index=index, relevance=float(document), tokens=1)

        async def label(request: ClassifyRequest) -> AsyncGenerator[Chunk, None]:
            calls.append(request.texts or request.images)
            await turns(3)
            for index, item in enumerate(request.texts or request.images):
                yield Classification(index=index, scores=((str(item), 1.0),))

        async def all_of(made: Batcher, request: Request) -> list[Any]:
            with Ticket().bound():
                return [chunk async for chunk in made.stream(request)]

        ranking = batcher(score, task=RERANK)
        requests = [RerankRequest(pairs=(("q", f"{number}"), ("long query", f"{number}.5"))) for number in range(3)]
        answers = await asyncio.gather(*(all_of(ranking, request) for request in requests))
        assert [[chunk.relevance for chunk in some] for some in answers] == [[0, 0.5], [1, 1.5], [2, 2.5]]
        assert [len(call) for call in calls] == [2, 4]

        calls.clear()
        labelling = batcher(label, task=CLASSIFY)
        a, b, c, d = (text(name, 256) for name in "abcd")  # as long as an image
        asked: list[Request] = [ClassifyRequest(texts=(a,)), ClassifyRequest(texts=(b, c))]
        asked += [ClassifyRequest(images=(b"1",)), ClassifyRequest(texts=(d,)), ClassifyRequest(images=(b"2", b"3"))]
        answers = await asyncio.gather(*(all_of(labelling, request) for request in asked))
        heard = [[chunk.scores[0][0] for chunk in some] for some in answers]
        assert heard == [[a], [b, c], ["b'1'"], [d], ["b'2'", "b'3'"]]
        assert calls == [(a,), (b, c, d), (b"1", b"2", b"3")]

    run(main())


def test_a_batch_of_one_request_runs_with_its_ticket_and_a_joined_one_with_none_of_them() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script)
        tickets = [Ticket(f"req_{number}") for number in range(3)]
        tasks = [asyncio.create_task(embed(made, "abc"[place], ticket=ticket)) for place, ticket in enumerate(tickets)]
        await turns()
        script.open()
        await asyncio.gather(*tasks)
        assert script.tickets[0] is tickets[0]
        assert script.names() == ["a", "bc"]
        assert script.tickets[1] not in tickets

    run(main())


def test_what_was_joined_and_how_long_it_waited_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        clock = [100.0]
        monkeypatch.setattr(batching, "perf_counter", lambda: clock[0])
        monkeypatch.setattr(members, "perf_counter", lambda: clock[0])
        script = Script(held=True)
        made = batcher(script)
        meter = made._line.meter
        tasks = [start(made, "x"), start(made, "a"), start(made, "b", "c", text("d", 10_000))]
        await turns()
        clock[0] += 3.0
        script.open()
        await asyncio.gather(*tasks)
        assert total(meter.batch_size) == 5
        assert total(meter.queue_wait) == 0 + 3.0 + 3.0, "each request once, also if it runs in several batches"
        assert script.names() == ["x", "abc", "d"]

    run(main())


# ── turns ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_client_with_a_thousand_items_delays_one_with_a_single_item_by_one_batch() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_tokens=10)
        greedy = start(made, *["g"] * 1000, client="greedy")
        await turns()
        modest = start(made, "m", client="modest")
        await turns()
        script.let_go(2)
        assert await modest == reprs("m")
        assert script.names()[:2] == ["g" * 10, "g" * 9 + "m"]
        script.open()
        assert len(await greedy) == 1000
        check_empty(made)

    run(main())


def test_a_client_with_very_many_items_gets_no_more_of_a_batch_than_others_that_wait() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_tokens=10)
        tasks = [start(made, *["g"] * 1000, client="greedy")]
        await turns()
        tasks += [start(made, *["m"] * 2, client=str(number)) for number in range(9)]
        await turns()
        script.let_go(3)
        await asyncio.gather(*tasks[1:])
        assert Counter("".join(script.names()[1:3])) == {"g": 2, "m": 18}
        script.open()
        await asyncio.gather(*tasks)

    run(main())


@pytest.mark.parametrize(("odd", "usual"), [(400, 1), (1, 400)])
def test_an_item_of_unusual_length_is_not_put_off_for_ever(odd: int, usual: int) -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_tokens=800)
        tasks = [start(made, "x")]
        await turns()
        tasks += [start(made, *(text("u", usual) for _ in range(100)), client=str(number)) for number in range(3)]
        tasks += [lonely := start(made, text("o", odd), text("o", odd), client="odd")]
        await turns()
        script.let_go(1 + 4)
        await turns(60)
        assert lonely.done(), "each of four clients had its turn"
        script.open()
        await asyncio.gather(*tasks)

    run(main())


PIECES = st.lists(st.tuples(st.sampled_from("abcd"), st.lists(st.integers(1, 60), min_size=1, max_size=5)), max_size=12)


@given(PIECES, st.integers(1, 200))
def test_the_item_whose_turn_it_is_is_always_in_the_next_batch(
    requests: list[tuple[str, list[int]]], max_tokens: int
) -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_tokens=max(60, max_tokens))
        tasks = [start(made, "x")]
        await turns(3)
        for number, (client, lengths) in enumerate(requests):
            inputs = [tuple([number, place] * length)[:length] for place, length in enumerate(lengths)]
            tasks.append(start(made, *inputs, client=client))
        await turns(3)
        while made._waiting:
            head = next(iter(made._waiting))
            before = len(script.calls)
            script.let_go()
            while len(script.calls) == before:
                await turns(1)
            assert head.value in script.calls[-1]
            lengths = [tokens_of(value) for value in script.calls[-1]]
            assert lengths == sorted(lengths)
            assert len(lengths) == 1 or len(lengths) * max(lengths) <= max(60, max_tokens)
        script.open()
        await asyncio.gather(*tasks)
        check_empty(made)

    run(main())


# ── the window ────────────────────────────────────────────────────────────────────────────────────────────────────────
async def after_a_batch_of(requests: int, window_s: float, max_tokens: int = 16_384) -> tuple[Script, Batcher]:
    """Return a batcher that has just run a batch of so many requests and is idle."""
    script = Script(held=True)
    made = batcher(script, window_s=window_s, max_tokens=max_tokens)
    tasks = [start(made, "x")]
    await turns()
    tasks += [start(made, "y") for _ in range(requests)]
    await turns()
    script.open()
    await asyncio.gather(*tasks)
    assert script.names() == ["x", "y" * requests]
    script.calls.clear()
    return script, made


def test_after_a_batch_of_several_the_next_one_waits_for_as_many() -> None:
    async def main() -> None:
        script, made = await after_a_batch_of(3, window_s=60.0)
        tasks = [start(made, "a"), start(made, "b", "b", "b")]
        await turns(20)
        assert (script.calls, made.queued) == ([], 2)
        tasks.append(start(made, "c"))
        await asyncio.gather(*tasks)
        assert script.names() == ["abbbc"]

    run(main())


def test_the_next_batch_waits_no_longer_than_the_window() -> None:
    async def main() -> None:
        script, made = await after_a_batch_of(3, window_s=0.001)
        await embed(made, "a")
        assert script.names() == ["a"]
        assert made._hold is None, "after a batch of one, nobody waits"

    run(main())


def test_without_a_window_nobody_waits() -> None:
    async def main() -> None:
        script, made = await after_a_batch_of(3, window_s=0.0)
        task = start(made, "a")
        await turns(2)
        assert script.names() == ["a"]
        await task

    run(main())


def test_after_a_batch_of_one_request_nobody_waits() -> None:
    async def main() -> None:
        script = Script()
        made = batcher(script, window_s=60.0)
        await embed(made, "a", "b", "c")
        await embed(made, "d")
        assert script.names() == ["abc", "d"]

    run(main())


def test_while_another_batch_runs_nobody_waits() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, slots=2, window_s=60.0)
        tasks = [start(made, name) for name in "xyab"]
        await turns()
        script.let_go(2)  # x and y
        await turns()
        tasks += [start(made, "long")]
        await turns()
        assert (script.names(), script.inside) == (["x", "y", "ab", "l"], 2)
        script.let_go()  # a and b
        await turns()
        tasks += [start(made, "c")]
        await turns()
        assert script.names()[4:] == ["c"]
        script.open()
        await asyncio.gather(*tasks)

    run(main())


def test_a_batch_that_is_full_does_not_wait() -> None:
    async def main() -> None:
        script, made = await after_a_batch_of(3, window_s=60.0, max_tokens=10)
        assert len(await embed(made, *"abcdefghij")) == 10
        assert script.names() == ["abcdefghij"]

    run(main())


def test_a_batch_that_is_tried_again_does_not_wait() -> None:
    async def main() -> None:
        def trouble(inputs: Inputs) -> None:
            if len(inputs) > 2:
                raise OutOfMemoryError("too much")

        script = Script(trouble, held=True)
        made = batcher(script, window_s=60.0)
        tasks = [start(made, name) for name in "xabc"]
        await turns()
        tasks[1].cancel()
        tasks += [start(made, "d")]
        await turns()
        script.open()
        results = await outcomes(tasks)
        assert [result for place, result in enumerate(results) if place != 1] == [reprs(name) for name in "xbcd"]
        assert script.names() == ["x", "bcd", "b", "c", "d"]

    run(main())


def test_one_that_leaves_while_a_batch_waits_leaves_nothing_behind() -> None:
    async def main() -> None:
        script, made = await after_a_batch_of(2, window_s=60.0)
        task = start(made, "a")
        await turns()
        task.cancel()
        await outcomes([task])
        check_empty(made)
        assert await asyncio.gather(*(start(made, name) for name in "bc")) == [reprs("b"), reprs("c")]
        assert script.names() == ["bc"]

    run(main())


def test_requests_leave_nothing_for_the_collector_of_garbage() -> None:
    def requests() -> int:
        return sum(type(each) is members.Member for each in gc.get_objects())

    async def main() -> None:
        script = Script(held=True)
        made = batcher(script)
        tasks = [start(made, "x"), *(start(made, name) for name in "abc")]
        await turns()
        tasks.pop().cancel()
        script.let_go(2)
        assert await outcomes(tasks) == [reprs(name) for name in "xab"]
        await turns(10)

    gc.collect()
    gc.disable()
    try:
        before = requests()
        run(main())
        assert requests() == before
    finally:
        gc.enable()


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_one_too_many_is_a_429_that_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        clock = [100.0]
        monkeypatch.setattr(batching, "perf_counter", lambda: clock[0])
        monkeypatch.setattr(members, "perf_counter", lambda: clock[0])
        script = Script(held=True)
        made = batcher(script, max_queue=3)
        tasks = [start(made, "x")]
        await turns()
        tasks += [start(made, name, name) for name in "abc"]
        await turns()
        with pytest.raises(RateLimitError) as caught:
            await embed(made, "d")
        assert (caught.value.code, caught.value.retry_after_s) == ("queue_full", 4), "nothing was measured yet"
        clock[0] += 6.0
        script.let_go()
        await turns()  # the next batch has all three
        tasks += [start(made, "e")]
        await turns()
        assert made.queued == 1
        assert made._line.retry_after_s(1) == 6.0 * 2
        clock[0] += 3.0
        script.open()
        await asyncio.gather(*tasks)
        # 6 s; 3 s for three requests, a fifth of the weight; 0 s for the last.
        assert made._line._service_s == pytest.approx((6 * 0.8 + 1 * 0.2) * 0.8)
        assert script.names() == ["x", "aabbcc", "e"]

    run(main())


def test_a_request_of_which_a_part_runs_takes_no_room_in_the_queue() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_queue=1, max_tokens=2)
        tasks = [start(made, *"abcdef")]
        await turns()
        assert made.queued == 0
        tasks.append(start(made, "g"))
        await turns()
        with pytest.raises(RateLimitError, match="1 of 1"):
            await embed(made, "h")
        script.open()
        await asyncio.gather(*tasks)

    run(main())


def test_no_queue_at_all_still_serves_whom_it_can_at_once() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_queue=0)
        task = start(made, "a")
        await turns()
        with pytest.raises(RateLimitError):
            await embed(made, "b")
        script.open()
        await task
        assert await embed(made, "c") == reprs("c")

    run(main())


def test_who_waits_too_long_is_told_so_and_the_adapter_never_hears_of_it() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, timeout_s=0.001)
        running = start(made, "a")
        await turns()
        with pytest.raises(CapacityError) as caught:
            await embed(made, "b", "b")
        assert (caught.value.code, caught.value.retry_after_s) == ("queue_timeout", 1)
        assert made.queued == 0
        script.open()
        await running
        assert script.names() == ["a"]
        check_empty(made)

    run(main())


def test_a_request_that_has_begun_is_not_sent_away_for_waiting_too_long() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, timeout_s=0.001, max_tokens=1)
        begun = start(made, "a", "b", "c", client="1")
        await turns()
        with pytest.raises(CapacityError):
            await embed(made, "d", ticket=Ticket(client="2"))  # came later, and its time is over
        assert not begun.done()
        script.open()
        assert await begun == reprs("abc")

    run(main())


def test_a_ticket_that_was_admitted_passes_a_full_queue_and_waits_as_long_as_it_takes() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_queue=0, timeout_s=0.001)
        running = start(made, "x")
        await turns()
        ticket = Ticket()
        ticket.admitted = True
        going_on = asyncio.create_task(embed(made, "a", ticket=ticket))
        await turns()
        made._line.limits = Limits(model="m", max_queue=5, timeout_s=0.001)
        with pytest.raises(CapacityError):
            await embed(made, "b")
        assert not going_on.done()
        script.open()
        assert [await running, await going_on] == [reprs("x"), reprs("a")]

    run(main())


def test_a_ticket_is_admitted_when_it_runs_and_not_while_it_waits() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script)
        tickets = [Ticket(), Ticket()]
        tasks = [asyncio.create_task(embed(made, "a", ticket=ticket)) for ticket in tickets]
        await turns()
        assert [ticket.admitted for ticket in tickets] == [True, False]
        script.let_go()
        await turns()
        assert tickets[1].admitted
        script.open()
        await asyncio.gather(*tasks)

    run(main())


def test_an_input_larger_than_a_batch_is_a_400_that_names_it_and_the_limit() -> None:
    async def main() -> None:
        script = Script()
        made = batcher(script, max_tokens=10)
        with pytest.raises(InvalidInputError) as caught:
            await embed(made, "a", text("b", 10), text("c", 11))
        error = caught.value
        assert (error.status, error.param, error.code) == (400, "inputs[2]", "input_too_long")
        assert (
            error.message == "Invalid 'inputs[2]': it has about 11 tokens, and the model 'm' takes at most 10 at once."
        )
        assert script.calls == []
        check_empty(made)

    run(main())


def test_an_input_that_may_be_cut_is_not_too_large() -> None:
    async def main() -> None:
        made = batcher(Script(), max_tokens=10)
        inputs = ("a", text("b", 50), (1,) * 20)
        request = EmbedRequest(inputs=inputs, truncate=True)
        async with aclosing(made.stream(request)) as chunks:
            found = [chunk async for chunk in chunks]
        assert [chunk.index for chunk in found if isinstance(chunk, Embedding)] == [0, 1, 2]

    run(main())


def test_a_list_of_tokens_is_held_against_the_context_too() -> None:
    async def main() -> None:
        made = batcher(Script(), max_tokens=10, model=Model(id="m", backend="b", tasks=("embed",), context_length=5))
        assert await embed(made, (1,) * 5, text("a", 10)) == reprs([(1,) * 5, text("a", 10)])
        with pytest.raises(
            InvalidInputError, match="it has 6 tokens, and the model 'm' takes at most 5 at once"
        ) as caught:
            await embed(made, "a", (1,) * 6)
        assert caught.value.param == "inputs[1]"
        with pytest.raises(InvalidInputError, match="it has 11 tokens, and the model 'm' takes at most 10 at once"):
            await embed(batcher(Script(), max_tokens=10), (1,) * 11)

    run(main())


def test_what_a_model_takes_at_most_is_not_less_after_it_ran_out_of_memory() -> None:
    async def main() -> None:
        def trouble(inputs: Inputs) -> None:
            if len(inputs) > 1:
                raise OutOfMemoryError("too much")

        made = batcher(Script(trouble), max_tokens=10)
        await embed(made, *"abcd")
        assert made._budget.now() < 10
        assert await embed(made, text("a", 10)) == reprs([text("a", 10)])

    run(main())


# ── leaving ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_one_that_leaves_the_queue_is_never_heard_of() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script)
        running, leaving, staying = start(made, "a"), start(made, "b", "b"), start(made, "c")
        await turns()
        leaving.cancel()
        await turns()
        assert made.queued == 1
        script.open()
        await outcomes([running, leaving, staying])
        assert leaving.cancelled()
        assert script.names() == ["a", "c"]
        check_empty(made)

    run(main())


def test_one_that_leaves_a_batch_that_runs_does_not_disturb_the_others() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script)
        tasks = [start(made, name) for name in "xabc"]
        await turns()
        script.let_go()
        await turns()
        tasks[2].cancel()
        await turns()
        assert tasks[2].cancelled(), "it does not wait for the batch"
        assert (script.inside, script.names()) == (1, ["x", "abc"])
        script.open()
        results = await outcomes(tasks)
        assert [results[place] for place in (0, 1, 3)] == [reprs("x"), reprs("a"), reprs("c")]
        check_empty(made)

    run(main())


def test_a_batch_that_everybody_left_is_closed_before_the_last_one_is_gone() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script)
        tasks = [start(made, name) for name in "xab"]
        await turns()
        script.let_go()
        await turns()
        assert script.names() == ["x", "ab"]
        tasks[1].cancel()
        await turns()
        assert script.inside == 1
        tasks[2].cancel()
        await asyncio.wait([tasks[2]])
        assert (script.inside, script.closed) == (0, 2)
        check_empty(made)
        script.held = False
        assert await embed(made, "c") == reprs("c")

    run(main())


def test_a_stream_that_is_closed_early_closes_its_batch() -> None:
    async def main() -> None:
        script = Script()
        made = batcher(script, max_tokens=2)
        with Ticket().bound():
            chunks = made.stream(EmbedRequest(inputs=tuple("abcdef")))
            await anext(chunks)
            await chunks.aclose()
        assert (script.inside, len(script.calls) < 4) == (0, True)
        check_empty(made)

    run(main())


@pytest.mark.parametrize("closing_turns", [[2, 5, 8], [8, 5, 2]])
def test_a_request_in_several_batches_closes_all_of_them_even_if_it_is_cancelled_twice(
    closing_turns: list[int],
) -> None:
    async def main() -> None:
        script = Script(held=True)
        script.closing_turns = closing_turns.copy()
        made = batcher(script, slots=3, max_tokens=1)
        task = start(made, *"abcde")
        await turns()
        assert script.inside == 3
        task.cancel()
        await turns(1)
        task.cancel()
        await asyncio.wait([task])
        assert (script.inside, script.names()) == (0, ["a", "b", "c"])
        assert task.cancelled()
        check_empty(made)

    run(main())


def test_a_run_that_has_answered_everything_comes_to_its_own_end() -> None:
    async def main() -> None:
        ended = []

        async def tidies_up(request: EmbedRequest) -> AsyncGenerator[Chunk, None]:
            for index, value in enumerate(request.inputs):
                yield Embedding(index=index, vector=repr(value).encode(), tokens=1)
            await turns(5)
            ended.append(request.inputs)

        made = batcher(tidies_up)
        assert await embed(made, "a", "b") == reprs("ab")
        assert ended == [("a", "b")]
        check_empty(made)

    run(main())


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("moment", range(14))
@pytest.mark.parametrize("victim", range(3))
def test_a_cancellation_at_any_moment_leaves_the_model_usable(moment: int, victim: int, *, again: bool) -> None:
    """One of the moments: between the batch's creation and its first step."""

    async def main() -> None:
        def trouble(inputs: Inputs) -> None:
            if again and len(inputs) > 1:
                raise OutOfMemoryError("too much")

        script = Script(trouble, held=True)
        made = batcher(script)
        tasks = [start(made, "x"), start(made, "a", "a"), start(made, "b")]
        await turns()
        script.open()
        await turns(moment)
        tasks[victim].cancel()
        results = await outcomes(tasks)
        for place, expected in enumerate((reprs("x"), reprs("aa"), reprs("b"))):
            assert results[place] == expected or (place == victim and tasks[place].cancelled())
        assert await embed(made, "c") == reprs("c")
        assert script.inside == 0
        check_empty(made)

    run(main())


def test_one_that_leaves_before_its_batch_has_made_a_step_frees_the_slot() -> None:
    async def main() -> None:
        script = Script()
        made = batcher(script)
        task = start(made, "a")
        await turns(1)  # the batch is created and has not run
        assert (len(made._batches), script.calls) == (1, [])
        (batch,) = made._batches
        batch.task.cancel()
        with pytest.raises(BackendError, match="'m' stopped before it had answered"):
            await task
        check_empty(made)
        assert await embed(made, "b") == reprs("b")

    run(main())


@pytest.mark.parametrize("error", [OutOfMemoryError("too much"), BackendError("no")])
def test_one_that_left_a_batch_is_not_tried_again_with_the_others(error: YapitError) -> None:
    async def main() -> None:
        def trouble(inputs: Inputs) -> None:
            if len(inputs) > 2:
                raise error

        script = Script(trouble, held=True)
        made = batcher(script)
        tasks = [start(made, name) for name in "xabc"]
        await turns()
        script.let_go()
        await turns()
        tasks[1].cancel()
        await turns()
        script.open()
        await outcomes(tasks)
        assert script.names() == ["x", "abc", "b", "c"]
        check_empty(made)

    run(main())


# ── trouble ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def out_of_memory_above(tokens: int) -> Callable[[Inputs], None]:
    def trouble(inputs: Inputs) -> None:
        if len(inputs) * max(map(tokens_of, inputs)) > tokens:
            raise OutOfMemoryError("The model ran out of memory.")

    return trouble


def test_a_batch_for_which_the_memory_does_not_suffice_is_halved_until_it_does() -> None:
    async def main() -> None:
        script = Script(out_of_memory_above(5), held=True)
        made = batcher(script, max_tokens=40)
        tasks = [start(made, "x"), *(start(made, text(name, 2)) for name in "abcdefgh")]
        await turns()
        with capture_logs() as lines:
            script.open()
            assert await asyncio.gather(*tasks) == [reprs("x"), *(reprs([text(name, 2)]) for name in "abcdefgh")]
        assert [len(call) for call in script.calls[1:]] == [8, 4, 2, 2, 2, 2]
        seen = [(line["event"], line["inputs"], line["tokens"]) for line in lines]
        assert seen == [("batch_halved", 8, 16), ("batch_halved", 4, 8)]
        check_empty(made)

    run(main())


def test_an_item_for_which_the_memory_does_not_suffice_by_itself_fails_its_request_alone() -> None:
    async def main() -> None:
        script = Script(out_of_memory_above(20), held=True)
        made = batcher(script)
        tasks = [start(made, "x"), start(made, "a", text("b", 30), "c"), start(made, "d"), start(made, text("e", 20))]
        await turns()
        script.open()
        results = await outcomes(tasks)
        assert isinstance(results[1], OutOfMemoryError)
        assert (results[1].status, results[1].code) == (503, "out_of_memory")
        assert [results[0], *results[2:]] == [reprs("x"), reprs("d"), reprs([text("e", 20)])]
        check_empty(made)

    run(main())


def test_batches_are_as_large_as_before_when_the_memory_had_time_to_cool_down(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(joining, "_COOL_DOWN_S", 5.0)  # less than a test may take
        script = Script(out_of_memory_above(5))
        made = batcher(script, max_tokens=8)
        await embed(made, *"abcdefgh")
        assert [len(call) for call in script.calls] == [8, 4, 4]
        script.calls.clear()
        script.trouble = lambda inputs: None
        await embed(made, *"abcdefgh")
        assert [len(call) for call in script.calls] == [4, 4], "it is not tried at once"
        script.calls.clear()
        loop = asyncio.get_running_loop()
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + joining._COOL_DOWN_S)
        await embed(made, *"abcdefgh")
        assert [len(call) for call in script.calls] == [8]

    run(main())


def fails_with(error: YapitError, *names: str) -> Callable[[Inputs], None]:
    def trouble(inputs: Inputs) -> None:
        if any(str(value).startswith(names) for value in inputs):
            raise error

    return trouble


@pytest.mark.parametrize("error", [BackendError("no"), InvalidInputError("no", param="inputs[0]")])
def test_an_error_that_one_request_causes_is_its_own(error: YapitError) -> None:
    async def main() -> None:
        script = Script(fails_with(error, "b"), held=True)
        made = batcher(script, window_s=60.0)
        names = [*"xacdefghijklmnopq", "b"]
        tasks = [start(made, name, client=name) for name in names]
        await turns()
        script.open()
        results = await outcomes(tasks)
        assert results[:-1] == [reprs(name) for name in names[:-1]]
        assert results[-1] is error
        assert len(script.calls) <= 2 + 2 * 5, "halves, and not each by itself"
        check_empty(made)

    run(main())


def test_an_error_names_an_input_by_its_number_in_its_own_request() -> None:
    async def main() -> None:
        def trouble(inputs: Inputs) -> None:
            for place, value in enumerate(inputs):
                if value.startswith("b"):
                    name = f"inputs[{place}]"
                    raise InvalidInputError(f"Invalid '{name}': it is bad.", param=name)

        script = Script(trouble)
        made = batcher(script)
        with pytest.raises(InvalidInputError, match=r"Invalid 'inputs\[1\]'") as caught:
            await embed(made, text("a", 30), text("b", 50), text("c", 40))
        assert caught.value.param == "inputs[1]"
        assert [call[2][0] for call in script.calls] == ["b"]  # sorted by length, it was the third
        await made.close()

    run(main())


def test_several_that_cause_errors_fail_and_nobody_else_does() -> None:
    async def main() -> None:
        script = Script(fails_with(BackendError("no"), "b", "c"), held=True)
        made = batcher(script, max_tokens=4)
        names = [*"xadefgbhicjklm"]
        tasks = [start(made, name, name, client=name) for name in names]
        await turns()
        script.open()
        results = await outcomes(tasks)
        failed = [name for name, result in zip(names, results, strict=True) if isinstance(result, BackendError)]
        assert failed == ["b", "c"]
        assert sum(result == reprs(name * 2) for name, result in zip(names, results, strict=True)) == len(names) - 2
        check_empty(made)

    run(main())


def test_after_an_error_new_requests_are_joined_and_not_with_those_that_are_tried_apart() -> None:
    async def main() -> None:
        script = Script(fails_with(BackendError("no"), "b"), held=True)
        made = batcher(script)
        tasks = [start(made, name) for name in "xab"]
        await turns()
        script.let_go()
        await turns()
        tasks += [start(made, name) for name in "cd"]
        await turns()
        script.open()
        await outcomes(tasks)
        assert sorted(script.names()[2:]) == ["a", "b", "cd"]

    run(main())


@pytest.mark.parametrize(
    "error", [WorkerDiedError("gone"), RemoteError("gone"), CapacityError("full"), RateLimitError("slow down")]
)
def test_an_error_that_is_nobody_s_fault_fails_all_at_once_and_is_not_tried_again(error: YapitError) -> None:
    async def main() -> None:
        script = Script(fails_with(error, "a"), held=True)
        made = batcher(script, max_tokens=2)
        tasks = [start(made, "x")]
        await turns()
        tasks += [start(made, "a", "c", client="1"), start(made, "b", client="2")]
        await turns()
        script.open()
        assert await outcomes(tasks) == [reprs("x"), error, error]
        assert script.names() == ["x", "ab"]
        check_empty(made)

    run(main())


def test_an_error_of_our_own_fails_all_at_once_and_leaves_the_model_usable() -> None:
    async def main() -> None:
        def trouble(inputs: Inputs) -> None:
            if "a" in inputs:
                raise KeyError("a bug")

        script = Script(trouble, held=True)
        made = batcher(script, max_tokens=2)
        tasks = [start(made, "x")]
        await turns()
        tasks += [start(made, *"accc", client="1"), start(made, *"bddd", client="2")]
        await turns()
        script.open()
        results = await outcomes(tasks)
        assert [type(result) for result in results[1:]] == [KeyError, KeyError]
        assert script.names() == ["x", "ab"], "nothing more of them runs"
        assert await embed(made, "e") == reprs("e")
        check_empty(made)

    run(main())


def answering(*indexes: Any) -> Callable[[Any], AsyncGenerator[Chunk, None]]:
    """Return an adapter that answers these places of a batch, whatever it is given."""

    async def run(request: EmbedRequest) -> AsyncGenerator[Chunk, None]:
        await turns(3)
        for index in indexes:
            if index is None:
                yield TextChunk(text="no index at all")
            else:
                yield Embedding(
                    index=index, vector=repr(request.inputs[index % len(request.inputs)]).encode(), tokens=1
                )

    return run


@pytest.mark.parametrize(
    ("indexes", "message"),
    [
        ((), "'m' answered 0 of 2 inputs"),
        ((0,), "'m' answered 1 of 2 inputs"),
        ((0, 0), "twice, or one that it was not given"),
        ((0, 2), "twice, or one that it was not given"),
        ((-1,), "twice, or one that it was not given"),
        ((None,), "twice, or one that it was not given"),
    ],
)
def test_wrong_answers_fail_the_request(indexes: tuple[Any, ...], message: str) -> None:
    async def main() -> None:
        made = batcher(answering(*indexes))
        with pytest.raises(BackendError, match=message):
            await embed(made, "a", "b")
        check_empty(made)

    run(main())


def test_an_adapter_that_answers_only_the_first_still_serves_requests_with_one_item() -> None:
    async def main() -> None:
        made = batcher(answering(0))
        tasks = [start(made, name) for name in ("x", "a", "b", "c", "dd")] + [start(made, "e", "f")]
        results = await outcomes(tasks)
        assert results[:-1] == [reprs([name]) for name in ("x", "a", "b", "c", "dd")]
        assert isinstance(results[-1], BackendError)
        check_empty(made)

    run(main())


def test_answers_may_come_in_any_order() -> None:
    async def main() -> None:
        made = batcher(answering(2, 0, 1))
        assert await embed(made, "a", "b", "c") == reprs("abc")

    run(main())


def test_an_answer_too_many_after_all_were_answered_is_logged() -> None:
    async def main() -> None:
        with capture_logs() as lines:
            assert await embed(batcher(answering(0, 0)), "a") == reprs("a")
        assert [(line["event"], line["model"], str(line["exc_info"])) for line in lines] == [
            ("batch_failed", "m", "The model answered an input twice, or one that it was not given.")
        ]

    run(main())


def test_what_was_answered_before_the_error_is_not_asked_for_again() -> None:
    async def main() -> None:
        asked: list[Any] = []

        async def breaks(request: EmbedRequest) -> AsyncGenerator[Chunk, None]:
            asked.append(request.inputs)
            await turns(3)
            for index, value in enumerate(request.inputs):
                if index == 2 and len(asked) == 2:
                    raise BackendError("broke")
                yield Embedding(index=index, vector=repr(value).encode(), tokens=1)

        made = batcher(breaks)
        tasks = [start(made, name) for name in "xabcd"]
        assert await asyncio.gather(*tasks) == [reprs(name) for name in "xabcd"]
        assert asked == [("x",), ("a", "b", "c", "d"), ("c",), ("d",)]

    run(main())


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_those_of_whom_nothing_has_run_are_sent_away() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_tokens=2)
        begun, waiting = start(made, *"abcd", client="1"), [start(made, name, client="2") for name in "ef"]
        await turns()
        made.refuse(CapacityError("no more"))
        assert (made.queued, len(made._queued)) == (0, 1), "from this moment on, nothing of them can begin"
        assert [str(error) for error in await outcomes(waiting)] == ["no more"] * 2
        script.open()
        assert await begun == reprs("abcd")
        assert script.names() == ["ab", "cd"]
        check_empty(made)

    run(main())


def test_closing_waits_for_what_has_begun() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_tokens=2)
        begun = start(made, *"abcd")
        await turns()
        closing = asyncio.create_task(made.close())
        await turns()
        assert not closing.done()
        script.open()
        await closing
        assert (script.inside, script.names()) == (0, ["ab", "cd"])
        assert await begun == reprs("abcd")

    run(main())


def test_closing_does_not_leave_those_behind_that_wait_for_others_to_join_them() -> None:
    async def main() -> None:
        script, made = await after_a_batch_of(3, window_s=60.0)
        waiting = start(made, "a")
        await turns()
        assert script.calls == []
        await made.close()
        assert await waiting == reprs("a")
        check_empty(made)

    run(main())


def test_closing_does_not_leave_the_rest_of_a_large_request_behind() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, window_s=60.0, max_tokens=10)
        tasks = [start(made, "x")]
        await turns()
        tasks += [start(made, text("a", 5), text("b", 2), client="1"), start(made, text("c", 5), client="2")]
        await turns()
        script.let_go()
        await turns()
        assert (script.names(), len(made._queued)) == (["x", "ac"], 1)
        closing = asyncio.create_task(made.close())
        await turns()
        script.open()
        await closing
        await asyncio.gather(*tasks)
        check_empty(made)

    run(main())


def test_closing_serves_those_that_were_not_sent_away() -> None:
    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, window_s=60.0)
        tasks = [start(made, name) for name in "xab"]
        await turns()
        script.let_go()
        await turns()
        tasks.append(start(made, "c"))
        await turns()
        assert (script.names(), made.queued) == (["x", "ab"], 1)
        closing = asyncio.create_task(made.close())
        await turns()
        script.open()
        await closing
        assert script.names() == ["x", "ab", "c"]
        await asyncio.gather(*tasks)

    run(main())


def test_an_idle_batcher_is_closed_at_once() -> None:
    async def main() -> None:
        await batcher(Script()).close()
        _, made = await after_a_batch_of(3, window_s=60.0)
        await made.close()
        assert made._hold is None

    run(main())


def test_a_run_that_is_cancelled_from_below_fails_its_requests() -> None:
    async def main() -> None:
        async def cancelled(_: Any) -> AsyncGenerator[Chunk, None]:
            await turns(3)
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
            yield Chunk()

        made = batcher(cancelled)
        results = await outcomes([start(made, name) for name in "abc"])
        assert [type(result) for result in results] == [BackendError] * 3
        check_empty(made)

    run(main())


# ── many ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def events_per_item(items: int, clients: int) -> float:
    """Return the calls of Python and built-in functions for each of so many items that wait at once."""
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    async def main() -> None:
        script = Script(held=True)
        made = batcher(script, max_tokens=20)
        tasks = [start(made, "x")]
        await turns()
        each = items // clients
        tasks += [
            start(made, *(text("a", 1 + number % 3) for number in range(each)), client=str(client))
            for client in range(clients)
        ]
        await turns()
        sys.setprofile(profile)
        try:
            script.open()
            await asyncio.gather(*tasks)
        finally:
            sys.setprofile(None)

    run(main())
    return count / items


@pytest.mark.parametrize("shape", [lambda items: 1, lambda items: 10, lambda items: items // 2])
def test_a_long_queue_makes_no_batch_dearer(shape: Callable[[int], int]) -> None:
    assert events_per_item(10_000, shape(10_000)) < 1.5 * events_per_item(500, shape(500))


class Asked(Struct):
    """A request of the storm, and what becomes of it."""

    client: str
    lengths: list[int]
    dimensions: int | None
    bad: bool
    cancelled_after: int | None


ASKED = st.builds(
    Asked,
    client=st.sampled_from("abc"),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    dimensions=st.sampled_from([None, None, None, 8]),
    bad=st.integers(0, 5).map(lambda number: number == 0),
    cancelled_after=st.none() | st.none() | st.integers(0, 40),
)


class Storm:
    """Random requests against a model with little memory and random trouble."""

    def __init__(self, memory: int, dies_at: int | None, delays: list[int]) -> None:
        self.memory = memory
        self.dies_at = dies_at
        self.delays = delays
        self.calls = self.inside = self.most = 0

    async def run(self, request: EmbedRequest) -> AsyncGenerator[Chunk, None]:
        self.calls += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        delay = self.delays[self.calls % len(self.delays)]
        try:
            await turns(delay)
            if self.calls == self.dies_at:
                raise WorkerDiedError("gone")
            for index, value in enumerate(request.inputs):
                if index and len(request.inputs) * max(map(len, request.inputs)) > self.memory:
                    raise OutOfMemoryError("too much")
                if len(value) > self.memory:
                    raise OutOfMemoryError("too much by itself")
                if isinstance(value, str) and value.startswith("bad"):
                    raise BackendError("bad")
                yield Embedding(index=index, vector=repr((value, request.dimensions)).encode(), tokens=1)
                await turns(delay % 2)
        finally:
            try:
                await turns(delay % 3)
            finally:
                self.inside -= 1

    async def one(self, made: Batcher, number: int, asked: Asked) -> None:
        """Ask, and check that what comes is one of the outcomes there may be."""
        inputs: list[Any] = [(number, place, *range(length))[:length] for place, length in enumerate(asked.lengths)]
        if asked.bad:
            inputs[-1] = f"bad {number}"
        large = any(len(value) > self.memory for value in inputs)
        try:
            answers = await embed(made, *inputs, ticket=Ticket(client=asked.client), dimensions=asked.dimensions)
        except asyncio.CancelledError:
            assert asked.cancelled_after is not None
            raise
        except OutOfMemoryError:
            assert large
        except WorkerDiedError:
            assert self.dies_at is not None
        except BackendError as error:
            assert asked.bad
            assert error.message == "bad"  # noqa: PT017 - one of several outcomes
        else:
            assert not asked.bad
            assert not large
            assert answers == [repr((value, asked.dimensions)) for value in inputs]


@given(
    requests=st.lists(ASKED, max_size=12),
    slots=st.integers(1, 3),
    max_tokens=st.integers(30, 200),
    memory=st.sampled_from([20, 40, 1000]),
    dies_at=st.none() | st.none() | st.integers(1, 6),
    delays=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    window_s=st.sampled_from([0.0, 0.0005]),
)
def test_whatever_happens_every_request_has_one_right_outcome_and_the_model_is_free_again(  # noqa: PLR0913 - what a storm is made of
    *,
    requests: list[Asked],
    slots: int,
    max_tokens: int,
    memory: int,
    dies_at: int | None,
    delays: list[int],
    window_s: float,
) -> None:
    async def main() -> None:
        storm = Storm(memory, dies_at, delays)
        made = batcher(storm.run, slots=slots, max_tokens=max_tokens, window_s=window_s)
        tasks: list[asyncio.Task[None]] = []

        async def cancel(task: asyncio.Task[None], after: int) -> None:
            await turns(after)
            task.cancel()

        async with asyncio.TaskGroup() as group:
            for number, asked in enumerate(requests):
                tasks.append(asyncio.create_task(storm.one(made, number, asked)))
                if asked.cancelled_after is not None:
                    group.create_task(cancel(tasks[-1], asked.cancelled_after))
                await turns(number % 3)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result
        assert (storm.inside, storm.most <= slots) == (0, True)
        check_empty(made)
        storm.dies_at = None
        await storm.one(made, 99, Asked(client="z", lengths=[3], dimensions=None, bad=False, cancelled_after=None))
        await made.close()

    with capture_logs():
        run(main())
