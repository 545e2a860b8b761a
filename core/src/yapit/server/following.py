"""The server follows the database: models that others register are served here too."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from yapit.errors import YapitError
from yapit.registry import Registry

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def followed(registry: Registry, changed: Callable[[], None], every_s: float) -> AsyncIterator[None]:
    """Keep the catalog in line with the database for as long as the block lasts; tell when it has `changed`."""
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_Follower(registry, changed).follow(every_s, ended), name="follow the database")
        try:
            yield
        finally:
            # Not cancelled: the thread that asks the database must have its answer before that is closed.
            ended.set()


class _Follower:
    """Asks the database from time to time.

    Args:
        registry: what asks.
        changed: called when the catalog is another one.
    """

    def __init__(self, registry: Registry, changed: Callable[[], None]) -> None:
        self._registry = registry
        self._changed = changed
        self._seen = registry.catalog
        self._down = False

    async def follow(self, every_s: float, ended: asyncio.Event) -> None:
        """Look after the database until it has ended."""
        while not ended.is_set():
            await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await ended.wait()

    async def _look(self) -> None:
        try:
            await asyncio.to_thread(self._registry.refresh)
        except YapitError as error:
            self._report(error.message, str(error.__cause__ or ""))
        except Exception as error:  # noqa: BLE001 - whatever the database's driver raises, the models are served
            self._report(f"{type(error).__name__}: {error}", "")
        else:
            if self._down:
                _log.info("database_back")
            self._down = False
        if self._registry.catalog is not self._seen:
            self._seen = self._registry.catalog
            self._changed()

    def _report(self, reason: str, details: str) -> None:
        """Say once that it is down."""
        if not self._down:
            _log.warning("database_down", reason=reason, details=details)
        self._down = True
