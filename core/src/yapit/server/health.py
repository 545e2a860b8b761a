"""Whether the server lives, may get requests, and what of it is broken."""

from typing import Any

from litestar import Request, get
from msgspec import Struct

from yapit import __version__
from yapit.errors import CapacityError
from yapit.server.keys import OPEN
from yapit.server.problems import PROBLEMS
from yapit.server.services import services


class Alive(Struct, frozen=True):
    """The process answers."""

    status: str = "ok"


class FailedPlugin(Struct, frozen=True):
    """A plugin that is installed and does not work."""

    name: str
    error: str | None


class Health(Struct, frozen=True, kw_only=True):
    """The state of the server; a failed plugin leaves it healthy, since everything else works.

    `status` is starting, ready, draining or failed.
    """

    status: str
    healthy: bool
    version: str
    models: int
    running: int
    streaming_enabled: bool
    failed_plugins: list[FailedPlugin]
    warnings: list[str]


@get(["/livez", "/ping"], opt=OPEN, sync_to_thread=False, tags=["health"])
def livez() -> Alive:
    """Answer while the process lives."""
    return Alive()


@get("/readyz", opt=OPEN, sync_to_thread=False, tags=["health"], responses=PROBLEMS)
def readyz(request: Request[Any, Any, Any]) -> Alive:
    """Answer when requests may be sent: the models of the settings are warm, and the server does not end."""
    readiness = services(request).readiness
    if readiness.state != "ready":
        raise CapacityError(f"The server is {readiness.state}.", code=f"server_{readiness.state}", retry_after_s=1)
    return Alive()


@get("/health", opt=OPEN, sync_to_thread=False, tags=["health"])
def health(request: Request[Any, Any, Any]) -> Health:
    """Say how the server is and which plugins failed."""
    parts = services(request)
    engine = parts.engine
    failed = [FailedPlugin(plugin.name, plugin.error) for plugin in engine.plugins.failed.values()]
    return Health(
        status=parts.readiness.state,
        healthy=parts.readiness.state != "failed",
        version=__version__,
        models=len(engine.catalog),
        running=engine.running(),
        streaming_enabled=True,
        failed_plugins=failed,
        warnings=parts.readiness.warnings,
    )


ROUTES = [livez, readyz, health]
