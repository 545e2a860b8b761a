"""Whatever is sent, the server lives, answers others, and takes no more memory."""

import asyncio
import json
import re
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from wyoming.event import Event, async_write_event
from wyoming.ping import Ping

from live import Server, serve, until
from loops import run
from satellite import connected, ended, ports, raw
from yapit import InvalidInputError
from yapit_plugin_wyoming.wire import HEADER_BYTES, BrokenError, Wire

MEGABYTE = 1024 * 1024


def memory(server: Server) -> int:
    """Return the most bytes that the server's process has ever taken."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def alive(port: int) -> None:
    async with connected(port) as satellite:
        await satellite.send(Ping(text="here"))
        assert (await satellite.until("pong")).events[-1].data == {"text": "here"}


def header(**fields: object) -> bytes:
    return json.dumps({"type": "audio-chunk", **fields}).encode() + b"\n"


BROKEN = {
    "an endless header": b"x" * (HEADER_BYTES + 1),
    "no json": b"{nonsense\n",
    "no object": b"[1]\n",
    "a number": b"5\n",
    "null": b"null\n",
    "an empty line": b"\n",
    "no type": b"{}\n",
    "a type that is none": b'{"type": 7}\n',
    "data that are none": b'{"type": "ping", "data": [1]}\n',
    "no utf-8": b'{"type": "\xff\xfe"}\n',
    "half a surrogate": b'{"type": "ping", "data": {"text": "\\ud800"}}\n',
    "very deep": b'{"type": ' + b"[" * 30_000 + b"\n",
    "a negative length": header(payload_length=-1),
    "a negative data length": header(data_length=-5),
    "a length that is none": header(payload_length="12"),
    "a length that is half": header(payload_length=1.5),
    "a length that is true": header(data_length=True),
    "endless data": header(data_length=10**10),
    "data that are no json": header(data_length=3) + b"{a}",
    "data that are no object": header(data_length=3) + b"[1]",
    "data that are very deep": header(data_length=100_000) + b"[" * 100_000,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_what_is_no_event_ends_the_connection_with_an_error(transcription: int, sent: bytes) -> None:
    async def main() -> None:
        async with raw(transcription) as (reader, writer):
            writer.write(sent)
            answer = await ended(reader)
        first, _, data = answer.partition(b"\n")
        assert json.loads(first)["type"] == "error"
        assert json.loads(data)["code"] == "protocol_error"
        assert len(data) < 1000
        await alive(transcription)

    run(main())


@pytest.mark.parametrize(
    "sent", [b"", b'{"type": "pi', header(data_length=100) + b"{", header(payload_length=100) + b"x"]
)
def test_a_client_that_ends_in_the_middle_is_forgotten(transcription: int, sent: bytes) -> None:
    async def main() -> None:
        async with raw(transcription) as (reader, writer):
            writer.write(sent)
            writer.write_eof()
            assert b"protocol_error" not in await ended(reader)
        await alive(transcription)

    run(main())


def test_a_giant_payload_takes_no_memory(server: Server, transcription: int) -> None:
    """It is refused when it is announced, and what comes of it all the same goes nowhere."""

    async def flood(data: dict[str, object]) -> bytes:
        async with raw(transcription) as (reader, writer):
            writer.write(header(data=data, payload_length=10 * 1024**3))
            for _ in range(64):
                writer.write(bytes(MEGABYTE))
                await writer.drain()
            writer.write_eof()
            return await ended(reader)

    async def main() -> None:
        await alive(transcription)
        before = memory(server)
        assert b"body_too_large" in await flood({"rate": 16_000, "width": 2, "channels": 1})
        assert b"invalid_value" in await flood({})
        assert memory(server) - before < 24 * MEGABYTE
        await alive(transcription)

    run(main())


def test_an_endless_header_takes_no_memory(server: Server, transcription: int) -> None:
    async def main() -> None:
        await alive(transcription)
        before = memory(server)
        async with raw(transcription) as (_, writer):
            with suppress(ConnectionError):
                for _ in range(200):
                    writer.write(b"x" * MEGABYTE)
                    await writer.drain()
        assert memory(server) - before < 24 * MEGABYTE
        await alive(transcription)

    run(main())


def test_unknown_events_and_fields_are_left_out_with_what_they_carry(speech: int) -> None:
    async def main() -> None:
        async with raw(speech) as (reader, writer):
            await async_write_event(Event("run-satellite", {"deep": [1]}, b"\n{" * 50_000), writer)
            await async_write_event(Event("select-program", {"name": "yapit"}), writer)
            await async_write_event(Event("synthesize-chunk", {"text": "to nobody"}), writer)
            await async_write_event(Event("synthesize-stop"), writer)
            await async_write_event(Event("ping", {"text": "last", "more": 1}, b"y"), writer)
            assert json.loads(await reader.readline())["type"] == "pong"

    run(main())


def test_data_may_be_in_the_header_and_after_it() -> None:
    async def main() -> None:
        reader = asyncio.StreamReader(limit=HEADER_BYTES)
        reader.feed_data(
            b'{"type": "a", "data": {"x": 1, "y": 1}, "data_length": 8, "payload_length": 5}\n{"y": 2}12345'
        )
        reader.feed_data(b'{"type": "b", "data_length": null}\n')
        reader.feed_eof()
        wire = Wire(reader, None, 1)  # type: ignore[arg-type]  # nothing is written
        first = await wire.read()
        assert first == Event("a", {"x": 1, "y": 2})
        assert wire.payload_bytes == 5
        assert b"".join([piece async for piece in wire.payload()]) == b"12345"
        assert await wire.read() == Event("b", {})
        assert await wire.read() is None

    run(main())


def test_what_is_broken_is_bad_input() -> None:
    assert issubclass(BrokenError, InvalidInputError)


# ── those who take nothing, or send nothing ───────────────────────────────────────────────────────────────────────────
def test_who_does_nothing_or_takes_nothing_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        "models: [{id: endless, backend: echo, tasks: [synthesize], options: {seconds: 2000}}]"
    )
    settings = {"wyoming": {"speech_port": 0, "serve": ["speech"], "idle_timeout_s": 0.3}}

    async def main(port: int) -> None:
        halves = [b"", b'{"type"', header(data_length=9), header(payload_length=9) + b"1"]
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(raw(port)) for _ in halves]
            for (_, writer), half in zip(opened, halves, strict=True):
                writer.write(half)
            for reader, _ in opened:
                await ended(reader)
        # Says what it wants, and reads none of it: the server's buffer and the system's are full.
        async with raw(port, limit=1024) as (_, writer):
            await async_write_event(Event("synthesize", {"text": "x", "voice": {"name": "endless"}}), writer)
            assert await asyncio.to_thread(until, lambda: "wyoming_request" in server.events)
        # Begins a text and does not go on.
        async with connected(port) as satellite:
            await satellite.client.write_event(Event("synthesize-start"))
            assert (await satellite.until()).error[0] == "idle_timeout"
        await alive(port)

    with serve(tmp_path, YAPIT_PLUGIN_SETTINGS=json.dumps(settings)) as server:
        run(main(*ports(server)))
        outcomes = [line["outcome"] for line in server.lines if line["event"] == "wyoming_request"]
        assert outcomes == ["client_left", "idle_timeout"]
        assert "wyoming_connection_broke" not in server.events
