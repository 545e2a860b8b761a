"""One content over the network: resumed where it stopped, tried again with patience, checked before it counts."""

import asyncio
import random
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import httpx2
import structlog
from huggingface_hub import constants, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError
from msgspec import Struct

from yapit.errors import RemoteError
from yapit.hub.layout import blob_of, is_whole, link, lock_of, part_of, pointer_of
from yapit.hub.parts import Part, in_thread, locked
from yapit.hub.planning import ANSWER_S
from yapit.hub.progress import Meter
from yapit.hub.refusals import HTTPError, line, retry_after_s
from yapit.hub.repositories import File, Plan, origin

_log = structlog.get_logger(__name__)
_HOPS = 5  # redirects that are followed
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # statuses after which the next try may go well
_EXPIRED = (401, 403)  # of a signed URL: the hub gives a new one
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Patience(Struct, frozen=True, kw_only=True):
    """How long a transfer bears trouble.

    Args:
        tries: that bring nothing, one after the other, before it gives up.
        first_s: seconds before the second try; twice as many before each further one.
        most_s: seconds before any try, whatever the hub asks for.
        silence_s: seconds without a byte; HF_HUB_DOWNLOAD_TIMEOUT when None.
    """

    tries: int = 6
    first_s: float = 0.5
    most_s: float = 60.0
    silence_s: float | None = None

    def pause_s(self, tries: int, asked_s: float | None) -> float:
        """Return the seconds before the next try; not the same for all who had the same trouble."""
        grown = self.first_s * 2.0 ** (tries - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return min(max(grown, asked_s or 0.0), self.most_s)


class _TroubleError(Exception):
    """A try failed, and the next one may not."""


class _WrongError(Exception):
    """What came is not the content."""


class Contents:
    """Fetches the contents of a plan.

    Args:
        plan: what is wanted.
        client: asks for them.
        meter: is told what comes.
        patience: with trouble.
    """

    def __init__(self, plan: Plan, client: httpx2.AsyncClient, meter: Meter, patience: Patience) -> None:
        self._plan, self._client, self._meter, self._patience = plan, client, meter, patience
        self._tags: dict[tuple[object, ...], str] = {}  # ETags, by host and content
        silence_s = patience.silence_s or constants.HF_HUB_DOWNLOAD_TIMEOUT
        self._timeout = httpx2.Timeout(silence_s, connect=max(silence_s, ANSWER_S))

    async def fetch(self, files: Sequence[File]) -> None:
        """Fetch what some files have in common, unless it is here, and put it into the snapshot.

        Raises:
            RemoteError: it came wrong twice, or too often not at all.
            HTTPError, OSError: the hub, or the disk, refuses.
        """
        repository, file = self._plan.repository, files[0]
        lock = lock_of(repository, file.etag)
        async with locked(lock, lambda: self._look(file)):
            if not self._is_here(files):
                async with Part.open(part_of(repository, file), file) as part:
                    await self._complete(part, file)
                    await in_thread(part.finish, blob_of(repository, file))
            self._meter.at(file, file.size_bytes)
            await in_thread(link, repository, self._plan.commit, files)
        self._meter.whole(sum(each.name not in self._plan.here for each in files))

    def _is_here(self, files: Sequence[File]) -> bool:
        repository, size = self._plan.repository, files[0].size_bytes
        pointers = [pointer_of(repository, self._plan.commit, file.name) for file in files]
        return is_whole(blob_of(repository, files[0]), size) or all(is_whole(each, size) for each in pointers)

    def _look(self, file: File) -> None:
        """See how far the others are who fetch it."""
        parts = part_of(self._plan.repository, file).parent.glob(f"{file.etag}*")
        sizes = (part.stat().st_size for part in parts)  # those of the hub's library have other names
        with suppress(OSError):
            self._meter.at(file, min(max(sizes, default=0), file.size_bytes))

    async def _complete(self, part: Part, file: File) -> None:
        """Fetch what is missing; if all of it is wrong then, once more from the start."""
        for _ in range(2):
            try:
                await self._persist(part, file)
                if part.right:
                    return
            except _WrongError:
                pass
            _log.warning("hub_content_wrong", source=self._plan.repository.source, file=file.name)
            part.restart()
        message = (
            f"The file '{file.name}' of '{self._plan.repository.source}' came wrong twice: not what its checksum says."
        )
        raise RemoteError(message, code="checksum_mismatch")

    async def _persist(self, part: Part, file: File) -> None:
        tries = 0
        while not part.complete:
            before = part.size
            self._meter.at(file, before)
            try:
                await self._receive(part, file)
                trouble: Exception = _TroubleError("the answer ended early")
            except (_TroubleError, HTTPError) as error:
                if isinstance(error, HfHubHTTPError) and error.response.status_code not in AGAIN:
                    raise
                trouble = error
            if not part.complete:
                tries = 1 if part.size > before else tries + 1
                await self._wait(tries, trouble, file)

    async def _wait(self, tries: int, trouble: Exception, file: File) -> None:
        if tries >= self._patience.tries:
            if isinstance(trouble, HTTPError):
                raise trouble
            message = f"The file '{file.name}' of '{self._plan.repository.source}' cannot be fetched: {line(trouble)}."
            raise RemoteError(message)
        answer = trouble.response if isinstance(trouble, HfHubHTTPError) else None
        asked_s = retry_after_s(answer.headers.get("Retry-After")) if answer is not None else None
        pause_s = self._patience.pause_s(tries, asked_s)
        _log.info(
            "hub_try_again",
            source=self._plan.repository.source,
            file=file.name,
            reason=line(trouble) or type(trouble).__name__,
            after_s=round(pause_s, 2),
        )
        await asyncio.sleep(pause_s)

    async def _receive(self, part: Part, file: File) -> None:
        url = self._plan.repository.url(self._plan.commit, file.name)
        for _ in range(_HOPS):
            headers = self._headers(url, part, file)
            stream = self._client.stream("GET", url, headers=headers, follow_redirects=False, timeout=self._timeout)
            async with stream as response:
                if not response.has_redirect_location:
                    await self._take(response, part, file)
                    return
                url = self._redirected(url, response, file)
        raise RemoteError(f"The hub redirects '{file.name}' of '{self._plan.repository.source}' again and again.")

    def _headers(self, url: str, part: Part, file: File) -> dict[str, str]:
        headers = {"user-agent": "yapit", "accept-encoding": "identity"}
        if part.size:
            headers["range"] = f"bytes={part.size}-"
        if self._is_hub(url):
            headers |= self._plan.repository.headers
        if part.size and (tag := self._tag(url, file)) is not None:
            headers["if-range"] = tag
        return headers

    def _tag(self, url: str, file: File) -> str | None:
        """Return the name that a server has for a content; a storage's is not known before it is told."""
        return self._tags.get((*origin(url), file.etag)) or (f'"{file.etag}"' if self._is_hub(url) else None)

    def _redirected(self, url: str, response: httpx2.Response, file: File) -> str:
        self._check_name(response, file)
        target = urljoin(url, response.headers["location"])
        if urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
            raise RemoteError(f"The hub redirects '{file.name}' to where no transfer is secure.")
        return target

    def _check_name(self, response: httpx2.Response, file: File) -> None:
        named = response.headers.get("x-linked-etag")
        if self._is_hub(str(response.url)) and named and named.removeprefix("W/").strip('"') != file.etag:
            raise _WrongError

    async def _take(self, response: httpx2.Response, part: Part, file: File) -> None:
        if response.status_code not in (200, 206):
            await self._refuse(response, part)
        self._check_name(response, file)
        if (tag := response.headers.get("etag", "W/")).startswith('"'):
            self._tags[*origin(str(response.url)), file.etag] = tag
        if response.status_code == 206:  # noqa: PLR2004 - partial content
            match = _RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != part.size or match[2] not in ("*", str(file.size_bytes)):
                part.restart()
                raise _TroubleError("the answer holds other bytes than were asked for")
        elif part.size:
            part.restart()  # it knows no ranges, or the content is another one
        self._meter.at(file, part.size)
        async for piece in response.aiter_bytes():
            self._meter.received(len(piece))
            if part.size + len(piece) > file.size_bytes:
                raise _WrongError
            await in_thread(part.write, piece)
            self._meter.at(file, part.size)

    async def _refuse(self, response: httpx2.Response, part: Part) -> NoReturn:
        status = response.status_code
        if status == 416:  # noqa: PLR2004 - range not satisfiable
            part.restart()
            raise _TroubleError("the hub has fewer bytes than are here")
        if not self._is_hub(str(response.url)):
            # Its URLs are signed: no error names them.
            if status in (*AGAIN, *_EXPIRED):
                raise _TroubleError(f"the hub's storage answers {status}")
            raise RemoteError(f"The storage of the hub refuses a file of '{self._plan.repository.source}': {status}.")
        try:
            async with asyncio.timeout(ANSWER_S):
                await response.aread()  # what it says of the reason
        except TimeoutError as error:
            raise _TroubleError("the hub's refusal does not end") from error
        hf_raise_for_status(response)
        raise RemoteError(f"The hub answers {status} for a file of '{self._plan.repository.source}'.")

    def _is_hub(self, url: str) -> bool:
        return origin(url) == origin(self._plan.repository.hub)
