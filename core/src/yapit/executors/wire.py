"""What a gateway and a worker say to each other: msgpack messages, each behind its length in four bytes."""

import asyncio
import struct
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Raw, Struct

from yapit import errors
from yapit.catalog import Model
from yapit.errors import BackendError, YapitError

_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode


class Load(Struct, frozen=True, tag=True, array_like=True):
    """Load this model for this task; the first message to a worker. `version` is that of the sender's yapit."""

    version: str
    task: str
    model: Model
    device: str
    data_dir: str
    plugin_settings: dict[str, dict[str, Any]]
    plugins: tuple[str, ...] | None


class Call(Struct, frozen=True, tag=True, array_like=True):
    """Run a request; `chunks` may be sent before the reader asks for more, and `ticket` goes to the log lines."""

    id: int
    request: Raw
    chunks: int
    ticket: str


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


class Memory(Struct, frozen=True, tag=True, array_like=True):
    """The most that the model has taken of its device so far."""

    device: str
    bytes: int


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
        """Return the message for an error; one of a plugin's own class becomes the nearest of yapit's."""
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        wait_s = None if error.retry_after_s is None else float(error.retry_after_s)
        return cls(call, kind.__name__, str(_text(error.message)), _text(error.param), _text(error.code), wait_s)

    def error(self) -> YapitError:
        """Return the error again, of the same class."""
        kind = getattr(errors, self.kind, BackendError)
        made: YapitError = kind(self.message, param=self.param, code=self.code, retry_after_s=self.retry_after_s)
        return made


ToWorker = Load | Call | More | Cancel
FromWorker = Loaded | Memory | Chunk | Done | Failed


def _text(value: Any) -> str | None:
    """Return what can be sent of it: a plugin may put anything into its errors."""
    return None if value is None else str(value).encode("utf-8", "replace").decode()


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
        """Send a message, soon; into the void when the channel is closed."""
        body = _encode(message)
        if self._writer.is_closing():
            return
        self._writer.write(_LENGTH.pack(len(body)) + body)

    async def drain(self) -> None:
        """Wait until the other side has taken most of what was sent, or is gone."""
        with suppress(ConnectionError):
            await self._writer.drain()

    async def receive(self) -> Any:
        """Return the next message, or None when the other side is gone.

        Raises:
            msgspec.DecodeError: the other side says what nobody understands.
        """
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return self._decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def close(self) -> None:
        """Say that nothing more will come."""
        self._writer.close()

    async def finish(self) -> None:
        """Close the channel and wait until the other side has all that was sent, or is gone."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
