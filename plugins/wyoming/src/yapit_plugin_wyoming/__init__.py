"""Wyoming beside the HTTP server: Home Assistant speaks and listens with the models that are served."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from yapit import hookimpl

if TYPE_CHECKING:
    from yapit.server.services import Services


@hookimpl
@asynccontextmanager
async def accompany(parts: "Services") -> AsyncIterator[None]:
    """Serve Wyoming on the ports of the settings while the server runs."""
    from yapit_plugin_wyoming.serving import served

    async with served(parts):
        yield
