"""Events on a connection: read within limits, whatever is sent, and written whole.

The package's own reader is not used: it takes payloads and data of any size into memory, and what is no object ends it
with an exception.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from wyoming.event import Event, Eventable, async_write_event

from yapit import InvalidInputError

HEADER_BYTES = 64 * 1024  # of a header's line
DATA_BYTES = 1024 * 1024
_PIECE_BYTES = 64 * 1024  # of a payload that are in memory at once
_LINGER_S = 1.0
_BROKEN = "protocol_error"
StructT = TypeVar("StructT", bound=Struct)


class BrokenError(InvalidInputError):
    """What was sent is no event, or is larger than one may be; where the next one begins is not known."""

    code = _BROKEN


class LeftError(Exception):
    """The client is gone, or takes nothing any more."""


class Wire:
    """One connection.

    Args:
        reader: with `HEADER_BYTES` as its limit.
        writer: to the same client.
        timeout_s: seconds that the client may take to make room for an event.
        moved: called when something has come.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        timeout_s: float,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s
        self._moved = moved
        self._turn = asyncio.Lock()
        self._payload_left = 0

    @property
    def client(self) -> str:
        """The client's address."""
        peer = self._writer.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    async def read(self) -> Event | None:
        """Return the next event, without its payload; None when the client has ended.

        Raises:
            BrokenError: it is none.
        """
        async with aclosing(self.payload()) as rest:
            async for _ in rest:
                pass
        try:
            line = await self._reader.readline()
        except ValueError as error:
            raise BrokenError(f"The header is longer than {HEADER_BYTES} bytes.") from error
        if not line.endswith(b"\n"):
            return None
        self._moved()
        header = _object(line, "header")
        kind, data = header.get("type"), header.get("data")
        if not isinstance(kind, str) or not isinstance(data, dict | None):
            raise BrokenError("The header has no 'type', or its 'data' is no object.")
        length = _length(header, "data_length")
        if length > DATA_BYTES:
            raise BrokenError(f"The data are longer than {DATA_BYTES} bytes.")
        more = _object(await self._reader.readexactly(length), "data") if length else {}
        self._moved()
        self._payload_left = _length(header, "payload_length")
        return Event(type=kind, data={**(data or {}), **more})

    @property
    def payload_bytes(self) -> int:
        """What is still to come of the payload."""
        return self._payload_left

    async def payload(self) -> AsyncGenerator[bytes, None]:
        """Yield the payload of the event that was read last, as far as it was not yet, bit by bit."""
        while self._payload_left:
            piece = await self._reader.read(min(self._payload_left, _PIECE_BYTES))
            if not piece:
                raise asyncio.IncompleteReadError(piece, self._payload_left)
            self._moved()
            self._payload_left -= len(piece)
            yield piece

    async def write(self, *events: Eventable) -> None:
        """Send events.

        Raises:
            LeftError: the client is gone, or did not make room for too long.
        """
        try:
            async with self._turn, asyncio.timeout(self._timeout_s):
                for event in events:
                    await async_write_event(event.event(), self._writer)
        except (TimeoutError, ConnectionError) as error:
            self._writer.transport.abort()
            raise LeftError from error

    async def close(self) -> None:
        """End the connection, so that the client sees what was sent last, and without waiting for it for long.

        A connection that is closed while something still comes is reset, and the client may never see the end.
        """
        try:
            async with asyncio.timeout(_LINGER_S):
                self._writer.write_eof()
                while await self._reader.read(_PIECE_BYTES):
                    pass
        except (OSError, RuntimeError):
            # It has closed, or had enough time: TimeoutError is an OSError, and uvloop has RuntimeError for the rest.
            pass
        finally:
            self._writer.transport.abort()


def asked(event: Event, kind: type[StructT]) -> StructT:
    """Return what an event's data say.

    Raises:
        InvalidInputError: a field is missing or has a value that is refused.
    """
    try:
        return msgspec.convert(event.data, kind)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"Invalid '{event.type}': {error}.", param=event.type) from error


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenError(f"The {what} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise BrokenError(f"The {what} is no object.")
    return found


def _length(header: dict[str, Any], name: str) -> int:
    length = header.get(name)
    if length is None:
        return 0
    if not isinstance(length, int) or isinstance(length, bool) or length < 0:
        raise BrokenError(f"'{name}' is no length: {length!r}."[:200])
    return length
