"""What the routes share, built once by `create_app`."""

from typing import Any

from litestar.connection import ASGIConnection
from msgspec import Struct

from yapit.engine import Engine
from yapit.provisioning import Downloads
from yapit.registry import Registry
from yapit.server.desk import Desk
from yapit.server.managing.feed import Feed
from yapit.server.managing.starting import Starter
from yapit.server.readiness import Readiness
from yapit.settings import Settings
from yapit.voices import VoiceMap


class Services(Struct, frozen=True):
    """The parts of a running server."""

    settings: Settings
    engine: Engine
    registry: Registry
    downloads: Downloads
    feed: Feed
    starter: Starter
    voices: VoiceMap
    desk: Desk
    readiness: Readiness
    started_at: int


def services(request: ASGIConnection[Any, Any, Any, Any]) -> Services:
    """Return the parts of the server that this request reached."""
    found: Services = request.app.state.services
    return found
