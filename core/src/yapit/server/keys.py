"""Who may call: bearer keys, where the settings name some."""

import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from yapit.errors import UnauthorizedError
from yapit.server.desk import key_of
from yapit.server.services import services

OPEN = {"open": True}  # an `opt` of routes that need no key


async def require_key(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard: raise `UnauthorizedError` unless the request has a key, none is set, or the route is open."""
    keys = services(connection).settings.server.api_keys
    if not keys or handler.opt.get("open"):
        return
    presented = key_of(dict(connection.scope["headers"]))
    if not presented:
        raise UnauthorizedError("You didn't provide an API key: send it as 'Authorization: Bearer KEY'.")
    # Every key is compared, in constant time each, so that timing tells nothing.
    if not sum(hmac.compare_digest(presented, key.encode()) for key in keys):
        raise UnauthorizedError("Incorrect API key provided.")
