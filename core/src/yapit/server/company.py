"""What plugins run beside the server: begun before it listens, ended before the engine closes."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import structlog

from yapit.errors import StartupError
from yapit.plugins import Plugins
from yapit.server.services import Services

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def accompanied(parts: Services, plugins: Plugins) -> AsyncIterator[None]:
    """Run what the plugins run beside the server; if one does not start, the server fails and says which."""
    async with AsyncExitStack() as stack:
        for name, companion in plugins.each("accompany", parts=parts):
            reason = await _start(stack, name, companion)
            if reason is not None:
                parts.readiness.fail(f"the plugin '{name}': {reason}")
                break
        yield


async def _start(stack: AsyncExitStack, name: str, companion: object) -> str | None:
    """Return why it did not start, or None if it did, or there is nothing to start."""
    if companion is None:
        return None
    if not isinstance(companion, AbstractAsyncContextManager):
        return "accompany must return an asynchronous context manager or None"
    try:
        await stack.enter_async_context(companion)
    except StartupError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises, one line says whose it is
        _log.exception("companion_broke", plugin=name)
        return f"{type(error).__name__}; the server's log says more."
    return None
