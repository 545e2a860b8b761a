"""What a gateway and a worker say to each other: msgpack messages, each behind its length in four bytes."""

import asyncio
import struct
from typing import Any

import msgspec
from msgspec import Raw, Struct

from yapit import errors
from yapit.catalog import Model
from yapit.errors import BackendError, YapitError

_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode


class Load(Struct, frozen=True, tag=True, array_like=True):
    """Load this model for this task; the first message to a worker."""

    task: str
    model: Model
    device: str
    data_dir: str
    plugin_settings: dict[str, dict[str, Any]]
    plugins: tuple[str, ...]


class Call(Struct, frozen=True, tag=True, array_like=True):
    """Run a request; `chunks` may be sent before the reader asks for more."""

    id: int
    request: Raw
    chunks: int


class More(Struct, frozen=True, tag=True, array_like=True):
    """The reader takes so many chunks more."""

    id: int
    chunks: int


class Cancel(Struct, frozen=True, tag=True, array_like=True):
    """Nobody listens any more: close the adapter's iterator, then say `Done`."""

    id: int


class Loaded(Struct, frozen=True, tag=True, array_like=True):
    """The model is loaded."""

    max_concurrency: int


class Chunk(Struct, frozen=True, tag=True, array_like=True):
    """One chunk of a call."""

    id: int
    body: Raw


class Done(Struct, frozen=True, tag=True, array_like=True):
    """The call has ended and the adapter has let go."""

    id: int


class Failed(Struct, frozen=True, tag=True, array_like=True):
    """The call, or the load (id 0), ended with an error."""

    id: int
    kind: str
    message: str
    param: str | None
    code: str | None
    retry_after_s: float | None

    @classmethod
    def of(cls, call: int, error: YapitError) -> "Failed":
        """Return the message for an error."""
        return cls(call, type(error).__name__, error.message, error.param, error.code, error.retry_after_s)

    def error(self) -> YapitError:
        """Return the error again, of the same class."""
        kind = getattr(errors, self.kind, BackendError)
        made: YapitError = kind(self.message, param=self.param, code=self.code, retry_after_s=self.retry_after_s)
        return made


ToWorker = Load | Call | More | Cancel
FromWorker = Loaded | Chunk | Done | Failed


class Channel:
    """Messages over a stream.

    Args:
        reader: where messages come from.
        writer: where messages go.
        kinds: the union of the messages that may come.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kinds: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decode = msgspec.msgpack.Decoder(kinds).decode

    def send(self, message: Struct) -> None:
        """Send a message, soon."""
        body = _encode(message)
        self._writer.write(_LENGTH.pack(len(body)) + body)

    async def drain(self) -> None:
        """Wait until the other side has taken most of what was sent."""
        await self._writer.drain()

    async def receive(self) -> Any:
        """Return the next message, or None when the other side is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return self._decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def close(self) -> None:
        """Say that nothing more will come."""
        self._writer.close()
