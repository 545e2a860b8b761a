"""One run that many read: who comes, who leaves, who is slow, and what becomes of the work."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from contextvars import ContextVar
from random import Random

import pytest

from loops import run, turns
from yapit import BackendError, CapacityError, DeadlineError, TextChunk
from yapit.engine.cache.flights import Flight, weight
from yapit.tickets import CacheOutcome, Ticket, current

PLENTY = 1_000_000
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="none")
Note = Callable[[CacheOutcome], None]


class Work:
    """Makes `count` chunks; before number `holds_at` it waits for `go_on`."""

    def __init__(self, count: int = 5, holds_at: int = -1, error: Exception | None = None, text: str = "") -> None:
        self.count, self.holds_at, self.error, self.text = count, holds_at, error, text
        self.go_on, self.stuck = asyncio.Event(), asyncio.Event()
        self.made = self.begun = self.ended = 0
        self.ticket: Ticket | None = None
        self.request_id = ""

    async def __call__(self, _note: Note) -> AsyncGenerator[TextChunk, None]:
        self.begun += 1
        self.ticket, self.request_id = current(), REQUEST_ID.get()
        try:
            for number in range(self.count):
                if number == self.holds_at:
                    self.stuck.set()
                    await self.go_on.wait()
                self.made += 1
                yield TextChunk(text=f"{number}{self.text}")
            if self.error is not None:
                raise self.error
        finally:
            try:
                await turns()  # letting go takes a while
            finally:
                self.ended += 1


async def read(flight: Flight[TextChunk]) -> list[str]:
    async with aclosing(flight.read()) as items:
        return [item.text async for item in items]


class Full:
    """Counts how often a flight says that nobody may come any more."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def flight_of(work: Work, largest_bytes: int = PLENTY, full: Callable[[], None] | None = None) -> Flight[TextChunk]:
    return Flight(work, largest_bytes, full or Full())


def test_all_readers_get_all_items_of_one_run_and_late_ones_too() -> None:
    async def main() -> None:
        work, full = Work(holds_at=3), Full()
        flight = flight_of(work, full=full)
        early = [asyncio.create_task(read(flight)) for _ in range(3)]
        await work.stuck.wait()
        late = asyncio.create_task(read(flight))
        await turns()
        assert full.times == 0
        work.go_on.set()
        assert await asyncio.gather(*early, late) == [["0", "1", "2", "3", "4"]] * 4
        assert (work.begun, work.ended, full.times) == (1, 1, 1)

    run(main())


def test_what_is_made_is_read_at_once() -> None:
    async def main() -> None:
        work = Work(holds_at=2)
        flight = flight_of(work)
        async with aclosing(flight.read()) as items:
            assert [(await anext(items)).text for _ in range(2)] == ["0", "1"]
            await work.stuck.wait()
            assert work.made == 2

    run(main())


def test_when_the_first_reader_leaves_the_work_goes_on_for_the_others() -> None:
    async def main() -> None:
        work = Work(holds_at=2)
        flight = flight_of(work)
        leader = asyncio.create_task(read(flight))
        await work.stuck.wait()
        follower = asyncio.create_task(read(flight))
        await turns()
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert work.ended == 0
        work.go_on.set()
        assert await follower == ["0", "1", "2", "3", "4"]

    run(main())


def test_when_the_last_reader_has_left_the_work_has_let_go() -> None:
    async def main() -> None:
        work, full = Work(holds_at=2), Full()
        flight = flight_of(work, full=full)
        readers = [asyncio.create_task(read(flight)) for _ in range(2)]
        await work.stuck.wait()
        for reader in readers:
            assert (work.ended, full.times) == (0, 0)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
        assert (work.made, work.ended, full.times) == (2, 1, 1)
        assert flight.task.done()

    run(main())


def test_a_reader_that_closes_before_the_end_stops_the_work() -> None:
    async def main() -> None:
        work = Work(count=1000)
        flight = flight_of(work)
        async with aclosing(flight.read()) as items:
            await anext(items)
        assert work.ended == 1
        assert work.made < 20

    run(main())


def test_the_work_waits_for_its_only_reader() -> None:
    async def main() -> None:
        work = Work(count=1000)
        flight = flight_of(work)
        async with aclosing(flight.read()) as items:
            for had in range(1, 50):
                await anext(items)
                await turns()
                assert work.made == had + 16

    run(main())


def test_a_slow_reader_holds_nobody_back_and_gets_everything() -> None:
    async def main() -> None:
        work = Work(count=1000)
        flight = flight_of(work)
        async with aclosing(flight.read()) as slow:
            first = (await anext(slow)).text
            everything = [str(number) for number in range(1000)]
            assert await read(flight) == everything
            assert work.ended == 1
            assert [first] + [item.text async for item in slow] == everything

    run(main())


def test_the_work_waits_again_when_only_the_slow_reader_is_left() -> None:
    async def main() -> None:
        work = Work(count=1000)
        flight = flight_of(work)
        async with aclosing(flight.read()) as slow:
            await anext(slow)
            async with aclosing(flight.read()) as fast:
                for _ in range(100):
                    await anext(fast)
            await turns()
            made = work.made
            assert made <= 116
            for _ in range(84):
                await anext(slow)
                await turns()
            assert work.made == made
            for _ in range(100):
                await anext(slow)
                await turns()
            assert work.made > made

    run(main())


def test_an_error_goes_to_all_after_what_was_made() -> None:
    async def main() -> None:
        work = Work(count=2, error=BackendError("broken"))
        flight = flight_of(work)
        got: list[list[str]] = [[], [], []]

        async def listen(mine: list[str]) -> None:
            async with aclosing(flight.read()) as items:
                async for item in items:
                    mine.append(item.text)  # noqa: PERF401 - what came before the error counts

        ends = await asyncio.gather(*(listen(mine) for mine in got), return_exceptions=True)
        assert [str(end) for end in ends] == ["broken"] * 3
        assert {type(end) for end in ends} == {BackendError}
        assert got == [["0", "1"]] * 3

    run(main())


def test_an_error_that_nobody_waited_for_is_not_reported_as_never_retrieved() -> None:
    async def main() -> None:
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        flight = flight_of(Work(count=1, error=BackendError("broken")))
        async with aclosing(flight.read()) as items:
            await anext(items)
            await asyncio.wait([flight.task])
        del flight, items
        gc.collect()
        assert complaints == []

    run(main())


def test_a_flight_that_is_stopped_tells_its_readers() -> None:
    async def main() -> None:
        work = Work(holds_at=1)
        flight = flight_of(work)
        readers = [asyncio.create_task(read(flight)) for _ in range(2)]
        await work.stuck.wait()
        await flight.stop()
        assert work.ended == 1
        for reader in readers:
            with pytest.raises(CapacityError, match="stopped"):
                await reader
            assert not reader.cancelled()

    run(main())


def test_what_is_too_large_to_keep_for_late_ones_is_kept_for_nobody() -> None:
    """Nobody may join then, those who keep up get all, and the one who does not is told."""

    async def main() -> None:
        work, full = Work(count=200, text="x" * 100), Full()
        largest = 50 * weight(TextChunk(text="000" + "x" * 100))
        flight = flight_of(work, largest, full)
        async with aclosing(flight.read()) as slow, aclosing(flight.read()) as fast:
            await anext(slow)
            for _ in range(40):
                await anext(fast)
            await turns()
            assert full.times == 1
            rest = [item async for item in fast]
            assert len(rest) == 160
            assert sum(map(weight, flight._items.values())) <= largest
            with pytest.raises(CapacityError, match="too slowly") as caught:
                await anext(slow)
            assert caught.value.code == "read_too_slowly"
        assert full.times == 1

    run(main())


def test_one_item_that_is_too_large_still_arrives() -> None:
    async def main() -> None:
        work = Work(count=3, text="x" * 1000)
        assert len(await read(flight_of(work, 10))) == 3

    run(main())


def test_the_work_has_the_context_of_the_one_who_began_it_and_a_ticket_of_its_own() -> None:
    async def main() -> None:
        REQUEST_ID.set("req_1")
        work = Work()
        with Ticket("req_1", "me", deadline=1.0, keep_alive_s=7.0).bound() as ticket:
            ticket.admitted = True
            ticket.held.add(("synthesize", "m"))
            flight = flight_of(work)
            await read(flight)
        made = work.ticket
        assert work.request_id == "req_1"
        assert made is not None
        assert made is not ticket
        assert (made.id, made.client, made.deadline, made.keep_alive_s) == ("req_1", "me", None, 7.0)
        assert (made.store, made.admitted, made.held) == (True, True, {("synthesize", "m")})
        assert made.held is not ticket.held, "what the work holds it holds by itself"

    run(main())


@pytest.mark.parametrize("leads", [True, False])
def test_a_deadline_stops_only_the_one_whose_it_is(leads: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async def main() -> None:
        work = Work(holds_at=1)
        flight = flight_of(work)
        tickets = [Ticket(str(number)) for number in range(2)]

        async def request(ticket: Ticket) -> list[str]:
            with ticket.bound():
                return await read(flight)

        requests = [asyncio.create_task(request(ticket)) for ticket in tickets]
        await work.stuck.wait()
        late = 0 if leads else 1
        tickets[late].stop(DeadlineError("too long"))
        with pytest.raises(asyncio.CancelledError):
            await requests[late]
        assert work.ended == 0
        work.go_on.set()
        assert len(await requests[1 - late]) == 5

    run(main())


@pytest.mark.parametrize("seed", range(30))
def test_whoever_comes_and_goes_those_who_stay_get_everything_and_nothing_is_left(seed: int) -> None:
    chance = Random(seed)  # noqa: S311 - an experiment that can be repeated

    async def main() -> None:
        works: list[Work] = []
        flights: list[Flight[TextChunk]] = []

        def join() -> Flight[TextChunk]:
            if not flights:
                works.append(Work(count=60, error=BackendError("broken") if chance.random() < 0.2 else None))
                flights.append(flight_of(works[-1], full=Empty(flights)))
            return flights[-1]

        async def request() -> None:
            await turns(chance.randrange(40))
            leaves_at = chance.choice([None, None, 0, 1, 20, 60])
            pace = chance.choice([0, 0, 1, 3])
            got: list[str] = []
            try:
                async with aclosing(join().read()) as items:
                    async for item in items:
                        got.append(item.text)
                        if len(got) == leaves_at:
                            return
                        await turns(pace)
            except BackendError:
                pass
            assert got == [str(number) for number in range(60)]

        requests = [asyncio.create_task(request()) for _ in range(30)]
        for task in chance.sample(requests, 8):
            await turns(chance.randrange(10))
            task.cancel()
        ends = await asyncio.gather(*requests, return_exceptions=True)
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
        assert flights == []
        assert all((work.begun, work.ended) in ((1, 1), (0, 0)) for work in works)

    run(main())


class Empty:
    """Empties a list."""

    def __init__(self, things: list[Flight[TextChunk]]) -> None:
        self.things = things

    def __call__(self) -> None:
        self.things.clear()
