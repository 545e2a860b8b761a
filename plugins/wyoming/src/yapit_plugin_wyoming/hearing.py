"""Audio events become a recording, and that a transcript."""

import asyncio
import struct
from contextlib import AsyncExitStack, aclosing
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

from msgspec import Meta, Struct
from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop

from yapit import InvalidInputError, Model, TranscribeRequest
from yapit.settling import settle
from yapit.tickets import current
from yapit.transcription import SAMPLE_RATE, Recording, Transcription, language_code, recording
from yapit_plugin_wyoming.choosing import Choices
from yapit_plugin_wyoming.options import Service
from yapit_plugin_wyoming.wire import Wire

if TYPE_CHECKING:
    from yapit.server.services import Services

_IN_MEMORY_BYTES = 1024 * 1024
_RIFF_BYTES = 2**32 - 1024  # sizes have 32 bits
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")  # of a WAV file: RIFF, fmt and data
_PCM, _FORMAT_BYTES = 1, 16


class AudioFormat(Struct, frozen=True, kw_only=True):
    """The data of `audio-start`, and of each chunk: samples a second, bytes of a sample, channels."""

    rate: Annotated[int, Meta(ge=1_000, le=768_000)]
    width: Annotated[int, Meta(ge=1, le=4)]
    channels: Annotated[int, Meta(ge=1, le=64)]


class Listening(Struct, frozen=True, kw_only=True):
    """The data of `transcribe`: what to listen with, and words that are likely."""

    name: str | None = None
    language: str | None = None
    transcript_names: list[str] | None = None
    transcript_terms: list[str] | None = None

    def request(self) -> TranscribeRequest:
        """Return what the model is asked, without the recording; raises `InvalidInputError` for no language."""
        return TranscribeRequest(
            sample_rate=SAMPLE_RATE,
            language=language_code(self.language),
            keywords=(*(self.transcript_names or ()), *(self.transcript_terms or ())),
        )


class Tape:
    """A recording that is being received: in memory while it is little, then in a file without a name.

    Args:
        parts: of the server, whose limits for uploads hold here, too.
        kind: how the samples are.
    """

    def __init__(self, parts: "Services", kind: AudioFormat) -> None:
        self._limits = parts.settings.transcription
        self._kind = kind
        self._size = 0
        self._waiting = bytearray()
        self._spool = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, prefix="yapit-")  # noqa: SIM115 - see close
        self._spool.write(bytes(_HEADER.size))

    @property
    def seconds(self) -> float:
        """Length of what was received."""
        return self._size / (self._kind.rate * self._kind.width * self._kind.channels)

    def check(self, kind: AudioFormat, more_bytes: int) -> None:
        """Raise `InvalidInputError` if this cannot follow: it is other audio, or too much."""
        if kind != self._kind:
            raise InvalidInputError("Invalid 'audio-chunk': its format is not that of the audio before.", param="audio")
        size = self._size + more_bytes
        limit = self._limits.max_upload_bytes
        if (limit and size > limit) or size > _RIFF_BYTES:
            message = f"Invalid 'audio': it is larger than the limit of {limit} bytes (transcription.max_upload_bytes)."
            raise InvalidInputError(message, param="audio", code="body_too_large")
        longest_s = self._limits.max_audio_s
        if longest_s and size / (kind.rate * kind.width * kind.channels) > longest_s:
            message = f"Invalid 'audio': the audio is longer than {longest_s:g} s."
            raise InvalidInputError(message, param="audio", code="audio_too_long")

    async def put(self, pcm: bytes) -> None:
        """Add samples."""
        self._size += len(pcm)
        self._waiting += pcm
        if len(self._waiting) > _IN_MEMORY_BYTES:
            await self._flush()

    async def file(self) -> BinaryIO:
        """Return the recording as a WAV file, which lasts until this is closed.

        Raises:
            InvalidInputError: there is no sample.
        """
        if not self._size:
            raise InvalidInputError("Invalid 'audio': there is none.", param="audio", code="no_audio")
        await self._flush()
        kind = self._kind
        frame = kind.width * kind.channels
        facts = (_PCM, kind.channels, kind.rate, kind.rate * frame, frame, 8 * kind.width)
        riff = self._size + _HEADER.size - 8
        self._spool.seek(0)
        self._spool.write(_HEADER.pack(b"RIFF", riff, b"WAVE", b"fmt ", _FORMAT_BYTES, *facts, b"data", self._size))
        return cast("BinaryIO", self._spool)

    def close(self) -> None:
        """Give back what it takes."""
        self._spool.close()

    async def _flush(self) -> None:
        data = bytes(self._waiting)
        self._waiting.clear()
        if self._size <= _IN_MEMORY_BYTES:
            self._spool.write(data)
            return
        # Waited for even when cancelled: the file must not be closed under the thread.
        running = asyncio.get_running_loop().run_in_executor(None, self._spool.write, data)
        await settle(running)
        running.result()


class Hearing:
    """A recording to write down.

    Args:
        parts: of the server.
        choices: the models.
        asked: which of them, and how.
        tape: the recording, complete; None if none came.
    """

    service: Service = "transcription"

    def __init__(self, parts: "Services", choices: Choices, asked: Listening, tape: Tape | None) -> None:
        self._parts = parts
        self._choices = choices
        self._asked = asked
        self._tape = tape

    async def run(self, wire: Wire) -> None:
        """Write it down: as it is decoded, and then whole.

        Raises:
            InvalidInputError: there is no audio, or it is too short.
        """
        model = chosen(self._choices, self._asked)
        if self._tape is None:
            raise InvalidInputError("Invalid 'audio': there is none.", param="audio", code="no_audio")
        file = await self._tape.file()
        limits = self._parts.settings.transcription
        async with AsyncExitStack() as stack:
            opened = recording(file, max_audio_s=limits.max_audio_s, param="audio")
            try:
                heard = await stack.enter_async_context(opened)
            except InvalidInputError as error:
                message = f"Invalid 'audio': {error.message}."
                raise InvalidInputError(message, param="audio", code=error.code) from error
            if (timeout_s := limits.timeout_s(self._tape.seconds)) is not None:
                current().within(timeout_s)
            await self._write_down(wire, model, heard)

    async def _write_down(self, wire: Wire, model: Model, heard: Recording) -> None:
        request = self._asked.request()
        transcription = Transcription(self._parts.engine, model, request, heard)
        language, begun, held = request.language, False, ""
        async with aclosing(transcription.segments()) as segments:
            async for segment in segments:
                if not begun:
                    language = segment.language or language
                    await wire.write(TranscriptStart(language=language))
                # White space at either end is no text.
                text = held + segment.text if begun else segment.text.lstrip()
                piece = text.rstrip()
                begun, held = True, text[len(piece) :]
                if piece:
                    await wire.write(TranscriptChunk(text=piece))
        if not begun:
            await wire.write(TranscriptStart(language=language))
        whole = transcription.transcript.text
        await wire.write(Transcript(text=whole, language=language), TranscriptStop())

    async def after(self, wire: Wire) -> None:
        """Do nothing: the transcript was the end."""

    def close(self) -> None:
        """Give back the recording."""
        if self._tape is not None:
            self._tape.close()


def chosen(choices: Choices, asked: Listening) -> Model:
    """Return the model that a client asks for; raises as `Choices.listener`, and for what is no language."""
    return choices.listener(asked.name, language_code(asked.language))
