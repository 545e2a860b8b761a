"""Fetches a file of the public web for somebody else, and nothing that is not public."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import cache
from ssl import SSLContext
from typing import cast

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_MAX_REDIRECTS = 3
_LAST_PORT = 65_535
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL = ipaddress.IPv6Network("2000::/3")
# Not known to the ipaddress module of every Python.
_RESERVED = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("3fff::/20"))
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "yapit"}


class FetchRefusedError(Exception):
    """The file is not fetched; the message says why, and names no address."""


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


class Fetcher:
    """Fetches images that a request names.

    The host's addresses are looked up once, all of them must be public, and one of these is connected to; so no
    second look-up can lead elsewhere. The same holds for each redirect. No proxy, no cookies, no credentials.

    Args:
        hosts: the only ones, if any; `*.example.org` stands for all below it.
        max_bytes: of the file.
        timeout_s: for all of it.
        resolve: gives the addresses of a host.
        allowed: tells whether an address may be connected to.
    """

    def __init__(
        self,
        *,
        hosts: Sequence[str] = (),
        max_bytes: int,
        timeout_s: float,
        resolve: Resolve = resolve,
        allowed: Callable[[Address], bool] = is_public,
    ) -> None:
        self._hosts = tuple(host.lower().rstrip(".") for host in hosts)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._allowed = allowed

    async def fetch(self, url: str) -> bytes:
        """Return the file at `url`.

        Raises:
            FetchRefusedError: the host may not be asked, or it does not give an image in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._followed(url)
        except (TimeoutError, httpx.TimeoutException) as error:
            message = f"The image could not be fetched within {self._timeout_s:g} seconds."
            raise FetchRefusedError(message) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
            raise FetchRefusedError("The image could not be fetched: its host does not answer as it should.") from error

    async def _followed(self, url: str) -> bytes:
        target = httpx.URL(url)
        async with httpx.AsyncClient(verify=_certificates(), trust_env=False, timeout=self._timeout_s) as client:
            for _ in range(_MAX_REDIRECTS + 1):
                async with aclosing(await self._asked(client, target)) as response:
                    if response.status_code not in _REDIRECTS:
                        return await self._body(response)
                    location = response.headers.get("location")
                if not location:
                    raise FetchRefusedError("The image could not be fetched: a redirect says not where to.")
                target = target.join(location)
        raise FetchRefusedError(f"The image could not be fetched: there are more than {_MAX_REDIRECTS} redirects.")

    async def _asked(self, client: httpx.AsyncClient, target: httpx.URL) -> httpx.Response:
        if target.scheme not in {"http", "https"}:
            raise FetchRefusedError("Images are fetched by http and https only.")
        if target.userinfo:
            raise FetchRefusedError("An image's URL must not have a user name or a password.")
        host = target.raw_host.decode("ascii").strip("[]").lower().rstrip(".")
        if not host or not self._is_listed(host):
            raise FetchRefusedError("Images are not fetched from this host.")
        port = target.port or (443 if target.scheme == "https" else 80)
        if port > _LAST_PORT:
            raise FetchRefusedError(f"An image's URL must not have a port beyond {_LAST_PORT}.")
        addresses = await self._addresses(host, port)
        for address in addresses[:-1]:
            with contextlib.suppress(httpx.ConnectError):
                return await self._asked_at(client, target, host, address)
        return await self._asked_at(client, target, host, addresses[-1])

    async def _asked_at(self, client: httpx.AsyncClient, target: httpx.URL, host: str, address: str) -> httpx.Response:
        request = client.build_request(
            "GET",
            target.copy_with(host=address),
            headers={**_HEADERS, "Host": target.netloc.decode("ascii")},
            extensions={"sni_hostname": host},
        )
        return await client.send(request, stream=True, follow_redirects=False)

    def _is_listed(self, host: str) -> bool:
        return not self._hosts or any(
            host.endswith(entry[1:]) if entry.startswith("*.") else host == entry for entry in self._hosts
        )

    async def _addresses(self, host: str, port: int) -> list[str]:
        found = await self._resolve(host, port)
        addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
        if not addresses or not all(map(self._allowed, addresses)):
            raise FetchRefusedError("Images are fetched from the public internet only, and this host is not there.")
        return [str(address) for address in addresses]

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            message = f"The image could not be fetched: its host answered with {response.status_code}."
            raise FetchRefusedError(message)
        if not response.headers.get("content-type", "").lower().startswith("image/"):
            raise FetchRefusedError("The URL does not lead to an image.")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchRefusedError("The image is sent in a packed form that was not asked for.")
        too_large = f"The image is larger than {self._max_bytes} bytes."
        if int(response.headers.get("content-length", 0)) > self._max_bytes:
            raise FetchRefusedError(too_large)
        data = bytearray()
        async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) > self._max_bytes:
                    raise FetchRefusedError(too_large)
        return bytes(data)


@cache
def _certificates() -> SSLContext:
    """Return the certificates to trust; reading them takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
