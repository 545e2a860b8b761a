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
from litestar.types import Message, Scope
from structlog.contextvars import bind_contextvars

from yapit import __version__, settings
from yapit.engine import Engine
from yapit.errors import CapacityError
from yapit.plugins import Plugins
from yapit.server import health, models, speech
from yapit.server.keys import require_key
from yapit.server.problems import answer, respond
from yapit.server.requests import JsonRequest
from yapit.server.services import Services
from yapit.settings import Settings
from yapit.voices import VoiceMap

_log = structlog.get_logger(__name__)
_GOOD_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Application(Litestar):
    """Litestar, with an id for every request, also for those that no route matches."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request: its id goes to the log lines and to the response, and the request is logged."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        request_id = _request_id(scope)
        bind_contextvars(request_id=request_id.decode())
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                elapsed_ms = (time.perf_counter() - started) * 1000
                ours = ((b"x-request-id", request_id), (b"openai-processing-ms", b"%d" % elapsed_ms))
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        try:
            await super().__call__(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # Uvicorn's, for what is still running when the time to drain is over.
            if status == 0:
                error = CapacityError("The server is shutting down.", retry_after_s=1)
                await answer(error).to_asgi_response(None, Request(scope))(scope, receive, send_with_id)
        finally:
            elapsed_ms = round((time.perf_counter() - started) * 1000, 1)
            # The path and not the query, which may hold what the user said.
            _log.info("request", method=scope["method"], path=scope["path"], status=status, duration_ms=elapsed_ms)


def create_app(effective: Settings, plugins: Plugins | None = None) -> Application:
    """Return the application that serves the installed plugins' models.

    Raises:
        SettingsError: a models file, an alias, or the voice map is wrong.
    """
    loaded = plugins or Plugins.load(effective.plugins)
    catalog = settings.catalog(effective, loaded.models())
    engine = Engine(effective, loaded, catalog)
    voices = VoiceMap.of(effective.speech)
    _report(loaded, catalog.duplicates)
    return Application(
        route_handlers=[
            *health.ROUTES,
            *models.ROUTES,
            *speech.ROUTES,
            *(route for _, routes in loaded.each("register_routes") for route in routes or ()),
        ],
        state=State({"services": Services(effective, engine, voices, int(time.time()))}),
        # Litestar copies the route for every guarded request: none is set where no key is asked for.
        guards=[require_key] if effective.server.api_keys else [],
        exception_handlers={Exception: respond},
        on_shutdown=[engine.close],
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
