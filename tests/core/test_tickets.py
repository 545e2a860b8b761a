import asyncio
from typing import Any

import pytest

from loops import run, turns
from yapit.errors import DeadlineError, StoppedError
from yapit.tickets import Ticket, current

STOPPED = StoppedError("The request was cancelled.")


class Edge:
    """Answers as an edge does: a stop is an error of the request, any other cancellation is somebody else's."""

    def __init__(self) -> None:
        self.ticket = Ticket("req_1", "client")
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()

    async def answer(self) -> str:
        with self.ticket.bound() as ticket:
            try:
                self.waits.set()
                await self.go_on.wait()
            except asyncio.CancelledError:
                if (error := ticket.stopped()) is None:
                    raise
                return error.code or ""
        return "answered"

    async def started(self) -> asyncio.Task[str]:
        task = asyncio.create_task(self.answer())
        await self.waits.wait()
        return task


# ── who asks ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_ticket_is_found_by_every_task_and_thread_that_works_for_the_request() -> None:
    async def main() -> None:
        async def deep() -> Ticket:
            return current()

        with Ticket("req_1").bound() as ticket:
            assert current() is ticket
            assert await asyncio.create_task(deep()) is ticket
            assert await asyncio.to_thread(current) is ticket

    run(main())


def test_requests_at_once_have_their_own_tickets() -> None:
    async def main() -> None:
        async def serve(name: str) -> str:
            with Ticket(name).bound():
                await turns(3)
                return current().id

        names = ["req_1", "req_2", "req_3"]
        assert await asyncio.gather(*(asyncio.create_task(serve(name)) for name in names)) == names

    run(main())


def test_a_ticket_is_forgotten_when_the_request_was_answered() -> None:
    async def main() -> None:
        with Ticket("req_1").bound(), Ticket("req_2").bound() as inner:
            assert current() is inner
        assert current().id == ""

    run(main())


def test_where_there_is_no_ticket_it_is_the_same_anonymous_one_from_then_on() -> None:
    async def main() -> None:
        ticket = current()
        assert (ticket.id, ticket.client, ticket.deadline, ticket.admitted) == ("", "", None, False)
        assert current() is ticket

    async def apart() -> None:
        first, second = await asyncio.gather(*(asyncio.create_task(anonymous()) for _ in range(2)))
        assert first is not second

    async def anonymous() -> Ticket:
        return current()

    run(main())
    run(apart())


# ── stopping ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_stop_reaches_the_task_that_answers_and_is_told_from_other_cancellations() -> None:
    async def main() -> None:
        edge = Edge()
        task = await edge.started()
        assert edge.ticket.stop(STOPPED)
        assert await task == "request_cancelled"
        assert task.cancelling() == 0, "what comes after it is not cancelled"

    run(main())


def test_a_cancellation_by_others_is_not_taken_for_a_stop() -> None:
    async def main() -> None:
        edge = Edge()
        task = await edge.started()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1, "time limits and groups further out count it"

    run(main())


@pytest.mark.parametrize("stop_first", [True, False])
def test_a_stop_and_another_s_cancellation_at_once_cancel(*, stop_first: bool) -> None:
    async def main() -> None:
        edge = Edge()
        task = await edge.started()
        steps: list[Any] = [lambda: edge.ticket.stop(STOPPED), task.cancel]
        for step in steps if stop_first else reversed(steps):
            step()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_the_first_stop_counts() -> None:
    async def main() -> None:
        edge = Edge()
        task = await edge.started()
        assert edge.ticket.stop(DeadlineError("too late"))
        assert not edge.ticket.stop(STOPPED)
        assert await task == "deadline_exceeded"
        assert not edge.ticket.stop(STOPPED)

    run(main())


def test_what_is_not_being_answered_cannot_be_stopped() -> None:
    async def main() -> None:
        edge = Edge()
        assert not edge.ticket.stop(STOPPED)
        task = await edge.started()
        edge.go_on.set()
        assert await task == "answered"
        assert not edge.ticket.stop(STOPPED)
        assert edge.ticket.stopped() is None

    run(main())


def test_a_task_that_goes_on_after_the_answer_is_not_stopped() -> None:
    async def main() -> None:
        with Ticket("req_1").bound() as ticket:
            pass
        assert not ticket.stop(STOPPED)
        await turns()

    run(main())


def test_a_stop_that_comes_as_the_answer_is_ready_still_counts() -> None:
    async def main() -> None:
        edge = Edge()
        task = await edge.started()
        edge.go_on.set()
        assert edge.ticket.stop(STOPPED)
        assert await task == "request_cancelled"

    run(main())


def test_a_stop_passes_through_a_time_limit_on_the_way() -> None:
    async def main() -> None:
        with Ticket("req_1").bound() as ticket:
            asyncio.get_running_loop().call_soon(ticket.stop, STOPPED)
            try:
                async with asyncio.timeout(60):
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert ticket.stopped() is STOPPED

    run(main())


def test_a_stop_is_not_hidden_by_a_time_limit_that_ends_at_once() -> None:
    async def main() -> None:
        with Ticket("req_1").bound() as ticket:
            stops: list[bool] = []
            try:
                async with asyncio.timeout(None) as limit:
                    asyncio.get_running_loop().call_soon(limit.reschedule, asyncio.get_running_loop().time())
                    asyncio.get_running_loop().call_soon(lambda: stops.append(ticket.stop(STOPPED)))
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert ticket.stopped() is STOPPED
            assert stops == [True]

    run(main())


def test_a_stop_cancels_the_task_that_answers_and_waits_for_what_it_waits_for() -> None:
    async def main() -> None:
        seen = []

        async def works() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(current().id)

        async def answer(ticket: Ticket) -> None:
            with ticket.bound():
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(works())
                except asyncio.CancelledError:
                    assert ticket.stopped() is STOPPED

        ticket = Ticket("req_1")
        answering = asyncio.create_task(answer(ticket))
        await turns()
        assert ticket.stop(STOPPED)
        await answering
        assert seen == ["req_1"]

    run(main())


# ── how long it may take ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ([(0.01, False)], "0.01 s"),
        ([(0.01, False), (30.0, False)], None),
        ([(0.01, True), (30.0, False)], "0.01 s"),
        ([(30.0, True), (0.01, False)], "0.01 s"),
        ([(30.0, False), (0.01, True)], "0.01 s"),
    ],
)
def test_a_later_limit_counts_unless_the_earlier_one_is_firm(
    limits: list[tuple[float, bool]], says: str | None
) -> None:
    async def main() -> None:
        with Ticket("req_1").bound() as ticket:
            for seconds, firm in limits:
                ticket.within(seconds, firm=firm)
            assert ticket.deadline is not None
            try:
                async with asyncio.timeout(0.1):
                    await asyncio.Event().wait()
            except TimeoutError:
                assert says is None
                assert ticket.reason is None
            except asyncio.CancelledError:
                error = ticket.stopped()
                assert isinstance(error, DeadlineError)
                assert str(says) in error.message
            else:
                raise AssertionError

    run(main())


def test_a_limit_is_forgotten_with_its_request() -> None:
    async def main() -> None:
        with Ticket("req_1").bound() as ticket:
            ticket.within(0.01)
        await asyncio.sleep(0.03)
        assert ticket.reason is None

    run(main())
