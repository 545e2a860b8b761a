"""From text to encoded speech: sentences, the engine, seams, tempo, one encoder for the whole response."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, Self

from msgspec import Struct

from yapit import text
from yapit.audio import PCM_RATE, Encoder, encode
from yapit.catalog import Model
from yapit.engine import Engine
from yapit.engine.cache import Layer
from yapit.errors import YapitError
from yapit.schemas import AudioChunk, SynthesizeRequest, Word, WordSource
from yapit.settling import settle
from yapit.tasks import SYNTHESIZE
from yapit.timeline import Part, Timeline

_AHEAD = 8  # parts not yet encoded and sent with which the next piece of text may be started
_FIRST_CHARS = 80  # a short first piece is heard early
_FIRST_SLICE_S, _LONGEST_SLICE_S = 0.06, 1.92  # of audio that is encoded at once
_FIRST_MP3_SLICE_S = 0.1  # from less, LAME makes nothing
_TOKENS_PER_S = 20
_INLINE = {"pcm", "wav"}  # formats whose encoding costs less than the hop to a thread


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

    @property
    def markup(self) -> bool:
        """Whether brackets in the text may be markup, which is never cut."""
        switches = (self.model.options, {**self.model.defaults, **self.options})
        return self.model.markup and all(switch.get("markup") is not False for switch in switches)


class _Made(Struct, frozen=True, array_like=True):
    """What is kept of a response: a part, and what is known when it has been made."""

    audio: bytes
    words: tuple[Word, ...]
    samples: int
    sample_rate: int
    word_source: WordSource


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

    def parts(self) -> AsyncGenerator[Part, None]:
        """Yield the encoded response while it is made."""
        return self._cached("parts") if self._engine.cache.on else self._streamed()

    async def complete(self) -> Part:
        """Return the whole response, with exact sizes in its header where the format has them."""
        if not self._engine.cache.on:
            return await self._whole()
        async with aclosing(self._cached("complete")) as parts:
            # To its end, as nothing else is kept.
            (part,) = [part async for part in parts]
        return part

    async def _cached(self, shape: Literal["parts", "complete"]) -> AsyncGenerator[Part, None]:
        """Yield an equal response that was made before, or is being made; or else make it."""
        said, engine = self._utterance, self._engine
        codec = None if said.format in _INLINE else _codec_version()
        further = (shape, said.format, said.words, said.speed, codec)
        key = await engine.keys.of(SYNTHESIZE, said.model, self._request(said.text), *further)
        layer = Layer(_Made, engine.meters.of(SYNTHESIZE, said.model).cached, outer=True)

        def make() -> AsyncGenerator[_Made, None]:
            # By another object: this one follows what is heard, which may lag behind what is made.
            return Speech(engine, said)._making(shape)  # noqa: SLF001 - one of the same class

        async with aclosing(engine.cache.stream(key, layer, make)) as items:
            async for made in items:
                self._samples, self._sample_rate, self.word_source = made.samples, made.sample_rate, made.word_source
                if made.audio or made.words or shape == "complete":
                    yield Part(made.audio, made.words)

    async def _making(self, shape: Literal["parts", "complete"]) -> AsyncGenerator[_Made, None]:
        """Make the response and yield it in the way it is kept, the final usage last."""
        if shape == "complete":
            yield self._noted(await self._whole())
            return
        async with aclosing(self._streamed()) as parts:
            async for part in parts:
                yield self._noted(part)
        yield self._noted(Part(b""))

    def _noted(self, part: Part) -> _Made:
        return _Made(part.audio, part.words, self._samples, self._sample_rate, self.word_source)

    async def _streamed(self) -> AsyncGenerator[Part, None]:
        """Make the response part by part."""
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

    async def _whole(self) -> Part:
        """Make the response in one piece."""
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
        async with _Hold(self._engine, self._utterance.model) as hold:
            timeline: Timeline | None = None
            offset = 0
            said = self._utterance
            pieces = text.split(said.text, first_chars=_FIRST_CHARS, markup=said.markup)
            for piece, last in _marked(pieces):
                if before_piece is not None:
                    await before_piece()
                begun = False
                async with aclosing(hold.stream(self._request(piece), last=last)) as chunks:
                    async for chunk in chunks:
                        timeline = timeline or self._begin(chunk.sample_rate)
                        if not begun:
                            timeline.begin(piece, offset, last=last)
                            begun = True
                        part = timeline.push(chunk)
                        if part.audio or part.words:
                            self._samples += len(part.audio) // 2
                            yield part
                if timeline is not None and begun and (words := timeline.end()):
                    yield Part(b"", words)
                offset += len(piece)
        if timeline is not None:
            self.word_source = timeline.word_source
            rest = timeline.finish()
            if rest:
                self._samples += len(rest) // 2
                yield Part(rest)

    def _begin(self, sample_rate: int) -> Timeline:
        said = self._utterance
        self._sample_rate = sample_rate
        return Timeline(sample_rate, said.speed / said.own_speed, words=said.words)

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


class _Hold:
    """Keeps the model loaded from the first piece that it is needed for to the last one."""

    def __init__(self, engine: Engine, model: Model) -> None:
        self._engine = engine
        self._model = model
        self._held = AsyncExitStack()
        self._holds = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._held.aclose()

    async def stream(self, request: SynthesizeRequest, *, last: bool) -> AsyncGenerator[AudioChunk, None]:
        """Yield the speech of one piece; after the last one nothing needs the model any more."""
        if not (self._holds or last) and not await self._engine.knows(SYNTHESIZE, self._model, request):
            await self._hold(request)
        async with aclosing(self._engine.stream(SYNTHESIZE, self._model, request)) as chunks:
            async for chunk in chunks:
                assert isinstance(chunk, AudioChunk)  # noqa: S101 - the executor checked it; this tells mypy
                yield chunk

    async def _hold(self, request: SynthesizeRequest) -> None:
        call = self._engine.meters.of(SYNTHESIZE, self._model).call(request)
        try:
            await self._held.enter_async_context(self._engine.hold(SYNTHESIZE, self._model))
        except YapitError as error:
            # The call that fails comes no further than this.
            call.end(error.code or error.type)
            raise
        self._holds = True


def _marked(pieces: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Yield each piece and whether it is the last."""
    piece = next(pieces, None)
    while piece is not None:
        following = next(pieces, None)
        yield piece, following is None
        piece = following


@cache
def _codec_version() -> str:
    """Return what may change the bytes of an encoding beside yapit."""
    return version("av")
