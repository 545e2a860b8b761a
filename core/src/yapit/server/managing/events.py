"""The route that tells what happens to models, as server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from litestar import Request, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromQuery, HeaderParameter
from litestar.types import ASGIApp
from msgspec import Struct

from yapit.server.managing.answering import REFUSALS
from yapit.server.managing.feed import Event
from yapit.server.responses import ChunkedResponse
from yapit.server.services import Services, services
from yapit.tickets import current

_YEAR_S = 365 * 24 * 3600.0  # nobody waits for the end of this answer
_RETRY_MS = 2000
_OPENING = Event(id="", type="", data=b"")


class Line(Struct, frozen=True, kw_only=True):
    """An event as it comes; `data` is JSON, whose `type` is `event`."""

    id: str
    event: str
    data: str


@get(
    ["/models/events", "/api/models/events"],
    tags=["managing"],
    responses={**REFUSALS, 200: ResponseSpec(Line, description="Events.", media_type="text/event-stream")},
    sync_to_thread=False,
)
def follow_events(
    request: Request[Any, Any, Any],
    last_event_id: Annotated[str | None, HeaderParameter(name="last-event-id")] = None,
    after: FromQuery[str | None] = None,
) -> ASGIApp:
    """Tell what happens to models: downloads, loads, registrations; it goes on until the client leaves.

    A snapshot comes first. Who says which event was the last one, in `last-event-id` or `after`, gets what came since,
    and a snapshot only if that is not known any more.
    """
    current().within(_YEAR_S)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    body = _told(services(request), last_event_id or after)
    return ChunkedResponse(body, _written, "text/event-stream; charset=utf-8", headers)


async def _told(parts: Services, after: str | None) -> AsyncGenerator[Event | None, None]:
    yield _OPENING
    async with aclosing(parts.feed.read(after, lambda: parts.readiness.state == "draining")) as events:
        async for event in events:
            yield event


def _written(event: Event | None) -> bytes:
    if event is None:
        return b": still here\n\n"
    if event is _OPENING:
        return b"retry: %d\n\n" % _RETRY_MS
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.id.encode(), event.type.encode(), event.data)


ROUTES = [follow_events]
