"""Responses that stop their work when the client leaves."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Generic, TypeVar

import structlog
from litestar.types import HTTPScope, Receive, Scope, Send

from yapit.errors import BackendError, StoppedError, YapitError
from yapit.tickets import current

_log = structlog.get_logger(__name__)
_WATCH_AFTER_S = 0.05
_LEFT = "client_left"
Item = TypeVar("Item")


class ChunkedResponse(Generic[Item]):
    """Sends the items of `body` as they come.

    The first item is awaited before the headers, so an error until then has a status of its own. A later error is
    what `on_error` makes of it, or a connection that ends short. When the client leaves, or the request is cancelled,
    `body` is closed before the response returns.

    Args:
        body: yields items.
        render: makes bytes of an item; empty ones are not sent.
        media_type: the Content-Type.
        headers: further headers.
        on_error: the last bytes for an error after the first item.
        whole: `body` yields once, and the response states its length.
    """

    def __init__(
        self,
        body: AsyncGenerator[Item, None],
        render: Callable[[Item], bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
        on_error: Callable[[YapitError], bytes] | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self._body = body
        self._render = render
        self._headers = [(b"content-type", media_type.encode("latin-1"))]
        self._headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        self._on_error = on_error
        self._whole = whole

    async def __call__(self, _scope: Scope | HTTPScope, receive: Receive, send: Send) -> None:
        """Send the response; return quietly when the client has left."""
        watch = _ClientWatch(receive)
        try:
            async with aclosing(self._body):
                await (self._send_whole(send) if self._whole else self._stream(send))
        except asyncio.CancelledError:
            error = current().stopped()
            if error is None:
                raise
            if error.code != _LEFT:
                raise error from None
            _log.info("client_left")
        finally:
            watch.stop()

    async def _send_whole(self, send: Send) -> None:
        body = self._render(await anext(self._body))
        self._headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _stream(self, send: Send) -> None:
        started = False
        last = b""
        try:
            async for item in self._body:
                chunk = self._render(item)
                if not started:
                    await send({"type": "http.response.start", "status": 200, "headers": self._headers})
                    started = True
                if chunk:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (Exception, asyncio.CancelledError) as error:
            known = _known(error) if started else None
            if known is None:
                raise
            if isinstance(error, asyncio.CancelledError):
                _log.warning("stream_stopped", code=known.code)  # on purpose: where it was does not matter
            else:
                _log.exception("stream_failed", code=known.code)
            if self._on_error is None:
                # No last chunk: the server closes the connection and the client sees that the body is short.
                return
            last = self._on_error(known)
        if not started:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": last, "more_body": False})


def _known(error: BaseException) -> YapitError | None:
    """Return what an error in mid-stream is to the client; None if there is no client any more, or no server."""
    if isinstance(error, asyncio.CancelledError):
        reason = current().reason
        return None if reason is None or reason.code == _LEFT else current().stopped()
    return error if isinstance(error, YapitError) else BackendError("The server failed; its log says more.")


class _ClientWatch:
    """Stops the request when its client leaves; it begins late, since most answers are quick."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ticket = current()
        self._watching: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._begin)

    def stop(self) -> None:
        """End the watch."""
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch(), name="client watch")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._ticket.stop(StoppedError("The client left.", code=_LEFT))


def sse(payload: bytes) -> bytes:
    """Return one data-only server-sent event."""
    return b"data: " + payload + b"\n\n"
