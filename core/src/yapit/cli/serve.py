"""`yapit serve`: the server."""

import os
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import rich_click as click

from yapit import settings
from yapit.errors import StartupError

if TYPE_CHECKING:
    from yapit.settings import ServerSettings


@click.command()
@click.option("--host", help="Address to bind [default: 127.0.0.1]; any other needs a key.")
@click.option("--port", type=int, help="Port to bind [default: 8000]; 0 takes a free one.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="What to log.")
def serve(host: str | None, port: int | None, log_level: str | None) -> None:
    """Serve the models over HTTP until SIGTERM or Ctrl-C."""
    flags = {"server.host": host, "server.port": port, "log.level": log_level}
    effective = settings.load(os.environ, flags).settings
    effective.server.require_key()
    # Imported here: half a second that the other commands need not pay.
    import uvicorn

    from yapit import log
    from yapit.server.app import create_app

    log.configure(effective.log)
    listener = _listen(effective.server)
    config = uvicorn.Config(
        create_app(effective),
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(effective.server.drain_s)),
    )
    _server_class()(config).run(sockets=[listener])


def _listen(server: "ServerSettings") -> socket.socket:
    """Return a bound socket, so that a port in use is one line and not a traceback."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((server.host, server.port))
    except OSError as error:
        listener.close()
        raise StartupError(f"cannot listen on {server.host}:{server.port}: {error.strerror or error}") from error
    return listener


def _server_class() -> type[Any]:
    import structlog
    import uvicorn

    class Server(uvicorn.Server):
        """Uvicorn's, which says when it is ready, and whose orderly end is a success."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and sockets:
                host, port = sockets[0].getsockname()[:2]
                address = f"[{host}]" if ":" in host else host
                structlog.get_logger("yapit").info("serving", url=f"http://{address}:{port}")

        @contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            """Take the signals as uvicorn does, but do not raise them again when all is done."""
            names = (signal.SIGINT, signal.SIGTERM)
            before = {name: signal.signal(name, self.handle_exit) for name in names}
            try:
                yield
            finally:
                for name, handler in before.items():
                    signal.signal(name, handler)

    return Server
