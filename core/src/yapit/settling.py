"""Waiting that a cancellation does not cut short."""

import asyncio
from typing import Any


async def settle(future: "asyncio.Future[Any]") -> None:
    """Wait until `future` is done, also while being cancelled, and only then let the cancellation through.

    For work that must not be left running: a codec in a thread, an adapter that still has to let go. Its error, if it
    has one, counts as seen; ask `future.result()` for it.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if not future.cancelled():
        future.exception()
    if cancelled is not None:
        raise cancelled
