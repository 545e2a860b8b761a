"""Whether requests may be sent: not before the models of the settings are warm, and not while the server ends."""

import asyncio
from typing import Literal

import structlog

from yapit.catalog import Model
from yapit.engine import Engine
from yapit.errors import ModelNotFoundError, SettingsError, YapitError
from yapit.tickets import Ticket

_log = structlog.get_logger(__name__)


State = Literal["starting", "ready", "draining", "failed"]


class Readiness:
    """The life of a server: starting, ready, draining; or failed, when a model did not warm up that must.

    Args:
        engine: what loads the models.

    Raises:
        SettingsError: the settings name a model that no catalog has.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        wanted = engine.settings.engine
        self._required = [_named(engine, name, "engine.warm_up") for name in wanted.warm_up]
        self._optional = [_named(engine, name, "engine.warm_up_optional") for name in wanted.warm_up_optional]
        self._warming: asyncio.Task[None] | None = None
        self.state: State = "starting"
        self.failure: str | None = None
        self.warnings: list[str] = []

    async def start(self) -> None:
        """Begin to warm up."""
        if self.failure is None and (self._required or self._optional):
            self._warming = asyncio.create_task(self._warm_up(), name="warm up")
        else:
            self._become_ready()

    async def stop(self) -> None:
        """Stop to warm up."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)

    def fail(self, reason: str) -> None:
        """End the server, because something did not start that must."""
        self.state, self.failure = "failed", reason

    def drain(self) -> None:
        """Refuse what comes from now on."""
        self.state = "draining"

    async def _warm_up(self) -> None:
        for model in self._required:
            failure = await self._try(model)
            if failure is not None:
                self.fail(f"the model '{model.id}' did not warm up: {failure}")
                _log.error("warm_up_failed", model=model.id, reason=failure)
                return
        for model in self._optional:
            failure = await self._try(model)
            if failure is not None:
                self.warnings.append(f"The model '{model.id}' did not warm up: {failure}")
                _log.warning("warm_up_failed", model=model.id, reason=failure)
        self._become_ready()

    async def _try(self, model: Model) -> str | None:
        """Return why the model does not work, or None if it does."""
        with Ticket(f"warm-up-{model.id}").bound():
            try:
                await self._engine.warm_up(model)
            except YapitError as error:
                return error.message
            except Exception as error:  # noqa: BLE001 - a server that never gets ready must say why
                _log.exception("warm_up_broke", model=model.id)
                return f"{type(error).__name__}; the server's log says more."
        return None

    def _become_ready(self) -> None:
        if self.state == "starting":
            self.state = "ready"
            _log.info("ready")


def _named(engine: Engine, name: str, setting: str) -> Model:
    try:
        return engine.catalog[name]
    except ModelNotFoundError as error:
        raise SettingsError(f"{setting}: {error.message}") from error
