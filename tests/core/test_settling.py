import asyncio
import gc
from typing import Any

import pytest

from loops import run, turns
from yapit.settling import settle


def test_a_cancellation_waits_its_turn_however_often_it_comes() -> None:
    async def main() -> None:
        work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(settle(work))
        for _ in range(3):
            await turns()
            waiting.cancel()
        await turns()
        assert not waiting.done()
        work.set_result(7)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert work.result() == 7

    run(main())


def test_what_is_done_or_cancelled_is_not_waited_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        done.set_result(None)
        cancelled: asyncio.Future[None] = loop.create_future()
        cancelled.cancel()
        await settle(done)
        await settle(cancelled)

    run(main())


def test_an_error_counts_as_seen_and_is_there_to_be_asked_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        for asked in (False, True):
            work: asyncio.Future[None] = loop.create_future()
            work.set_exception(ValueError("lost"))
            await settle(work)
            if asked:
                with pytest.raises(ValueError, match="lost"):
                    work.result()
            del work
        gc.collect()
        await turns()
        assert complaints == []

    run(main())
