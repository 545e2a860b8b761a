"""One client: what it sends is read at all times, so that its end is seen; what it asks for is done one by one."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Protocol

import structlog
from msgspec import Struct
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Info
from wyoming.ping import Pong

from yapit import RateLimitError, YapitError
from yapit.errors import UnsupportedTaskError, shutting_down
from yapit_plugin_wyoming.choosing import Choices
from yapit_plugin_wyoming.hearing import AudioFormat, Hearing, Listening, Tape, chosen
from yapit_plugin_wyoming.options import Service
from yapit_plugin_wyoming.speaking import Manner, Saying, Streaming, Whole, Words
from yapit_plugin_wyoming.wire import BrokenError, LeftError, Wire, asked

if TYPE_CHECKING:
    from yapit.server.services import Services

_AHEAD = 8  # requests that may wait for the one before
_AFTER_ERROR_S = 5.0  # Home Assistant does not know errors, and waits until the connection ends
_log = structlog.get_logger(__name__)


class Job(Protocol):
    """Something that a client asks for."""

    @property
    def service(self) -> Service:
        """What it belongs to."""

    async def run(self, wire: Wire) -> None:
        """Answer it."""

    async def after(self, wire: Wire) -> None:
        """Say what is said after an answer and after an error."""

    def close(self) -> None:
        """Give back what it takes."""


class House(Struct, frozen=True, kw_only=True):
    """What all connections of a port share."""

    parts: "Services"
    choices: Choices
    services: tuple[Service, ...]
    info: Info
    idle_timeout_s: float


class Connection:
    """One client's connection, from its beginning to its end."""

    def __init__(self, house: House, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._house = house
        self._wire = Wire(reader, writer, house.idle_timeout_s, self._moved)
        self._jobs: asyncio.Queue[Job] = asyncio.Queue(_AHEAD)
        self._idle: asyncio.Timeout = asyncio.timeout(None)
        self._patience_s = house.idle_timeout_s
        self._busy = False
        self._stream: Streaming | None = None
        self._listening = Listening()
        self._tape: Tape | None = None
        self._deaf = False  # the audio that comes was refused
        self._handlers: dict[str, Callable[[Event], None]] = {
            "synthesize": self._synthesize,
            "synthesize-start": self._start,
            "synthesize-chunk": self._chunk,
            "synthesize-stop": self._stop,
            "transcribe": self._transcribe,
            "audio-start": self._audio_start,
            "audio-stop": self._audio_stop,
        }

    async def serve(self) -> None:
        """Answer the client until it ends, or nothing happens for too long."""
        try:
            async with self._idle, asyncio.TaskGroup() as group:
                self._moved()
                working = group.create_task(self._work(), name="wyoming work")
                await self._read()
                working.cancel()
        except TimeoutError:
            _log.debug("wyoming_idle", client=self._wire.client)
        finally:
            while not self._jobs.empty():
                self._jobs.get_nowait().close()
            self._drop_tape()
            await self._wire.close()

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _read(self) -> None:
        try:
            while (event := await self._wire.read()) is not None:
                try:
                    await self._take(event)
                except BrokenError:
                    raise
                except YapitError as error:
                    await self._refuse(error)
        except BrokenError as error:
            await self._say_last(error)
        except (asyncio.IncompleteReadError, ConnectionError, LeftError):
            pass

    async def _take(self, event: Event) -> None:
        """Do what an event says; unknown ones are left out, as the protocol wants it."""
        if event.type == "describe":
            await self._wire.write(self._house.info)
        elif event.type == "ping":
            text = event.data.get("text")
            await self._wire.write(Pong(text=text if isinstance(text, str) else None))
        elif event.type == "audio-chunk":
            await self._audio(event)
        elif event.type in self._handlers:
            self._handlers[event.type](event)

    def _synthesize(self, event: Event) -> None:
        # While a text streams, the whole of it comes, too, for servers that know nothing of streams.
        if self._stream is None:
            self._put(Saying(self._house.parts, self._house.choices, asked(event, Whole)))

    def _start(self, event: Event) -> None:
        self._stop(event)
        house = self._house
        stream = Streaming(house.parts, house.choices, asked(event, Manner), house.idle_timeout_s)
        self._put(stream)
        self._stream = stream

    def _chunk(self, event: Event) -> None:
        text = asked(event, Words).text
        if self._stream is not None:
            self._stream.feed(text)

    def _stop(self, _: Event) -> None:
        if self._stream is not None:
            self._stream.end()
            self._stream = None

    def _transcribe(self, event: Event) -> None:
        self._drop_tape()
        self._deaf = True
        self._listening = asked(event, Listening)
        chosen(self._house.choices, self._listening)
        self._deaf = False

    def _audio_start(self, event: Event) -> None:
        self._drop_tape()
        if not self._deaf:
            self._deaf = True
            self._tape = Tape(self._house.parts, asked(event, AudioFormat))
            self._deaf = False

    async def _audio(self, event: Event) -> None:
        if self._deaf:
            return
        try:
            kind = asked(event, AudioFormat)
            if self._tape is None:
                self._tape = Tape(self._house.parts, kind)
            self._tape.check(kind, self._wire.payload_bytes)
            async with aclosing(self._wire.payload()) as payload:
                async for piece in payload:
                    await self._tape.put(piece)
        except YapitError:
            self._deaf = True
            self._drop_tape()
            raise

    def _audio_stop(self, _: Event) -> None:
        tape, self._tape = self._tape, None
        deaf, self._deaf = self._deaf, False
        listening, self._listening = self._listening, Listening()
        if deaf:
            self._hurry()
        else:
            self._put(Hearing(self._house.parts, self._house.choices, listening, tape))

    def _put(self, job: Job) -> None:
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull as error:
            job.close()
            raise RateLimitError("Too many requests wait on this connection.", retry_after_s=1) from error
        self._wait()

    def _drop_tape(self) -> None:
        if self._tape is not None:
            self._tape.close()
            self._tape = None

    # ── working ───────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _work(self) -> None:
        try:
            while True:
                job = await self._jobs.get()
                self._busy = True
                self._wait()
                try:
                    await self._answer(job)
                finally:
                    job.close()
                self._busy = False
                self._wait()
        except LeftError:
            # The reader sees that as well, as the connection has ended.
            pass

    async def _answer(self, job: Job) -> None:
        try:
            await self._logged(job)
            await job.after(self._wire)
        except YapitError as error:
            await self._refuse(error)
            await self._after_error(job)

    async def _after_error(self, job: Job) -> None:
        try:
            await job.after(self._wire)
        except YapitError as error:
            await self._refuse(error)

    async def _logged(self, job: Job) -> None:
        request_id = f"wyo_{random.getrandbits(96):024x}"
        started = time.perf_counter()
        outcome = "client_left"
        try:
            await self._run(job, request_id)
            outcome = "ok"
        except YapitError as error:
            outcome = error.code or error.type
            raise
        except LeftError:
            raise
        except Exception as error:
            outcome = "internal_error"
            _log.exception("wyoming_broke", request_id=request_id)
            raise YapitError("Something went wrong; the server's log says more.", code=outcome) from error
        finally:
            took_ms = round((time.perf_counter() - started) * 1000, 1)
            _log.info(
                "wyoming_request", request_id=request_id, service=job.service, outcome=outcome, duration_ms=took_ms
            )

    async def _run(self, job: Job, request_id: str) -> None:
        house = self._house
        if job.service not in house.services:
            raise UnsupportedTaskError(f"No {job.service} is served on this port.")
        if house.parts.readiness.state == "draining":
            raise shutting_down()
        with house.parts.desk.serve_client(self._wire.client, request_id) as ticket:
            try:
                await job.run(self._wire)
            except asyncio.CancelledError:
                error = ticket.stopped()
                if error is None:
                    raise
                raise error from None

    # ── both ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _refuse(self, error: YapitError) -> None:
        await self._wire.write(Error(text=error.message, code=error.code or error.type))
        self._hurry()

    async def _say_last(self, error: YapitError) -> None:
        with suppress(LeftError):
            await self._wire.write(Error(text=error.message, code=error.code))

    def _moved(self) -> None:
        """Give the client its time, as it has sent something."""
        self._patience_s = self._house.idle_timeout_s
        self._wait()

    def _hurry(self) -> None:
        """Give the client little time, as it may not know that this was all."""
        self._patience_s = min(_AFTER_ERROR_S, self._house.idle_timeout_s)
        self._wait()

    def _wait(self) -> None:
        """End the connection if nothing happens for too long; what is asked for may take its time."""
        if not self._idle.expired():
            waits = self._busy or not self._jobs.empty()
            self._idle.reschedule(None if waits else asyncio.get_running_loop().time() + self._patience_s)
