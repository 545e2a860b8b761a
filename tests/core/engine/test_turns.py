import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loops import run, turns
from yapit.catalog import Model
from yapit.engine import turns as module
from yapit.engine.meters import Meters
from yapit.engine.turns import FairQueue, Limits, Line, Slots
from yapit.errors import CapacityError, RateLimitError
from yapit.tasks import EMBED
from yapit.tickets import Ticket

MODEL = Model(id="m", backend="b", tasks=("embed",))


def line(slots: int = 1, max_queue: int = 100, timeout_s: float = 0.0) -> Line:
    meter = Meters(lambda _: None, lambda: ()).of(EMBED, MODEL)
    return Line(Limits(model="m", max_queue=max_queue, timeout_s=timeout_s), slots, meter)


# ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def filled(**lines: str) -> FairQueue[str]:
    """Return a queue with one item for each letter."""
    queue = FairQueue[str]()
    for client, items in lines.items():
        for item in items:
            queue.push(client, item)
    return queue


def popped(queue: FairQueue[str]) -> str:
    return "".join(queue.pop() for _ in range(len(queue)))


def test_clients_take_turns_and_each_is_first_in_first_out() -> None:
    queue = filled(one="abcd", two="x", three="12")
    assert "".join(queue) == "ax1b2cd"
    assert popped(queue) == "ax1b2cd"


def test_one_client_with_a_thousand_items_delays_another_s_by_one() -> None:
    queue = FairQueue[int]()
    for number in range(1000):
        queue.push("greedy", number)
    queue.push("modest", -1)
    assert [queue.pop(), queue.pop()] == [0, -1]


def test_a_client_that_comes_back_is_behind_those_that_waited() -> None:
    queue = filled(one="a", two="xy")
    assert queue.pop() == "a"
    queue.push("one", "b")
    assert popped(queue) == "xby"


def test_an_item_that_had_its_turn_is_the_first_of_its_client_again() -> None:
    queue = filled(one="ab", two="x")
    queue.push("two", "w", first=True)
    assert popped(queue) == "awbx"


def test_a_discarded_item_leaves_the_turns_as_they_are() -> None:
    queue = filled(one="ab", two="x", three="1")
    queue.discard("one", "a")
    queue.discard("two", "x")
    queue.discard("two", "x")
    queue.discard("nobody", "a")
    assert len(queue) == 2
    assert popped(queue) == "b1"


def test_a_passed_turn_comes_last() -> None:
    queue = filled(one="ab", two="x")
    queue.pass_turn()
    assert popped(queue) == "xab"
    queue.pass_turn()
    assert (len(queue), list(queue)) == (0, [])


def test_an_empty_queue_is_false_and_says_that_nobody_waits() -> None:
    queue = filled(one="a")
    assert queue
    queue.pop()
    assert not queue
    with pytest.raises(StopIteration):
        queue.pop()


class Naive:
    """The queue as one would explain it: a list of clients in the order of their turns, each with a list."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, list[int]]] = []

    def push(self, client: str, item: int, *, first: bool) -> None:
        line = next((items for name, items in self.lines if name == client), None)
        if line is None:
            self.lines.append((client, line := []))
        line.insert(0 if first else len(line), item)

    def pop(self) -> int:
        (client, items), *rest = self.lines
        self.lines = [*rest, (client, items[1:])] if items[1:] else rest
        return items[0]

    def discard(self, client: str, item: int) -> None:
        kept = [(name, [x for x in items if (name, x) != (client, item)]) for name, items in self.lines]
        self.lines = [(name, items) for name, items in kept if items]

    def pass_turn(self) -> None:
        self.lines = [*self.lines[1:], *self.lines[:1]]

    def order(self) -> list[int]:
        longest = max((len(items) for _, items in self.lines), default=0)
        return [items[turn] for turn in range(longest) for _, items in self.lines if turn < len(items)]


@given(st.lists(st.tuples(st.sampled_from(["push", "push", "first", "pop", "discard", "pass"]), st.integers(0, 3))))
def test_the_queue_is_what_one_would_explain(steps: list[tuple[str, int]]) -> None:
    queue, naive = FairQueue[int](), Naive()
    for number, (step, who) in enumerate(steps):
        client = "abcd"[who]
        match step:
            case "push" | "first":
                queue.push(client, number, first=step == "first")
                naive.push(client, number, first=step == "first")
            case "pop" if naive.lines:
                assert queue.pop() == naive.pop()
            case "discard":
                item = number // 2
                queue.discard(client, item)
                naive.discard(client, item)
            case "pass":
                queue.pass_turn()
                naive.pass_turn()
        assert list(queue) == naive.order()
        assert len(queue) == len(naive.order())


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_nobody_is_served_twice_more_than_another_who_waits(counts: list[int]) -> None:
    queue = FairQueue[tuple[int, int]]()
    for client, count in enumerate(counts):
        for number in range(count):
            queue.push(str(client), (client, number))
    served = [0] * len(counts)
    while queue:
        client, number = queue.pop()
        assert number == served[client]
        served[client] += 1
        waiting = [done for done, count in zip(served, counts, strict=True) if done < count]
        assert max(served) - min(waiting, default=max(served)) <= 1


# ── the rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_full_line_is_a_429_that_says_when_to_come_back() -> None:
    rules = line(slots=2, max_queue=3)
    rules.check_room(Ticket(), 2)
    rules.served(5.0)
    with pytest.raises(RateLimitError, match=r"'m' \(3 of 3\)") as caught:
        rules.check_room(Ticket(), 3)
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert caught.value.retry_after_s == 5.0 * (3 + 1) / 2


def test_a_wait_that_was_too_long_is_a_503_that_says_when_to_come_back() -> None:
    rules = line(timeout_s=2.5)
    rules.served(5.0)
    error = rules.too_long(1)
    assert isinstance(error, CapacityError)
    assert (error.status, error.code, error.retry_after_s) == (503, "queue_timeout", 10.0)
    assert "longer than 2.5 s" in error.message


@pytest.mark.parametrize(
    ("served", "waiting", "retry_after_s"),
    [
        ([], 0, 1),
        ([], 5, 6),
        ([0.0], 5, 6),  # too fast to be measured: nothing is known
        ([0.001], 5, 1),
        ([0.7], 2, 3),
        ([1000.0], 0, 60),
        ([2.0, 12.0], 0, 4),  # the newest has a fifth of the weight
    ],
)
def test_when_to_come_back_follows_the_measured_time(served: list[float], waiting: int, retry_after_s: float) -> None:
    rules = line()
    for seconds in served:
        rules.served(seconds)
    assert rules.retry_after_s(waiting) == retry_after_s


def test_what_has_begun_is_neither_sent_away_nor_timed() -> None:
    rules, ticket = line(max_queue=0, timeout_s=3.0), Ticket()
    assert rules.timeout_s(ticket) == 3.0
    ticket.admitted = True
    rules.check_room(ticket, 7)
    assert rules.timeout_s(ticket) is None


def test_no_time_limit_is_none() -> None:
    assert line(timeout_s=0.0).timeout_s(Ticket()) is None


# ── the slots ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class Calls:
    """Calls that hold a slot until they are let go."""

    def __init__(self, rules: Line) -> None:
        self.rules = rules
        self.slots = Slots(rules)
        self.inside: list[str] = []
        self.order: list[str] = []
        self.most = 0
        self._go = dict[str, asyncio.Event]()

    async def call(self, name: str, ticket: Ticket | None = None) -> None:
        with (ticket or Ticket(client=name[0])).bound():
            async with self.slots.slot():
                self.inside.append(name)
                self.order.append(name)
                self.most = max(self.most, len(self.inside))
                try:
                    await self._event(name).wait()
                finally:
                    self.inside.remove(name)

    def start(self, *names: str) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.call(name)) for name in names]

    def let_go(self, name: str) -> None:
        self._event(name).set()

    async def finish(self) -> None:
        """Let go of whoever comes to hold a slot."""
        while self.inside:
            for name in self.inside:
                self.let_go(name)
            await turns(3)

    def check_free(self) -> None:
        """Assert that every slot is free and nobody waits."""
        assert (self.slots._free, self.slots.queued, self.inside) == (self.rules.slots, 0, [])

    def _event(self, name: str) -> asyncio.Event:
        return self._go.setdefault(name, asyncio.Event())


def test_as_many_run_as_there_are_slots_and_the_others_in_turn() -> None:
    async def main() -> None:
        calls = Calls(line(slots=2))
        tasks = calls.start("a1", "a2", "a3", "a4", "b1", "c1")
        await turns()
        assert (calls.inside, calls.slots.queued) == (["a1", "a2"], 4)
        await calls.finish()
        await asyncio.gather(*tasks)
        assert calls.order == ["a1", "a2", "a3", "b1", "c1", "a4"]
        assert calls.most == 2
        calls.check_free()

    run(main())


def test_a_queue_that_is_full_sends_away_and_one_that_has_room_again_does_not() -> None:
    async def main() -> None:
        calls = Calls(line(max_queue=1))
        tasks = calls.start("a1", "a2")
        await turns()
        with pytest.raises(RateLimitError):
            await calls.call("b1")
        calls.let_go("a1")
        await turns()
        tasks += calls.start("b1")
        await turns()
        await calls.finish()
        await asyncio.gather(*tasks)
        assert calls.order == ["a1", "a2", "b1"]
        calls.check_free()

    run(main())


def test_who_leaves_the_queue_makes_room_in_it() -> None:
    async def main() -> None:
        calls = Calls(line(max_queue=1))
        running, leaving = calls.start("a1", "b1")
        await turns()
        leaving.cancel()
        await turns()
        assert calls.slots.queued == 0
        coming = calls.start("c1")
        await turns()
        await calls.finish()
        await asyncio.gather(running, *coming)
        assert calls.order == ["a1", "c1"]
        calls.check_free()

    run(main())


def test_no_queue_at_all_still_serves_whom_it_can_at_once() -> None:
    async def main() -> None:
        calls = Calls(line(max_queue=0))
        tasks = calls.start("a1")
        await turns()
        with pytest.raises(RateLimitError, match="0 of 0"):
            await calls.call("b1")
        await calls.finish()
        await asyncio.gather(*tasks)
        calls.check_free()

    run(main())


def test_who_waits_too_long_is_told_so_and_takes_no_slot_along() -> None:
    async def main() -> None:
        calls = Calls(line(timeout_s=0.001))
        tasks = calls.start("a1")
        await turns()
        with pytest.raises(CapacityError) as caught:
            await calls.call("b1")
        assert caught.value.code == "queue_timeout"
        assert calls.inside == ["a1"], "whoever runs goes on"
        await calls.finish()
        await asyncio.gather(*tasks)
        calls.check_free()

    run(main())


def test_a_request_that_had_a_slot_waits_in_a_full_queue_for_as_long_as_it_takes() -> None:
    async def main() -> None:
        calls = Calls(line(max_queue=1, timeout_s=0.001))
        ticket = Ticket(client="b")
        tasks = calls.start("a1")
        await turns()
        ticket.admitted = True
        going_on = asyncio.create_task(calls.call("b1", ticket))
        await turns()
        with pytest.raises(RateLimitError):
            await calls.call("c1")
        calls.rules.limits = Limits(model="m", max_queue=2, timeout_s=0.001)
        with pytest.raises(CapacityError):
            await calls.call("c1")  # came after it, and its time is over
        assert not going_on.done()
        calls.let_go("a1")
        await turns()
        await calls.finish()
        await asyncio.gather(*tasks, going_on)
        assert calls.order == ["a1", "b1"]
        calls.check_free()

    run(main())


def test_a_ticket_is_admitted_when_it_has_a_slot_and_not_before() -> None:
    async def main() -> None:
        calls = Calls(line())
        first, second = Ticket(client="a"), Ticket(client="b")
        tasks = [asyncio.create_task(calls.call("a1", first)), asyncio.create_task(calls.call("b1", second))]
        await turns()
        assert (first.admitted, second.admitted) == (True, False)
        calls.let_go("a1")
        await turns()
        assert second.admitted
        await calls.finish()
        await asyncio.gather(*tasks)

    run(main())


def test_those_that_wait_are_sent_away_and_those_that_run_are_not() -> None:
    async def main() -> None:
        calls = Calls(line())
        running, *waiting = calls.start("a1", "b1", "c1")
        await turns()
        calls.slots.refuse(CapacityError("no more"))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(error) for error in results] == ["no more"] * 2
        assert calls.inside == ["a1"]
        await calls.finish()
        await running
        calls.check_free()

    run(main())


def test_a_failed_call_gives_its_slot_on() -> None:
    async def main() -> None:
        calls = Calls(line())

        async def fail() -> None:
            async with calls.slots.slot():
                await turns(3)
                raise RuntimeError("broken")

        failing = asyncio.create_task(fail())
        await turns(1)
        tasks = calls.start("a1")
        with pytest.raises(RuntimeError, match="broken"):
            await failing
        await turns()
        assert calls.inside == ["a1"]
        await calls.finish()
        await asyncio.gather(*tasks)
        calls.check_free()

    run(main())


def test_the_time_in_a_slot_is_what_is_learnt_and_the_time_before_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        clock = [100.0]
        monkeypatch.setattr(module, "perf_counter", lambda: clock[0])
        calls = Calls(line())
        tasks = calls.start("a1", "b1")
        await turns()
        clock[0] += 7.0
        calls.let_go("a1")
        await turns()
        assert calls.rules.retry_after_s(0) == 7.0
        wait = calls.rules.meter.queue_wait
        assert wait._sum.get() == 7.0
        await calls.finish()
        await asyncio.gather(*tasks)

    run(main())


# ── no slot is lost ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("moment", range(8))
@pytest.mark.parametrize("release", [False, True])
def test_a_cancellation_at_any_moment_loses_no_slot(moment: int, victim: int, *, release: bool) -> None:
    async def main() -> None:
        calls = Calls(line())
        tasks = calls.start("a1", "b1", "c1")
        if release:
            await turns(2)
            calls.let_go("a1")
        await turns(moment)
        tasks[victim].cancel()
        await turns()
        await calls.finish()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [result for place, result in enumerate(results) if place != victim] == [None, None]
        calls.check_free()

    run(main())


def test_a_slot_given_to_one_that_is_cancelled_before_it_knows_goes_to_the_next() -> None:
    async def main() -> None:
        calls = Calls(line())
        first, second, third = calls.start("a1", "b1", "c1")
        await turns()
        calls.let_go("a1")
        await turns(1)  # the first leaves; the second has the slot and has not run since
        assert (calls.inside, calls.slots.queued) == ([], 1)
        second.cancel()
        await turns(3)
        assert calls.inside == ["c1"]
        await calls.finish()
        await asyncio.gather(first, second, third, return_exceptions=True)
        calls.check_free()

    run(main())


def test_a_time_limit_that_ends_when_the_slot_comes_loses_no_slot() -> None:
    async def main() -> None:
        calls = Calls(line(timeout_s=60.0))
        loop: Any = asyncio.get_running_loop()
        first, second, third = calls.start("a1", "b1", "c1")
        await turns()
        calls.let_go("a1")
        await turns(1)
        owned = [(handle, getattr(handle._callback, "__self__", None)) for handle in loop._scheduled]
        (timer,) = [handle for handle, owner in owned if getattr(owner, "_task", None) is second]
        timer._run()  # it rings now
        timer.cancel()
        results = await asyncio.gather(second, return_exceptions=True)
        assert [getattr(result, "code", None) for result in results] == ["queue_timeout"]
        await turns()
        assert calls.inside == ["c1"]
        await calls.finish()
        await asyncio.gather(first, third)
        calls.check_free()

    run(main())


STEPS = st.lists(st.tuples(st.sampled_from(["call", "cancel", "let go", "turns", "refuse"]), st.integers(0, 12)))


@given(st.integers(1, 3), STEPS)
@example(1, [("call", 0), ("call", 0), ("let go", 0), ("turns", 1), ("cancel", 1)])
def test_whatever_comes_and_goes_no_slot_is_lost_and_nobody_is_forgotten(
    slots: int, steps: list[tuple[str, int]]
) -> None:
    async def main() -> None:
        calls = Calls(line(slots=slots, max_queue=4))
        tasks: list[asyncio.Task[None]] = []
        does: dict[str, Callable[[int], object]] = {
            "call": lambda n: tasks.extend(calls.start(f"{'abc'[n % 3]}{len(tasks)}")),
            "cancel": lambda n: tasks[n % len(tasks)].cancel() if tasks else None,
            "let go": lambda n: calls.let_go(calls.inside[n % len(calls.inside)]) if calls.inside else None,
            "refuse": lambda _: calls.slots.refuse(CapacityError("no more")),
        }
        for step, number in steps:
            if step == "turns":
                await turns(number % 4)
            else:
                does[step](number)
            assert len(calls.inside) <= slots
        await turns()
        await calls.finish()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError | RateLimitError | CapacityError)
        calls.check_free()
        again = calls.start(*(f"x{number}" for number in range(slots)))
        await turns()
        assert len(calls.inside) == slots
        await calls.finish()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*again)

    run(main())
