"""URLs that others name, asked with care: at each redirect, only the public addresses that were checked."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cache
from ssl import SSLContext

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Headers = Callable[[httpx.URL], Mapping[str, str]]

_LAST_PORT = 65_535
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL = ipaddress.IPv6Network("2000::/3")
# Not known to the ipaddress module of every Python.
_RESERVED = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("3fff::/20"))


class RefusedURLError(Exception):
    """A URL is not asked; the message is a clause that says why, and names no address and no URL."""


class NotPublicError(RefusedURLError):
    """A host is not in the public internet."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(item[4][0]) for item in found]


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public internet, also where it stands for another."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL or address.teredo is not None:
            return False
    known = address.is_global and not address.is_multicast and not address.is_reserved
    return known and not any(address in network for network in _RESERVED)


def host_of(url: httpx.URL) -> str:
    """Return the host that a URL names, in lower case and without the dot at its end."""
    return url.raw_host.decode("ascii").strip("[]").lower().rstrip(".")


class Asker:
    """Asks for what URLs lead to.

    A host's addresses are looked up once, all of them must be allowed, and one of these is connected to; so no second
    look-up can lead elsewhere. The same holds for each redirect. No proxy, no cookies, no credentials of the
    environment.

    Args:
        client: without redirects, proxies and cookies, as `client` makes one.
        resolve: gives the addresses of a host.
        allowed: tells whether an address may be connected to.
        welcome: tells whether a host may be asked.
        max_redirects: that are followed.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        resolve: Resolve = resolve,
        allowed: Callable[[Address], bool] = is_public,
        welcome: Callable[[str], bool] = bool,
        max_redirects: int = 3,
    ) -> None:
        self._client = client
        self._resolve = resolve
        self._allowed = allowed
        self._welcome = welcome
        self._max_redirects = max_redirects

    @asynccontextmanager
    async def ask(self, method: str, url: str, headers: Headers) -> AsyncIterator[httpx.Response]:
        """Open the answer after all redirects, whatever its status; its body is not read.

        Args:
            method: GET or HEAD.
            url: http or https.
            headers: to send, for the URL of each hop: what one host may know, others may not.

        Raises:
            RefusedURLError: the URL, or a redirect, leads to where nothing is asked.
            httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError: it does not answer as it should.
        """
        target = httpx.URL(url)
        for _ in range(self._max_redirects + 1):
            async with aclosing(await self._asked(method, target, headers(target))) as response:
                if response.status_code not in _REDIRECTS:
                    yield response
                    return
                target = _redirected(target, response.headers.get("location"))
        raise RefusedURLError(f"there are more than {self._max_redirects} redirects")

    async def _asked(self, method: str, target: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        host, port = _checked(target)
        if not self._welcome(host):
            raise RefusedURLError("nothing is fetched from this host")
        known = {**headers, "Host": target.netloc.decode("ascii")}
        *others, last = await self._addresses(host, port)
        for address in others:
            with contextlib.suppress(httpx.ConnectError):
                return await self._send(method, target.copy_with(host=address), known, host)
        return await self._send(method, target.copy_with(host=last), known, host)

    async def _send(self, method: str, url: httpx.URL, headers: Mapping[str, str], host: str) -> httpx.Response:
        request = self._client.build_request(method, url, headers=headers, extensions={"sni_hostname": host})
        return await self._client.send(request, stream=True, follow_redirects=False)

    async def _addresses(self, host: str, port: int) -> list[str]:
        found = await self._resolve(host, port)
        addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
        if not addresses or not all(map(self._allowed, addresses)):
            raise NotPublicError("only the public internet is asked, and this host is not there")
        return [str(address) for address in addresses]


def client(timeout: httpx.Timeout | float) -> httpx.AsyncClient:
    """Return a client for an `Asker`: nothing of the environment counts, and no connection serves a second host."""
    # Connections are kept by address: of two hosts at one, the second would speak to the first one's certificate.
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(verify=_certificates(), trust_env=False, timeout=timeout, limits=limits)


def _checked(target: httpx.URL) -> tuple[str, int]:
    """Return host and port of a URL that may be asked, as far as that can be seen."""
    if target.scheme not in _PORTS:
        raise RefusedURLError("URLs are followed by http and https only")
    if target.userinfo:
        raise RefusedURLError("a URL must not have a user name or a password")
    host = host_of(target)
    if not host:
        raise RefusedURLError("the URL names no host")
    port = target.port or _PORTS[target.scheme]
    if port > _LAST_PORT:
        raise RefusedURLError(f"a URL must not have a port beyond {_LAST_PORT}")
    return host, port


def _redirected(target: httpx.URL, location: str | None) -> httpx.URL:
    if not location:
        raise RefusedURLError("a redirect says not where to")
    found = target.join(location)
    if target.scheme == "https" and found.scheme == "http":
        raise RefusedURLError("a redirect leads to where no transfer is secure")
    return found


@cache
def _certificates() -> SSLContext:
    """Return the certificates to trust; reading them takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
