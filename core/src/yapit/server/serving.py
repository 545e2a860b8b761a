"""The server as a process: ready, drained by a signal, ended by a second one."""

import gc
import os
import signal
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn

from yapit.errors import StartupError
from yapit.server.app import Application

_SIGNALLED = 128  # what shells add to the number of the signal that ended a process
_log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Uvicorn's, which lets requests finish before it ends, and whose orderly end is a success."""

    def __init__(self, app: Application) -> None:
        config = uvicorn.Config(
            app,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # What runs has had its time by then; this is for connections that do not close.
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._parts = app.parts
        self._drained_at: float | None = None  # when what still runs is stopped
        self._signal: str | None = None  # that came and is not yet logged

    def serve_on(self, listener: socket.socket) -> None:
        """Serve until a signal.

        Raises:
            StartupError: a model did not warm up that must, or what a plugin runs beside the server did not start.
        """
        # What is here stays. Else it is looked through again and again for garbage, and nothing answers for 0.1 s.
        gc.collect()
        gc.freeze()
        self.run(sockets=[listener])
        if self._parts.readiness.failure is not None:
            raise StartupError(self._parts.readiness.failure)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where."""
        await super().startup(sockets)
        if self.started and sockets and self._parts.readiness.failure is None:
            host, port = sockets[0].getsockname()[:2]
            address = f"[{host}]" if ":" in host else host
            _log.info("serving", url=f"http://{address}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Drain at the first signal; end at once at the second.

        Nothing is logged here: a signal may come in the middle of a line that is being logged, whose lock is held then.
        """
        if self._drained_at is not None:
            self._parts.engine.kill()
            os._exit(_SIGNALLED + sig)
        self._signal = signal.Signals(sig).name
        self._drained_at = time.monotonic() + self._parts.settings.server.drain_s
        self._parts.readiness.drain()

    async def on_tick(self, counter: int) -> bool:
        """End when all is done, or the time for it is over; or when something did not start that must."""
        if self._signal is not None:
            _log.info("draining", signal=self._signal, running=self._parts.desk.serving)
            self._signal = None
        if self._drained_at is not None and time.monotonic() >= self._drained_at:
            self._parts.desk.stop_all()
            self._drained_at = float("inf")
            self.should_exit = True
        if self._drained_at is not None and not self._parts.desk.serving:
            self.should_exit = True
        if self._parts.readiness.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)

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
