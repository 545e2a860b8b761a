"""Whether the server lives, may get requests, and what of it is broken."""

from typing import Any

from litestar import Request, get
from msgspec import Struct

from yapit import __version__
from yapit.server.keys import OPEN
from yapit.server.services import services


class Alive(Struct, frozen=True):
    """The process answers."""

    status: str = "ok"


class FailedPlugin(Struct, frozen=True):
    """A plugin that is installed and does not work."""

    name: str
    error: str | None


class Health(Struct, frozen=True, kw_only=True):
    """The state of the server; a failed plugin leaves it healthy, since everything else works."""

    status: str
    healthy: bool
    version: str
    models: int
    running: int
    streaming_enabled: bool
    failed_plugins: list[FailedPlugin]


@get(["/livez", "/ping"], opt=OPEN, sync_to_thread=False, tags=["health"])
def livez() -> Alive:
    """Answer while the process lives."""
    return Alive()


@get("/readyz", opt=OPEN, sync_to_thread=False, tags=["health"])
def readyz() -> Alive:
    """Answer when requests may be sent."""
    return Alive()


@get("/health", opt=OPEN, sync_to_thread=False, tags=["health"])
def health(request: Request[Any, Any, Any]) -> Health:
    """Say how the server is and which plugins failed."""
    engine = services(request).engine
    failed = [FailedPlugin(plugin.name, plugin.error) for plugin in engine.plugins.failed.values()]
    return Health(
        status="ok",
        healthy=True,
        version=__version__,
        models=len(engine.catalog),
        running=engine.running(),
        streaming_enabled=True,
        failed_plugins=failed,
    )


ROUTES = [livez, readyz, health]
