"""Refusals of what manages models: OpenAI's envelope, and beside it the fields that clients of this API know."""

from typing import Any

from litestar import Request, Response
from msgspec import UNSET, Struct, UnsetType

from yapit.server.managing.refusals import RefusedError
from yapit.server.problems import Problem, documented, respond
from yapit.server.services import services

_UNAUTHORIZED = 401


class Refusal(Struct, frozen=True, kw_only=True):
    """The body of a refusal; with `compat.legacy_status`, `error` is a text."""

    success: bool
    message: str
    error: Problem | str
    status: str | UnsetType = UNSET


REFUSALS = documented(Refusal)


def refuse(request: Request[Any, Any, Any], raised: Exception) -> Response[Refusal]:
    """Answer what a route raised; with status 200 where the settings want that."""
    told = raised if isinstance(raised, RefusedError) else None
    answer = respond(request, raised if told is None else told.cause)
    problem = answer.content.error
    # A key that is missing or does not allow it was never part of that custom.
    about_keys = answer.status_code == _UNAUTHORIZED or problem.code == "admin_key_required"
    legacy = services(request).settings.compat.legacy_status and not about_keys
    body = Refusal(
        success=False,
        message=problem.message if told is None else told.message,
        error=(problem.message if told is None else told.error) if legacy else problem,
        status=UNSET if told is None else told.status,
    )
    status = 200 if legacy else answer.status_code
    return Response(body, status_code=status, headers=dict(answer.headers), media_type="application/json")
