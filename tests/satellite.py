"""A Wyoming client such as Home Assistant is one: the real one, and what tests ask of it."""

import asyncio
import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

with warnings.catch_warnings():
    # It imports audioop, which Python 3.13 has no more; then it does without.
    warnings.simplefilter("ignore", DeprecationWarning)
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.asr import Transcribe
from wyoming.client import AsyncTcpClient
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeVoice

from live import Server
from loops import PATIENCE_S

_STEP = 3200  # bytes of a chunk, as a microphone sends them


@dataclass
class Answer:
    """The events of one answer, and the audio in them."""

    events: list[Event] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        """The events' types, each once where it is repeated."""
        found = [event.type for event in self.events]
        return [kind for i, kind in enumerate(found) if i == 0 or kind != found[i - 1]]

    @property
    def pcm(self) -> bytes:
        return b"".join(event.payload or b"" for event in self.events)

    @property
    def error(self) -> tuple[str, str]:
        """Code and text of the error that is the last event."""
        assert self.events[-1].type == "error", self.types
        return self.events[-1].data["code"], self.events[-1].data["text"]

    @property
    def text(self) -> str:
        (whole,) = (event for event in self.events if event.type == "transcript")
        return str(whole.data["text"])


class Satellite:
    """One connection."""

    def __init__(self, client: AsyncTcpClient) -> None:
        self.client = client

    async def send(self, *events: Eventable) -> None:
        for event in events:
            await self.client.write_event(event.event())

    async def next(self) -> Event | None:
        return await self.client.read_event()

    async def until(self, *types: str) -> Answer:
        """Return the events up to the first of one of these types, or up to an error."""
        answer = Answer()
        while True:
            event = await self.next()
            assert event is not None, f"the connection ended after {answer.types}"
            answer.events.append(event)
            if event.type in (*types, "error"):
                return answer

    async def info(self) -> Info:
        await self.send(Describe())
        return Info.from_event((await self.until("info")).events[-1])

    async def say(self, text: str, name: str | None = None, **voice: str) -> Answer:
        wish = SynthesizeVoice(name=name, **voice) if name or voice else None
        await self.send(Synthesize(text=text, voice=wish))
        return await self.until("audio-stop")

    async def hear(self, pcm: bytes, asked: Transcribe | None = None, **kind: int) -> Answer:
        await self.send(*([asked] if asked is not None else []))
        await self.play(pcm, **kind)
        return await self.until("transcript-stop")

    async def play(self, pcm: bytes, rate: int = 16_000, width: int = 2, channels: int = 1) -> None:
        """Send audio as a microphone does."""
        await self.send(AudioStart(rate=rate, width=width, channels=channels))
        for start in range(0, len(pcm), _STEP):
            audio = pcm[start : start + _STEP]
            await self.send(AudioChunk(rate=rate, width=width, channels=channels, audio=audio))
        await self.send(AudioStop())


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Satellite]:
    async with AsyncTcpClient("127.0.0.1", port, read_timeout=PATIENCE_S) as client:
        yield Satellite(client)


@asynccontextmanager
async def raw(port: int, limit: int = 64 * 1024) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect without a client, to send what none would."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return what still comes until the server ends the connection."""
    found = bytearray()
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionError):
            while piece := await reader.read(65_536):
                found += piece
    return bytes(found)


def section(**fields: Any) -> str:
    """Return the plugins' settings with free ports."""
    return json.dumps({"wyoming": {"speech_port": 0, "transcription_port": 0, **fields}})


def ports(server: Server) -> list[int]:
    """Return the ports that a server says it listens on."""
    return [int(line["port"]) for line in server.lines if line["event"] == "wyoming_serving"]
