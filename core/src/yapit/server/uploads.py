"""Uploads: a form whose file goes to disk as it arrives, or JSON; and answers to those who still send."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

import structlog
from litestar import Request
from litestar.types import HTTPScope, Message, Receive, Scope, Send
from msgspec import Struct
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header  # type: ignore[import-untyped]  # it has none

from yapit.errors import InvalidInputError, RequestError, StoppedError, YapitError
from yapit.server.problems import answer
from yapit.settling import settle

_TEXT_BYTES = 1024 * 1024  # of all fields together that are no file
_PARTS = 256
_IN_MEMORY_BYTES = 1024 * 1024  # of a file; a larger one is on disk, but for as much
_LINGER_S, _SILENCE_S = 30.0, 5.0
_LEFT = "client_left"
_log = structlog.get_logger(__name__)


class TooLargeError(RequestError):
    """More was sent than is taken."""

    status = 413
    code = "body_too_large"


class Limit(Struct, frozen=True, kw_only=True):
    """How large a file may be; 0 = any size. `setting` is where that is said."""

    max_bytes: int
    setting: str

    def check(self, size: int, param: str) -> None:
        """Raise `TooLargeError` if a file, or what says how large it is, is larger."""
        if self.max_bytes and size > self.max_bytes:
            message = f"Invalid '{param}': it is larger than the limit of {self.max_bytes} bytes ({self.setting})."
            raise TooLargeError(message, param=param)


class Body:
    """The body of a request as it arrives; `ended` when nothing of it is to come."""

    def __init__(self, scope: Scope | HTTPScope, receive: Receive) -> None:
        self._receive = receive
        headers: dict[bytes, bytes] = dict(scope["headers"])
        self.content_type, self.type_options = parse_options_header(headers.get(b"content-type", b"").decode("latin-1"))
        announced = headers.get(b"content-length", b"")
        self.announced = int(announced) if announced.isdigit() else 0
        self.ended = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield what comes, never empty.

        Raises:
            StoppedError: the client left.
        """
        while not self.ended:
            event: Any = await self._receive()
            if event["type"] == "http.disconnect":
                self.ended = True
                _log.info("client_left")
                raise StoppedError("The client left.", code=_LEFT)
            self.ended = not event.get("more_body", False)
            if event["body"]:
                yield event["body"]

    async def linger(self) -> None:
        """Take what still comes for a while, and forget it."""
        try:
            async with asyncio.timeout(_LINGER_S), aclosing(self.chunks()) as chunks:
                while True:
                    async with asyncio.timeout(_SILENCE_S):
                        await anext(chunks)
        except (TimeoutError, StopAsyncIteration, StoppedError):
            return


class Form(Struct, frozen=True, kw_only=True):
    """What a form has: its fields in order, and its file, if there is one. The file lasts as long as the request."""

    fields: list[tuple[str, str]]
    file: BinaryIO | None


async def refuse(error: YapitError, body: Body, scope: Scope | HTTPScope, receive: Receive, send: Send) -> None:
    """Answer a client that may still be sending, and let it send on for a while.

    A connection that is closed while something still comes is reset, and the client may never see the answer.
    """
    response = answer(error)
    response.headers["connection"] = "close"

    async def send_open(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    await response.to_asgi_response(None, Request(cast("Any", scope)))(cast("Any", scope), receive, send_open)
    await body.linger()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def read_bytes(body: Body, limit: Limit, param: str) -> bytes:
    """Return the whole body, which holds a file in base64 and little else."""
    limit = Limit(max_bytes=limit.max_bytes and limit.max_bytes * 4 // 3 + _TEXT_BYTES, setting=limit.setting)
    limit.check(body.announced, param)
    found = bytearray()
    async with aclosing(body.chunks()) as chunks:
        async for chunk in chunks:
            limit.check(len(found) + len(chunk), param)
            found += chunk
    return bytes(found)


@asynccontextmanager
async def read_form(
    body: Body, limit: Limit, name: str = "file", *, check: Callable[[str, str], object] | None = None
) -> AsyncIterator[Form]:
    """Read a form as it arrives, its parts in any order.

    Args:
        body: of type `multipart/form-data`.
        limit: of the file.
        name: of the part that is the file. Files of other names are left out.
        check: called with each field as it arrives; what it raises is not found out only after the file.

    Raises:
        InvalidInputError: it is no form, has two files, or a field that is not UTF-8.
        TooLargeError: the file, or all other fields together, are too large.
        StoppedError: the client left.
    """
    if body.announced > 2 * _TEXT_BYTES:
        limit.check(body.announced - 2 * _TEXT_BYTES, name)
    with ExitStack() as stack:
        reader = _Reader(stack, limit, name, check)
        try:
            with PushMultipartParser(body.type_options.get("boundary", ""), max_segment_count=_PARTS) as parser:
                async with aclosing(body.chunks()) as chunks:
                    async for chunk in chunks:
                        for event in parser.parse(chunk):
                            await reader.take(event)
        except MultipartError as error:
            raise InvalidInputError(f"The form is broken: {error}.", code="invalid_body") from error
        yield await reader.form()


class _Reader:
    """Makes a form of what the parser finds."""

    def __init__(self, stack: ExitStack, limit: Limit, name: str, check: Callable[[str, str], object] | None) -> None:
        self._stack = stack
        self._limit = limit
        self._name = name
        self._check = check
        self._fields: list[tuple[str, str]] = []
        self._text_bytes = 0
        self._skipped_bytes = 0
        self._file: _File | None = None
        self._part = ""
        self._text: bytearray | None = None
        self._skips = False

    async def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            self._end()
        elif self._text is not None:
            self._text_bytes += len(event)
            if self._text_bytes > _TEXT_BYTES:
                message = (
                    f"Invalid '{self._part}': all fields beside the file have at most {_TEXT_BYTES} bytes together."
                )
                raise TooLargeError(message, param=self._part)
            self._text += event
        elif self._skips:
            self._skipped_bytes += len(event)
            self._limit.check(self._skipped_bytes, self._part)
        elif self._file is not None:
            self._limit.check(self._file.size + len(event), self._name)
            await self._file.put(event)

    async def form(self) -> Form:
        if self._file is not None:
            await self._file.flush()
        return Form(fields=self._fields, file=None if self._file is None else self._file.file)

    def _begin(self, segment: MultipartSegment) -> None:
        self._part = segment.name.removesuffix("[]") if segment.name else ""
        self._text, self._skips = None, False
        if self._part == self._name:
            if self._file is not None:
                message = f"Invalid '{self._name}': there are two files, and one is taken in a request."
                raise InvalidInputError(message, param=self._name)
            self._file = _File(self._stack)
        elif segment.filename is not None:
            self._skips = True
        else:
            self._part = segment.name or ""
            self._text = bytearray()

    def _end(self) -> None:
        if self._text is None:
            return
        try:
            field = self._part, self._text.decode()
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"Invalid '{self._part}': it is not UTF-8.", param=self._part) from error
        if self._check is not None:
            self._check(*field)
        self._fields.append(field)


class _File:
    """A file that is being received: a small one stays in memory, a larger one is written by a thread."""

    def __init__(self, stack: ExitStack) -> None:
        # It has no name on disk, and so is gone with the process, however that ends.
        spool = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, prefix="yapit-")  # noqa: SIM115 - the stack closes it
        stack.callback(spool.close)
        self.file = cast("BinaryIO", spool)
        self.size = 0
        self._waiting = bytearray()

    async def put(self, data: bytes | bytearray) -> None:
        self.size += len(data)
        self._waiting += data
        if len(self._waiting) > _IN_MEMORY_BYTES:
            await self.flush()

    async def flush(self) -> None:
        data = bytes(self._waiting)
        self._waiting.clear()
        if self.size <= _IN_MEMORY_BYTES:
            self.file.write(data)
        else:
            await off_loop(self.file.write, data)


async def off_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns on a thread; waited for even when cancelled, as it works on what is freed then."""
    running = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    await settle(running)
    return running.result()
