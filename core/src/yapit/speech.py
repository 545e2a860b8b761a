"""From text to encoded speech: sentences, the engine, seams, tempo, one encoder for the whole response."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from yapit import text
from yapit.audio import PCM_RATE, Encoder, Joiner, Tempo, encode
from yapit.catalog import Model
from yapit.engine import Engine
from yapit.errors import BackendError
from yapit.schemas import AudioChunk, SynthesizeRequest, Word, WordSource
from yapit.settling import settle
from yapit.tasks import SYNTHESIZE

_AHEAD = 8  # parts not yet encoded and sent with which the next piece of text may be started
_FIRST_CHARS = 80  # a short first piece is heard early
_FIRST_SLICE_S, _LONGEST_SLICE_S = 0.06, 1.92  # of audio that is encoded at once
_FIRST_MP3_SLICE_S = 0.1  # from less, LAME makes nothing
_TOKENS_PER_S = 20
_INLINE = {"pcm", "wav"}  # formats whose encoding costs less than the hop to a thread
# A word, or one character of the scripts that put no spaces between words.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+(?:['\u2019.-][^\W_]+)*"
)


class Utterance(Struct, frozen=True, kw_only=True):
    """What shall be said, by which model, and how it shall be encoded; `words` asks for word times."""

    model: Model
    text: str
    voice: str | None = None
    language: str | None = None
    speed: float = 1.0
    instructions: str | None = None
    options: dict[str, Any] = {}
    format: str = "mp3"
    words: bool = False

    @property
    def own_speed(self) -> float:
        """The part of the speed that the model's adapter honours itself."""
        slow, fast = self.model.speed_range
        return min(max(self.speed, slow), fast)


class Part(Struct, frozen=True):
    """A stretch of the encoded response and the words whose times have become known."""

    audio: bytes
    words: tuple[Word, ...] = ()


class SpeechUsage(Struct, frozen=True, kw_only=True):
    """What an utterance took: characters read, seconds of speech made.

    `input_tokens` counts characters, `output_tokens` twentieths of a second: speech models have no token in common.
    """

    input_characters: int
    audio_seconds: float

    @property
    def input_tokens(self) -> int:
        """Characters."""
        return self.input_characters

    @property
    def output_tokens(self) -> int:
        """Twentieths of a second, begun ones counted."""
        return -int(-self.audio_seconds * _TOKENS_PER_S // 1)


class Speech:
    """One response in the making: iterate `parts`, or await `complete`; then `usage` and `word_source` are final."""

    def __init__(self, engine: Engine, utterance: Utterance) -> None:
        self._engine = engine
        self._utterance = utterance
        self._samples = 0
        self._sample_rate = utterance.model.sample_rate or PCM_RATE
        self._slice_s = _FIRST_MP3_SLICE_S if utterance.format == "mp3" else _FIRST_SLICE_S
        self.word_source: WordSource = "native"

    @property
    def usage(self) -> SpeechUsage:
        """What was made so far."""
        return SpeechUsage(input_characters=len(self._utterance.text), audio_seconds=self._samples / self._sample_rate)

    async def parts(self) -> AsyncGenerator[Part, None]:
        """Yield the encoded response while it is made."""
        encoder = Encoder(self._utterance.format, self._sample_rate)
        opening = self._open(encoder)
        try:
            async with aclosing(self._pcm()) as stream:
                async for part in stream:
                    await opening
                    if encoder.sample_rate != self._sample_rate:
                        # The catalog does not say, or is wrong about, what the model makes.
                        encoder.close()
                        encoder = Encoder(self._utterance.format, self._sample_rate)
                    words = part.words
                    for pcm in self._slices(part.audio):
                        audio = await self._off_loop(encoder.encode, pcm)
                        if audio:
                            self._slice_s = min(2 * self._slice_s, _LONGEST_SLICE_S)
                        if audio or words:
                            yield Part(audio, words)
                            words = ()
            await opening
            audio = await self._off_loop(encoder.finish)
            if audio:
                yield Part(audio)
        finally:
            await settle(opening)
            encoder.close()

    def _open(self, encoder: Encoder) -> asyncio.Future[None]:
        """Open a codec while the model makes its first chunk."""
        loop = asyncio.get_running_loop()
        if self._utterance.format not in _INLINE:
            return loop.run_in_executor(None, encoder.open)
        done = loop.create_future()
        done.set_result(None)
        return done

    def _slices(self, pcm: bytes) -> Iterator[bytes]:
        """Cut what a slow codec gets, so that its first bytes come early, however long the model's first chunk is."""
        if self._utterance.format in _INLINE:
            yield pcm
            return
        start = 0
        while start == 0 or start < len(pcm):
            size = round(self._slice_s * self._sample_rate) * 2
            yield pcm[start : start + size]
            start += size

    async def complete(self) -> Part:
        """Return the whole response, with exact sizes in its header where the format has them."""
        pcm, words = list[bytes](), list[Word]()
        async with aclosing(self._joined()) as stream:
            async for part in stream:
                pcm.append(part.audio)
                words += part.words
        audio = await self._off_loop(encode, b"".join(pcm), self._utterance.format, self._sample_rate)
        return Part(audio, tuple(words))

    async def _off_loop(self, function: Callable[..., bytes], *arguments: Any) -> bytes:
        if self._utterance.format in _INLINE:
            return function(*arguments)
        # Waited for even when cancelled: the codec must not be freed while its thread is inside it.
        running = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
        await settle(running)
        return running.result()

    async def _pcm(self) -> AsyncGenerator[Part, None]:
        """Yield the joined speech while a task makes it, always a whole piece of text at a time.

        So a listener who reads slowly holds back the next piece, and never a slot that others wait for.
        """
        made: asyncio.Queue[Part | None] = asyncio.Queue()
        room = asyncio.Event()

        async def until_room() -> None:
            while made.qsize() > _AHEAD:
                room.clear()
                await room.wait()

        async def make() -> None:
            try:
                async with aclosing(self._joined(until_room)) as stream:
                    async for part in stream:
                        made.put_nowait(part)
            finally:
                made.put_nowait(None)

        making = asyncio.create_task(make(), name="speech")
        try:
            while (part := await made.get()) is not None:
                room.set()
                yield part
            await making
        finally:
            making.cancel()
            await settle(making)

    async def _joined(self, before_piece: Callable[[], Awaitable[None]] | None = None) -> AsyncGenerator[Part, None]:
        """Yield the speech of one piece of text after the other as PCM at the model's rate."""
        said = self._utterance
        track: _Track | None = None
        offset = 0
        for piece, last in _marked(text.split(said.text, first_chars=_FIRST_CHARS)):
            if before_piece is not None:
                await before_piece()
            begun = False
            async with aclosing(self._engine.stream(SYNTHESIZE, said.model, self._request(piece))) as chunks:
                async for chunk in chunks:
                    assert isinstance(chunk, AudioChunk)  # noqa: S101 - the executor checked it; this tells mypy
                    if track is None:
                        self._sample_rate = chunk.sample_rate
                        track = _Track(chunk.sample_rate, said.speed / said.own_speed, words=said.words)
                    if not begun:
                        track.begin(piece, offset, last=last)
                        begun = True
                    part = track.push(chunk)
                    if part.audio or part.words:
                        self._samples += len(part.audio) // 2
                        yield part
            if track is not None and begun and (words := track.end()):
                yield Part(b"", words)
            offset += len(piece)
        if track is not None:
            self.word_source = track.word_source
            rest = track.finish()
            if rest:
                self._samples += len(rest) // 2
                yield Part(rest)

    def _request(self, piece: str) -> SynthesizeRequest:
        said = self._utterance
        return SynthesizeRequest(
            text=piece,
            voice=said.voice,
            language=said.language,
            speed=said.own_speed,
            instructions=said.instructions,
            options=said.options,
        )


class _Track:
    """The time line of a response: seams, tempo, and the words' places on it."""

    def __init__(self, sample_rate: int, tempo: float, *, words: bool) -> None:
        self._rate = sample_rate
        self._factor = tempo
        self._joiner = Joiner(sample_rate)
        self._tempo = Tempo(sample_rate, tempo)
        self._wanted = words
        self._piece = ""
        self._offset = 0
        self._samples = 0
        self._native = False
        self._last: Word | None = None
        self.word_source: WordSource = "native"

    def begin(self, piece: str, offset: int, *, last: bool) -> None:
        """Start a piece, which stands at `offset` in the whole text."""
        self._joiner.begin(last=last)
        self._piece, self._offset, self._samples, self._native = piece, offset, 0, False

    def push(self, chunk: AudioChunk) -> Part:
        """Return what of the chunk, and of what was held back, is ready."""
        if chunk.sample_rate != self._rate:
            raise BackendError(f"The model changed its sample rate from {self._rate} to {chunk.sample_rate} Hz.")
        self._samples += len(chunk.pcm) // 2
        audio = self._tempo.process(self._joiner.push(chunk.pcm))
        if not (self._wanted and chunk.words):
            return Part(audio)
        self._native = True
        # The last word waits: where its piece ends is known at the end of the piece.
        known = [] if self._last is None else [self._last]
        known += [self._placed(word) for word in chunk.words]
        self._last = known.pop()
        return Part(audio, tuple(known))

    def end(self) -> tuple[Word, ...]:
        """Return the last word of the piece, or all, estimated, if they are wanted and its model did not say them."""
        if self._last is not None:
            word, self._last = self._last, None
            # Models count the silence after a word as its own; some of it has been cut.
            end_s = round(min(word.end_s, self._joiner.joined_s / self._factor), 3)
            return (msgspec.structs.replace(word, start_s=min(word.start_s, end_s), end_s=end_s),)
        if not self._wanted or self._native:
            return ()
        self.word_source = "estimated"
        seconds_per_character = self._samples / self._rate / max(1, len(self._piece))
        estimates = (
            Word(
                text=match[0],
                start_s=match.start() * seconds_per_character,
                end_s=match.end() * seconds_per_character,
                offset=match.start(),
            )
            for match in _WORD.finditer(self._piece)
        )
        return tuple(self._placed(word) for word in estimates)

    def finish(self) -> bytes:
        """Return what is still held back."""
        return self._tempo.process(self._joiner.finish()) + self._tempo.finish()

    def _placed(self, word: Word) -> Word:
        shift = self._joiner.offset_s
        return Word(
            text=word.text,
            start_s=round(max(0.0, word.start_s + shift) / self._factor, 3),
            end_s=round(max(0.0, word.end_s + shift) / self._factor, 3),
            offset=word.offset + self._offset,
        )


def _marked(pieces: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Yield each piece and whether it is the last."""
    piece = next(pieces, None)
    while piece is not None:
        following = next(pieces, None)
        yield piece, following is None
        piece = following
