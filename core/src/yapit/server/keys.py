"""Who may call: bearer keys, where the settings name some."""

import hmac
from collections.abc import Iterable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from yapit.errors import ForbiddenError, UnauthorizedError
from yapit.server.desk import key_of
from yapit.server.services import services

OPEN = {"open": True}  # an `opt` of routes that need no key
ADMIN = {"admin": True}  # an `opt` of routes that change which models there are


async def require_key(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard: let a request through that has a key, if one is asked for.

    Raises:
        UnauthorizedError: it has none, or a wrong one.
        ForbiddenError: its key does not allow what the route does.
    """
    settings = services(connection).settings.server
    needs_admin = bool(settings.admin_keys) and handler.opt.get("admin")
    if handler.opt.get("open") or not (settings.api_keys or needs_admin):
        return
    presented = key_of(dict(connection.scope["headers"]))
    if not presented:
        raise UnauthorizedError("You didn't provide an API key: send it as 'Authorization: Bearer KEY'.")
    is_admin, is_known = _among(presented, settings.admin_keys), _among(presented, settings.api_keys)
    if not (is_admin or is_known):
        raise UnauthorizedError("Incorrect API key provided.")
    if needs_admin and not is_admin:
        raise ForbiddenError("This key may use models, and not change which there are.", code="admin_key_required")


def _among(presented: bytes, keys: Iterable[str]) -> bool:
    """Tell whether it is one of the keys; each is compared, in constant time, so that timing tells nothing."""
    return sum(hmac.compare_digest(presented, key.encode()) for key in keys) > 0
