"""The ports: who may connect, and for how long."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from wyoming.error import Error

from yapit import Context
from yapit.errors import StartupError
from yapit_plugin_wyoming.announcing import Port, announced
from yapit_plugin_wyoming.choosing import Choices
from yapit_plugin_wyoming.connection import Connection, House
from yapit_plugin_wyoming.options import SPEECH_PORT, TRANSCRIPTION_PORT, Service, WyomingSettings
from yapit_plugin_wyoming.wire import HEADER_BYTES, LeftError, Wire

if TYPE_CHECKING:
    from yapit.server.services import Services

_log = structlog.get_logger(__name__)


class Place(NamedTuple):
    """A port, what is served there, and the setting that says so, if one does."""

    port: int
    services: tuple[Service, ...]
    setting: str | None


@asynccontextmanager
async def served(parts: "Services") -> AsyncIterator[None]:
    """Serve Wyoming until this is left; then every connection ends.

    Raises:
        SettingsError: the section is wrong, or names what is not there.
        StartupError: a port that was chosen cannot be had.
    """
    chosen = Context(plugin_settings=parts.settings.plugin_settings).settings("wyoming", WyomingSettings)
    choices = Choices(parts, chosen)
    async with AsyncExitStack() as stack:
        reception = Reception(chosen.max_connections)
        stack.push_async_callback(reception.close)
        found: list[Port] = []
        for place in places(chosen):
            house = House(
                parts=parts,
                choices=choices,
                services=place.services,
                info=choices.info(place.services),
                idle_timeout_s=chosen.idle_timeout_s,
            )
            server = await _listen(chosen.host, place, reception, house)
            if server is not None:
                stack.callback(server.close)
                host, port = server.sockets[0].getsockname()[:2]
                found.append(Port(place.services, host, port))
                _log.info("wyoming_serving", host=host, port=port, services=list(place.services))
        if chosen.discovery:
            await stack.enter_async_context(announced(found))
        yield


def places(chosen: WyomingSettings) -> list[Place]:
    """Return the ports to listen on."""
    usual: dict[Service, int] = {"speech": SPEECH_PORT, "transcription": TRANSCRIPTION_PORT}
    found: list[Place] = []
    for service, port in usual.items():
        if service not in chosen.serve:
            continue
        setting = f"{service}_port"
        wanted: int | None = getattr(chosen, setting)
        place = Place(port if wanted is None else wanted, (service,), None if wanted is None else setting)
        if found and place.port and found[0].port == place.port:
            both = place.setting or found[0].setting
            found[0] = Place(place.port, (*found[0].services, service), both)
        else:
            found.append(place)
    return found


async def _listen(host: str, place: Place, reception: "Reception", house: House) -> asyncio.Server | None:
    """Return what listens; None if a port that nobody chose is taken."""

    def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reception.welcome(house, reader, writer)

    try:
        return await asyncio.start_server(arrived, host, place.port, limit=HEADER_BYTES)
    except OSError as error:
        reason = f"cannot listen on {host}:{place.port}: {error.strerror or error}"
    if place.setting is None:
        names = [f"{service}_port" for service in place.services]
        _log.error("wyoming_not_served", reason=reason, services=list(place.services), settings=names)
        return None
    raise StartupError(f"plugin_settings.wyoming.{place.setting}: {reason}")


class Reception:
    """Lets clients in, as long as there is room; it owns the tasks that serve them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: set[asyncio.Task[None]] = set()
        self._sent_away: set[asyncio.Task[None]] = set()
        self._open = True

    def welcome(self, house: House, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client, or tell it that there are too many; when there are far too many, not even that."""
        if not self._open or len(self._sent_away) >= self._limit:
            writer.transport.abort()
        elif len(self._inside) >= self._limit:
            _keep(self._sent_away, _send_away(Wire(reader, writer, house.idle_timeout_s)))
        else:
            _keep(self._inside, _attend(Connection(house, reader, writer)))

    async def close(self) -> None:
        """Send all clients away."""
        self._open = False
        tasks = [*self._inside, *self._sent_away]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work, name="wyoming connection")
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _attend(connection: Connection) -> None:
    """Serve one client; what goes wrong with it is no other's affair."""
    try:
        await connection.serve()
    except Exception:  # noqa: BLE001 - it is logged, and the server goes on
        _log.exception("wyoming_connection_broke")


async def _send_away(wire: Wire) -> None:
    try:
        await wire.write(Error(text="Too many clients are connected; try again later.", code="too_many_connections"))
    except LeftError:
        return
    finally:
        await wire.close()
