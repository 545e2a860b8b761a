"""The composition root: settings in, a Litestar application out."""

import asyncio
import random
import re
import time
from typing import Any

import structlog
from litestar import Litestar, Request
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import HTTPScope, Message, Middleware, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from yapit import __version__
from yapit.engine import Engine
from yapit.errors import YapitError, shutting_down
from yapit.plugins import Plugins
from yapit.provisioning import Arrivals, downloads_of
from yapit.registry import Registry
from yapit.server import (
    classify,
    company,
    embeddings,
    health,
    listening,
    loaded,
    metrics,
    models,
    rerank,
    score,
    speech,
    writing,
)
from yapit.server.desk import Desk
from yapit.server.following import followed
from yapit.server.keys import require_key
from yapit.server.managing import routes as managing
from yapit.server.managing.feed import Feed
from yapit.server.managing.starting import Starter
from yapit.server.problems import answer, respond
from yapit.server.readiness import Readiness
from yapit.server.requests import JsonRequest
from yapit.server.services import Services
from yapit.settings import ServerSettings, Settings
from yapit.store import Store
from yapit.tickets import Ticket
from yapit.voices import VoiceMap

_log = structlog.get_logger(__name__)
_ALWAYS_ANSWERED = {"/livez", "/readyz", "/ping", "/health", "/metrics"}
_GOOD_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Application(Litestar):
    """Litestar, with an id for every request, also for those that no route matches."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request: it gets a ticket, its id goes to the log lines and the response, and it is logged."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        request_id = _request_id(scope)
        bind_contextvars(request_id=request_id.decode())
        started = time.perf_counter()
        status = 0
        ticket: Ticket | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                elapsed_ms = (time.perf_counter() - started) * 1000
                ours = [(b"x-request-id", request_id), (b"openai-processing-ms", b"%d" % elapsed_ms)]
                if ticket is not None and ticket.cache is not None:
                    ours.append((b"x-yapit-cache", ticket.cache.encode()))
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        try:
            with self.parts.desk.serve(scope, request_id.decode()) as ticket:
                await self._serve(ticket, scope, receive, send_with_id)
        except YapitError as error:
            if status == 0:
                await _answer(error, scope, receive, send_with_id)
        except asyncio.CancelledError:
            # Uvicorn's, for what still runs when all others have ended.
            if status == 0:
                await _answer(shutting_down(), scope, receive, send_with_id)
        finally:
            elapsed_ms = round((time.perf_counter() - started) * 1000, 1)
            # The path and not the query, which may hold what the user said.
            _log.info("request", method=scope["method"], path=scope["path"], status=status, duration_ms=elapsed_ms)

    async def _serve(self, ticket: Ticket, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer, while the ticket knows the task: a stop before there is a response is an error of the request."""
        self._check_state(scope)
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            error = ticket.stopped()
            if error is None:
                raise
            raise error from None

    @property
    def parts(self) -> Services:
        """What the routes share."""
        parts: Services = self.state.services
        return parts

    def _check_state(self, scope: HTTPScope) -> None:
        if self.parts.readiness.state == "draining" and scope["path"] not in _ALWAYS_ANSWERED:
            raise shutting_down()


async def _answer(error: YapitError, scope: Any, receive: Any, send: Any) -> None:
    await answer(error).to_asgi_response(None, Request(scope))(scope, receive, send)


def create_app(effective: Settings, plugins: Plugins | None = None) -> Application:
    """Return the application that serves the installed plugins' models.

    Raises:
        SettingsError: a models file, an alias, the voice map, or the URL of the database is wrong.
        StartupError: the database cannot be opened.
    """
    registered = plugins or Plugins.installed(effective)
    store = Store.of(effective)
    registry = Registry(effective, registered, store)
    downloads = downloads_of(registered, effective, lambda name: registry.catalog[name], store)
    engine = Engine(
        effective, registered, lambda: registry.catalog, ready=Arrivals(downloads, effective.provisioning).ready
    )
    feed = Feed(engine, registry, downloads)

    def changed() -> None:
        engine.catch_up()
        feed.look()

    parts = Services(
        settings=effective,
        engine=engine,
        registry=registry,
        downloads=downloads,
        feed=feed,
        starter=Starter(effective, registered, registry, downloads, feed),
        voices=VoiceMap.of(effective.speech),
        desk=Desk(effective.server),
        readiness=Readiness(engine),
        started_at=int(time.time()),
    )
    _report(registered, registry.catalog.duplicates)
    return Application(
        route_handlers=[
            *health.ROUTES,
            *loaded.ROUTES,
            *metrics.ROUTES,
            *managing.ROUTES,
            *models.ROUTES,
            *speech.ROUTES,
            *listening.ROUTES,
            *embeddings.ROUTES,
            *rerank.ROUTES,
            *score.ROUTES,
            *classify.ROUTES,
            *writing.ROUTES,
            *(route for _, routes in registered.each("register_routes") for route in routes or ()),
        ],
        state=State({"services": parts}),
        # Litestar copies the route for every guarded request: none is set where no key is asked for.
        guards=[require_key] if effective.server.api_keys or effective.server.admin_keys else [],
        exception_handlers={Exception: respond},
        middleware=[*_tracing(effective.server), metrics.MIDDLEWARE],
        lifespan=[
            lambda _: followed(registry, changed, effective.models_refresh_s),
            lambda _: downloads.running(),
            lambda _: feed.running(),
            lambda _: company.accompanied(parts, registered),
        ],
        on_startup=[parts.readiness.start],
        on_shutdown=[parts.readiness.stop, engine.close, store.close],
        openapi_config=OpenAPIConfig(
            title="yapit",
            version=__version__,
            path="/schema",
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
        ),
        request_max_body_size=effective.server.max_body_bytes,
        request_class=JsonRequest,
        logging_config=None,
    )


def _tracing(server: ServerSettings) -> list[Middleware]:
    """Return Litestar's OpenTelemetry middleware, if it is wanted.

    Raises:
        SettingsError: it is wanted, and the packages for it are not installed.
    """
    if not server.tracing:
        return []
    from yapit.server.tracing import middleware

    return [middleware()]


def _report(plugins: Plugins, duplicates: tuple[str, ...]) -> None:
    for plugin in plugins.failed.values():
        _log.error("plugin_failed", plugin=plugin.name, reason=plugin.error)
        _log.debug("plugin_failed_details", plugin=plugin.name, details=plugin.details)
    for line in duplicates:
        _log.warning("model_displaced", reason=line)


def _request_id(scope: Scope) -> bytes:
    """Return the client's `x-request-id` if it is a sane one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _GOOD_ID.fullmatch(value):
            return bytes(value)
    # A name, not a secret: no system call for it.
    return b"req_%024x" % random.getrandbits(96)
