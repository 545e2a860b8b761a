"""Text becomes audio events: a whole text, or one that comes bit by bit and is spoken as its sentences end."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

from msgspec import Struct
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.tts import SynthesizeStopped

from yapit import DeadlineError, InvalidInputError, YapitError
from yapit.audio import PCM_RATE
from yapit.speech import Speech, Utterance
from yapit.tasks import SYNTHESIZE
from yapit.text import split
from yapit_plugin_wyoming.choosing import Choices, Speaker, VoiceWish
from yapit_plugin_wyoming.options import Service
from yapit_plugin_wyoming.wire import Wire

if TYPE_CHECKING:
    from yapit.server.services import Services

_WIDTH, _CHANNELS = 2, 1
_CHUNK_BYTES = 8192  # 170 ms: satellites play chunk by chunk
_SENTENCE_CHARS = 300
_MOST_CHARS = 1_000_000  # that wait to be spoken, where the settings have no limit
_GOES_ON = re.compile(r"\w.*\s|[^\s].{11}", re.DOTALL)  # a word that has ended, or as much without a space


class Manner(Struct, frozen=True, kw_only=True):
    """The data of `synthesize-start`: how to say what will come."""

    voice: VoiceWish | None = None
    text_format: str | None = None


class Words(Struct, frozen=True, kw_only=True):
    """The data of `synthesize-chunk`."""

    text: str


class Whole(Manner, frozen=True, kw_only=True):
    """The data of `synthesize`."""

    text: str


class Saying:
    """A text to speak.

    Args:
        parts: of the server.
        choices: the voices.
        asked: the text, and who shall speak it.
    """

    service: Service = "speech"

    def __init__(self, parts: "Services", choices: Choices, asked: Whole) -> None:
        self._parts = parts
        self._choices = choices
        self._asked = asked

    async def run(self, wire: Wire) -> None:
        """Speak it.

        Raises:
            InvalidInputError: there is no such voice, nothing to say or too much.
        """
        speaker = _speaker(self._choices, self._asked)
        check_length(len(self._asked.text), self._parts.settings.speech.max_input_chars)
        if not self._asked.text.strip():
            raise _nothing()
        sound = _Sound(wire)
        await sound.say(self._parts, speaker, self._asked.text)
        await sound.end()

    async def after(self, wire: Wire) -> None:
        """Do nothing: the audio has ended."""

    def close(self) -> None:
        """Do nothing."""


class Streaming:
    """A text to speak while it comes.

    Args:
        parts: of the server.
        choices: the voices.
        asked: who shall speak.
        patience_s: seconds to wait for more text.
    """

    service: Service = "speech"

    def __init__(self, parts: "Services", choices: Choices, asked: Manner, patience_s: float) -> None:
        self._parts = parts
        self._choices = choices
        self._asked = asked
        self._patience_s = patience_s
        self._text = ""  # that is not yet spoken
        self._length = 0
        self._error: YapitError | None = None
        self._ended = False
        self._news = asyncio.Event()

    def feed(self, text: str) -> None:
        """Take more text; what is too much is known to `run`."""
        if self._error is not None:
            return
        self._length += len(text)
        try:
            check_length(self._length, self._parts.settings.speech.max_input_chars)
            check_length(len(self._text) + len(text), _MOST_CHARS)
        except InvalidInputError as error:
            self._error, self._text = error, ""
        else:
            self._text += text
        self._news.set()

    def end(self) -> None:
        """Take no more text."""
        self._ended = True
        self._news.set()

    async def run(self, wire: Wire) -> None:
        """Speak each sentence as soon as it is known to have ended.

        Raises:
            InvalidInputError: there is no such voice, nothing to say or too much.
            DeadlineError: the text did not go on.
        """
        speaker = _speaker(self._choices, self._asked)
        sound = _Sound(wire)
        said = False
        async with AsyncExitStack() as stack:
            sentences = await stack.enter_async_context(aclosing(self._sentences()))
            async for text in sentences:
                if not said and not self._ended:
                    # From sentence to sentence, however long the next one takes to come.
                    await stack.enter_async_context(self._parts.engine.hold(SYNTHESIZE, speaker.model))
                said = True
                await sound.say(self._parts, speaker, text)
        if not said:
            raise _nothing()
        await sound.end()

    async def after(self, wire: Wire) -> None:
        """Take the rest of the text, if there was an error, and say that this is the end."""
        self._error, self._text = self._error or _nothing(), ""
        while not self._ended:
            await self._wait()
        await wire.write(SynthesizeStopped())

    def close(self) -> None:
        """Do nothing."""

    async def _sentences(self) -> AsyncGenerator[str, None]:
        """Yield what has ended, each time all of it."""
        while True:
            if self._error is not None:
                raise self._error
            ended, ready = self._ended, self._ready()
            self._text = self._text[len(ready) :]
            if ready.strip():
                yield ready
            elif ended:
                return
            else:
                await self._wait()

    def _ready(self) -> str:
        """Return the sentences after which the text has gone on, or all of it if nothing more comes."""
        if self._ended:
            return self._text
        pieces = list(split(self._text, first_chars=_SENTENCE_CHARS, max_chars=_SENTENCE_CHARS))
        rest = pieces.pop() if pieces else ""
        # With less, what seems to end a sentence may be an abbreviation's dot.
        return "".join(pieces) if _GOES_ON.match(rest.lstrip()) else ""

    async def _wait(self) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(self._patience_s):
                await self._news.wait()
        except TimeoutError as error:
            message = f"Nothing more of the text came for {self._patience_s:g} s."
            raise DeadlineError(message, code="idle_timeout") from error


class _Sound:
    """The audio of one answer, whose events begin with the first of it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._begun = False

    async def say(self, parts: "Services", speaker: Speaker, text: str) -> None:
        said = Utterance(model=speaker.model, text=text, voice=speaker.voice, language=speaker.language, format="pcm")
        async with aclosing(Speech(parts.engine, said).parts()) as made:
            async for part in made:
                await self._send(part.audio)

    async def end(self) -> None:
        await self._begin()
        await self._wire.write(AudioStop())

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._wire.write(AudioStart(rate=PCM_RATE, width=_WIDTH, channels=_CHANNELS))

    async def _send(self, pcm: bytes) -> None:
        if pcm:
            await self._begin()
        for start in range(0, len(pcm), _CHUNK_BYTES):
            chunk = pcm[start : start + _CHUNK_BYTES]
            await self._wire.write(AudioChunk(rate=PCM_RATE, width=_WIDTH, channels=_CHANNELS, audio=chunk))


def _speaker(choices: Choices, asked: Manner) -> Speaker:
    if asked.text_format not in (None, "", "text"):
        message = f"Invalid 'text_format': '{asked.text_format}' is not supported; send plain text."
        raise InvalidInputError(message, param="text_format")
    return choices.speaker(asked.voice)


def check_length(length: int, limit: int) -> None:
    """Raise `InvalidInputError` if a text of this many characters is longer than `limit` (0 = no limit)."""
    if limit and length > limit:
        message = (
            f"Invalid 'text': string too long. Expected a string with maximum length {limit}, "
            f"but got a string with length {length} instead."
        )
        raise InvalidInputError(message, param="text", code="string_above_max_length")


def _nothing() -> InvalidInputError:
    return InvalidInputError("Invalid 'text': there is nothing to say in it.", param="text", code="empty_input")
