"""The file of a URL over the network: resumed where it stopped, tried again, and never larger than allowed."""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import NoReturn, cast

import httpx
import structlog
from msgspec import Struct
from msgspec.structs import replace

from yapit.addresses import Asker, NotPublicError, RefusedURLError, host_of
from yapit.errors import ForbiddenError, InvalidInputError, NotFoundError, RateLimitError, RemoteError, YapitError
from yapit.hub.contents import AGAIN, Patience
from yapit.hub.parts import Part, in_thread
from yapit.hub.refusals import line, retry_after_s
from yapit.provisioning.places import Facts, shown
from yapit.quantities import written

_log = structlog.get_logger(__name__)
_OK, _PARTIAL, _TOO_MANY, _NO_RANGE = 200, 206, 429, 416
_RANGE = re.compile(r"bytes \d+-\d+/(\d+|\*)")
_FROM = re.compile(r"bytes (\d+)-")
_FIRST_BYTE = "bytes=0-0"


class Wanted(Struct, frozen=True, kw_only=True):
    """A file of a URL.

    Args:
        url: http or https; it may hold a signature, which nobody is shown.
        sha256: that it must have, or how that begins.
        max_bytes: that it may have.
        tokens: by host; told to exactly that host.
    """

    url: str
    sha256: str | None
    max_bytes: int
    tokens: dict[str, str]

    def __repr__(self) -> str:
        return f"Wanted({self.shown!r})"  # never the tokens

    @property
    def shown(self) -> str:
        """The URL as people may see it."""
        return shown(self.url)


class _TroubleError(Exception):
    """A try failed, and the next one may not."""

    def __init__(self, reason: str, *, status: int | None = None, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.after_s = status, after_s


class Receiver:
    """Receives a file.

    Args:
        wanted: which.
        asker: asks for it.
        patience: with trouble.
    """

    def __init__(self, wanted: Wanted, asker: Asker, patience: Patience) -> None:
        self._wanted, self._asker, self._patience = wanted, asker, patience

    async def ask(self) -> Facts:
        """Return what the server says of the file.

        Raises:
            InvalidInputError: the URL leads to where nothing is asked, or the file is too large.
            ForbiddenError, NotFoundError, RateLimitError, RemoteError: the server refuses, or cannot be reached.
        """
        try:
            async with self._asker.ask("HEAD", self._wanted.url, self._headers) as response:
                # Many hosts know no HEAD, or sign a URL for GET alone.
                if response.status_code == _OK and "content-length" in response.headers:
                    return self._facts(response)
            headers = partial(self._headers, wanted=_FIRST_BYTE)
            async with self._asker.ask("GET", self._wanted.url, headers) as response:
                return self._facts(response)
        except (_TroubleError, RefusedURLError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            self._fail(error)

    async def receive(
        self, part: Part, facts: Facts | None, begun: Callable[[Facts], None], came: Callable[[int], None]
    ) -> Facts:
        """Bring the rest of the file into its part, and return what is known of it.

        Args:
            part: what is here of it.
            facts: what is known of the part; None: nothing, it begins anew.
            begun: told what is known of the file whenever it begins anew.
            came: told how many bytes came, after each of its pieces.

        Raises:
            InvalidInputError, ForbiddenError, NotFoundError, RateLimitError, RemoteError: as `ask`.
            OSError: the disk refuses.
        """
        tries = 0
        known = facts

        def note(said: Facts) -> None:
            nonlocal known
            known = said
            begun(said)

        while known is None or known.size_bytes is None or part.size != known.size_bytes:
            before = part.size
            try:
                found = await self._try(part, known, note, came)
                if found.size_bytes in (None, part.size):
                    return found
                trouble: Exception = _TroubleError("the answer ended early")
            except (_TroubleError, httpx.TransportError, socket.gaierror) as error:
                trouble = error
            except (RefusedURLError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                self._fail(error)
            tries = 1 if part.size > before else tries + 1
            await self._wait(tries, trouble)
        return known

    async def _wait(self, tries: int, trouble: Exception) -> None:
        if tries >= self._patience.tries:
            self._fail(trouble)
        pause_s = self._patience.pause_s(tries, getattr(trouble, "after_s", None))
        reason = line(trouble) or type(trouble).__name__
        _log.info("file_try_again", source=self._wanted.shown, reason=reason, after_s=round(pause_s, 2))
        await asyncio.sleep(pause_s)

    async def _try(
        self, part: Part, facts: Facts | None, begun: Callable[[Facts], None], came: Callable[[int], None]
    ) -> Facts:
        """Return what is known of the file after an answer that came to its end."""
        # Without a name for the content, only its checksum tells whether what comes belongs to what is here.
        goes_on = part.size > 0 and facts is not None and (facts.condition or self._wanted.sha256) is not None
        wanted = f"bytes={part.size}-" if goes_on else None
        condition = facts.condition if goes_on and facts is not None else None
        headers = partial(self._headers, wanted=wanted, condition=condition)
        async with self._asker.ask("GET", self._wanted.url, headers) as response:
            if response.status_code == _NO_RANGE:
                part.restart()
                raise _TroubleError("there are fewer bytes than are here")
            said = self._facts(response)
            if goes_on and facts is not None and self._continues(response, part, facts, said):
                said = facts
            else:
                part.restart()
                begun(said)
            await self._pour(response, part, came)
        return said

    def _continues(self, response: httpx.Response, part: Part, facts: Facts, said: Facts) -> bool:
        if response.status_code != _PARTIAL:
            return False
        match = _FROM.match(response.headers.get("content-range", ""))
        same = said.size_bytes in (None, facts.size_bytes) and said.etag in (None, facts.etag)
        if match is None or int(match[1]) != part.size or not same:
            part.restart()
            raise _TroubleError("the answer holds other bytes than were asked for")
        return True

    async def _pour(self, response: httpx.Response, part: Part, came: Callable[[int], None]) -> None:
        async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as pieces:
            async for piece in pieces:
                self._check_size(part.size + len(piece))
                await in_thread(part.write, piece)
                came(len(piece))

    def _headers(self, url: httpx.URL, wanted: str | None = None, condition: str | None = None) -> dict[str, str]:
        headers = {"User-Agent": "yapit", "Accept-Encoding": "identity"}
        if wanted is not None:
            headers["Range"] = wanted
        if condition is not None:
            headers["If-Range"] = condition
        tokens, host = self._wanted.tokens, host_of(url)
        token = tokens.get(host if url.port is None else f"{host}:{url.port}", tokens.get(host))
        return headers if token is None else {**headers, "Authorization": f"Bearer {token}"}

    def _facts(self, response: httpx.Response) -> Facts:
        """Return what an answer says of the file; raise if it is none."""
        status, headers = response.status_code, response.headers
        if status not in (_OK, _PARTIAL):
            raise (
                _TroubleError(
                    f"its host answers {status}", status=status, after_s=retry_after_s(headers.get("Retry-After"))
                )
                if status in AGAIN
                else self._refusal(status)
            )
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise RemoteError(f"The file of '{self._wanted.shown}' is sent in a packed form that was not asked for.")
        if headers.get("content-type", "").lower().startswith("text/html"):
            raise RemoteError(f"The URL '{self._wanted.shown}' leads to a page, not to a file.")
        size = self._size(response)
        if size is not None:
            self._check_size(size)
        etag = headers.get("etag", "")
        return Facts(
            url=self._wanted.shown,
            size_bytes=size,
            etag=etag if etag.startswith('"') else None,
            modified=headers.get("last-modified"),
        )

    def _size(self, response: httpx.Response) -> int | None:
        if response.status_code == _PARTIAL:
            match = _RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None:
                raise _TroubleError("the answer does not say which bytes it holds")
            return None if match[1] == "*" else int(match[1])
        if "content-length" in response.headers:
            return int(response.headers["content-length"])
        if "transfer-encoding" not in response.headers and self._wanted.sha256 is None:
            message = (
                f"Nobody says how large the file of '{self._wanted.shown}' is, so that nobody can tell when it is "
                "whole: give its sha256."
            )
            raise InvalidInputError(message, param="sha256")
        return None

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._wanted.max_bytes:
            message = (
                f"The file of '{self._wanted.shown}' is larger than {written(self._wanted.max_bytes)}, "
                "as provisioning.max_file_bytes allows."
            )
            raise InvalidInputError(message, param="source", code="file_too_large")

    def _refusal(self, status: int) -> YapitError:
        source = self._wanted.shown
        if status in (401, 403):
            hint = "it may need a token of provisioning.tokens"
            return ForbiddenError(f"The host of '{source}' refuses the file ({status}): {hint}.", code="source_refuses")
        if status in (404, 410):
            return NotFoundError(f"There is no file at '{source}' ({status}).")
        return RemoteError(f"The host of '{source}' answers {status} instead of the file.", code="source_refuses")

    def _fail(self, error: Exception) -> NoReturn:
        """Raise what a person can do something about."""
        source = self._wanted.shown
        if isinstance(error, YapitError):
            raise error
        if isinstance(error, RefusedURLError):
            hint = "; provisioning.allow_private_addresses allows it" if isinstance(error, NotPublicError) else ""
            message = f"The file of '{source}' is not fetched: {error}{hint}."
            raise InvalidInputError(message, param="source", code="address_refused") from error
        if isinstance(error, httpx.InvalidURL | ValueError):
            message = f"The file of '{source}' is not fetched: it, or a redirect, is no URL."
            raise InvalidInputError(message, param="source") from error
        if isinstance(error, _TroubleError) and error.status == _TOO_MANY:
            raise RateLimitError(
                f"The host of '{source}' asks to wait.", code="source_refuses", retry_after_s=error.after_s
            ) from error
        # What a library says may name an address, or the whole URL.
        reason = str(error) if isinstance(error, _TroubleError) else "its host cannot be reached"
        message = f"The file of '{source}' cannot be fetched: {reason}."
        raise RemoteError(message, code="source_unreachable") from error


def counted(facts: Facts, part: Part) -> Facts:
    """Return what is known of a file of which all is here."""
    return replace(facts, size_bytes=part.size, sha256=part.digest)
