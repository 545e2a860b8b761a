"""A thread that computes for one call at a time, and stops when nobody waits."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing, suppress
from functools import partial

import pytest

from loops import PATIENCE_S, run
from yapit import Lane


def test_items_come_in_order_from_one_thread() -> None:
    async def main() -> None:
        lane = Lane("lane")
        threads = set()

        def items(count: int) -> Iterator[int]:
            for number in range(count):
                threads.add(threading.current_thread().name)
                yield number

        for count in (3, 0, 5):
            async with aclosing(lane.stream(partial(items, count))) as found:
                assert [item async for item in found] == list(range(count))
        assert threads == {"lane_0"}
        lane.close()

    run(main())


def test_an_error_reaches_the_reader_and_the_next_call_is_served() -> None:
    async def main() -> None:
        lane = Lane("lane")

        def broken() -> Iterator[int]:
            yield 1
            raise ValueError("no")

        async with aclosing(lane.stream(broken)) as found:
            assert await anext(found) == 1
            with pytest.raises(ValueError, match="no"):
                await anext(found)
        async with aclosing(lane.stream(lambda: iter([7]))) as found:
            assert [item async for item in found] == [7]
        lane.close()

    run(main())


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_one_that_leaves_stops_what_computes_and_waits_until_it_has_let_go(how: str) -> None:
    async def main() -> None:
        lane, begun, let_go = Lane("lane"), threading.Event(), threading.Event()

        def endless() -> Iterator[int]:
            yield 0
            begun.set()
            try:
                while True:
                    with suppress(Exception):  # as libraries do
                        lane.check()
            finally:
                let_go.set()

        async def read() -> None:
            async with aclosing(lane.stream(endless)) as found:
                async for _ in found:
                    if how == "closed":
                        return

        reading = asyncio.create_task(read())
        if how == "cancelled":
            assert await asyncio.to_thread(begun.wait, PATIENCE_S)
            assert reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert let_go.is_set()
        else:
            await reading
            assert not begun.is_set()
        async with aclosing(lane.stream(lambda: iter([7]))) as found:
            assert [item async for item in found] == [7]
        lane.close()

    run(main())


def test_a_context_variable_is_seen_on_the_thread() -> None:
    from yapit.tickets import Ticket, current

    async def main() -> None:
        lane = Lane("lane")
        with Ticket("req_1").bound():
            async with aclosing(lane.stream(lambda: iter([current().id]))) as found:
                assert [item async for item in found] == ["req_1"]

            def ids() -> Iterator[str]:
                yield current().id

            async with aclosing(lane.stream(ids)) as found:
                assert [item async for item in found] == ["req_1"]
        lane.close()

    run(main())
