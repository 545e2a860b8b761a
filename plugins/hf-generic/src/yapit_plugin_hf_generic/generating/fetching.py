"""Fetches an image of the public web for somebody else, and nothing that is not public."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import cast

import httpx

from yapit.addresses import Address, Asker, RefusedURLError, Resolve, client, is_public, resolve

_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "yapit"}


class FetchRefusedError(Exception):
    """The file is not fetched; the message says why, and names no address."""


class Fetcher:
    """Fetches images that a request names, as `yapit.addresses` asks: only of the public web.

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
                return await self._fetched(url)
        except RefusedURLError as error:
            raise FetchRefusedError(f"The image is not fetched: {error}.") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            message = f"The image could not be fetched within {self._timeout_s:g} seconds."
            raise FetchRefusedError(message) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
            raise FetchRefusedError("The image could not be fetched: its host does not answer as it should.") from error

    async def _fetched(self, url: str) -> bytes:
        async with client(self._timeout_s) as asking:
            asker = Asker(asking, resolve=self._resolve, allowed=self._allowed, welcome=self._is_listed)
            async with asker.ask("GET", url, lambda _: _HEADERS) as response:
                return await self._body(response)

    def _is_listed(self, host: str) -> bool:
        return not self._hosts or any(
            host.endswith(entry[1:]) if entry.startswith("*.") else host == entry for entry in self._hosts
        )

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
