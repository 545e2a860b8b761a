"""`yapit serve`: the server."""

import os
import socket
from typing import TYPE_CHECKING

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
    from yapit import log
    from yapit.provisioning.starting import check_weights
    from yapit.server.app import create_app
    from yapit.server.serving import Server

    log.configure(effective.log)
    listener = _listen(effective.server)
    app = create_app(effective)
    check_weights(effective, app.parts.engine.plugins, app.parts.registry.catalog)
    Server(app).serve_on(listener)


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
