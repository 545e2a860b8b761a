"""Announces the ports on the network, so that Home Assistant finds them."""

import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from yapit import SettingsError
from yapit_plugin_wyoming.options import Service

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

_TYPE = "_wyoming._tcp.local."
_ANY = ("0.0.0.0", "::")  # noqa: S104 - a socket that is bound to all addresses says so


class Port(NamedTuple):
    """Where something is served."""

    services: tuple[Service, ...]
    host: str
    port: int


@asynccontextmanager
async def announced(ports: Sequence[Port]) -> AsyncIterator[None]:
    """Announce the ports until this is left.

    Raises:
        SettingsError: the package for it is not installed.
    """
    try:
        from zeroconf import InterfaceChoice
        from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf
    except ImportError as error:
        message = "plugin_settings.wyoming.discovery needs: pip install yapit-plugin-wyoming[discovery]"
        raise SettingsError(message) from error
    name = socket.gethostname().partition(".")[0]
    async with AsyncExitStack() as stack:
        for services, host, port in ports:
            addresses = _addresses() if host in _ANY else [host]
            interfaces = InterfaceChoice.All if host in _ANY else [host]
            announcer = await stack.enter_async_context(AsyncZeroconf(interfaces=interfaces))
            info = AsyncServiceInfo(
                _TYPE,
                f"yapit {' and '.join(services)} on {name}.{_TYPE}",
                parsed_addresses=addresses,
                port=port,
                server=f"{name}.local.",
            )
            telling = await announcer.async_register_service(info, allow_name_change=True)
            stack.push_async_callback(_take_back, announcer, info, telling)
        yield


async def _take_back(announcer: "AsyncZeroconf", info: "AsyncServiceInfo", telling: Awaitable[None]) -> None:
    """Say that the port is gone, after all that was still to be said of it."""
    await telling
    await (await announcer.async_unregister_service(info))


def _addresses() -> list[str]:
    """Return the addresses of this machine that others may reach."""
    import ifaddr

    found = (str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4)
    return [address for address in found if not address.startswith("127.")]
