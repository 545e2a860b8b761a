"""Running coroutines in tests: bounded in time, and nothing may outlive them."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

PATIENCE_S = 20.0  # after which a test that hangs fails


async def turns(count: int = 10) -> None:
    """Let everything else on the loop go on."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run the test's coroutine; no task and no thread it starts may outlive it."""

    async def watched() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await main
        assert asyncio.all_tasks() == {asyncio.current_task()}

    before = set(threading.enumerate())
    asyncio.run(watched())
    # A thread of a test's own HTTP server lasts as long as its connection.
    started = {thread for thread in set(threading.enumerate()) - before if "process_request" not in thread.name}
    for thread in started:
        thread.join(PATIENCE_S)
    assert started.isdisjoint(threading.enumerate())
