"""From a recording to a transcript: decoding, the engine, and what is written of it."""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from yapit.catalog import Model
from yapit.engine import Engine
from yapit.errors import BackendError
from yapit.schemas import LikelyToken, Segment, TranscribeRequest, Word
from yapit.tasks import TASKS, TRANSCRIBE
from yapit.transcription.languages import language_code, language_name
from yapit.transcription.recordings import SAMPLE_RATE, Recording, recording

__all__ = ["SAMPLE_RATE", "Recording", "Transcript", "Transcription", "language_code", "language_name", "recording"]

_FILLED = ("language", "prompt", "temperature")
_KNOWN = {field.name for task in TASKS.values() for field in msgspec.structs.fields(task.request)}


class Transcript:
    """What was said, as far as it is known.

    Args:
        request: what the model was asked.
        model: that was asked.
    """

    def __init__(self, request: TranscribeRequest, model: Model) -> None:
        self.request = request
        self.segments: list[Segment] = []
        self.duration_s = 0.0  # of the recording, once all of it has been heard
        self._languages = model.languages

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def language(self) -> str:
        """English name of the language of the text."""
        if self.request.translate:
            return "english"
        heard = next((segment.language for segment in self.segments if segment.language), None)
        only = self._languages[0] if len(self._languages) == 1 else None
        return language_name(heard or self.request.language or only)

    @property
    def words(self) -> list[Word]:
        """The words with their times, if they were asked for."""
        return [word for segment in self.segments for word in segment.words]

    @property
    def logprobs(self) -> list[LikelyToken]:
        """The tokens, if they were asked for."""
        return [token for segment in self.segments for token in segment.token_logprobs]

    @property
    def output_tokens(self) -> int:
        """Tokens of the text; of a segment whose model tells none, its words."""
        return sum(len(segment.tokens) or len(segment.text.split()) for segment in self.segments)


class Transcription:
    """One recording being written down: iterate `segments`; then `transcript` is final.

    Args:
        engine: what runs the model.
        model: that listens.
        request: all that is asked but the recording.
        heard: the recording.
    """

    def __init__(self, engine: Engine, model: Model, request: TranscribeRequest, heard: Recording) -> None:
        self._engine = engine
        self._model = model
        self._heard = heard
        asked = with_defaults(model, request)
        self._request = msgspec.structs.replace(asked, pcm=heard.pcm, path=heard.path, sample_rate=SAMPLE_RATE)
        self.transcript = Transcript(asked, model)

    async def segments(self) -> AsyncGenerator[Segment, None]:
        """Yield each stretch of the transcript as soon as the model has written it down."""
        async with aclosing(self._engine.stream(TRANSCRIBE, self._model, self._request)) as chunks:
            async for chunk in chunks:
                assert isinstance(chunk, Segment)  # noqa: S101 - the executor checked it; this tells mypy
                if not (math.isfinite(chunk.start_s) and math.isfinite(chunk.end_s)):
                    raise BackendError(f"The model '{self._model.id}' gave a time that is no number.")
                self.transcript.segments.append(chunk)
                yield chunk
        self.transcript.duration_s = await self._heard.whole()

    async def complete(self) -> Transcript:
        """Return the whole transcript."""
        async with aclosing(self.segments()) as segments:
            async for _ in segments:
                pass
        return self.transcript


def with_defaults(model: Model, request: TranscribeRequest) -> TranscribeRequest:
    """Return the request with the model's `defaults` where it says nothing.

    A default that is no field of any request is one of the model's own options.
    """
    filled: dict[str, Any] = {}
    for name in _FILLED:
        if name in model.defaults and getattr(request, name) is None:
            filled[name] = model.defaults[name]
    options = {name: value for name, value in model.defaults.items() if name not in _KNOWN}
    if options:
        filled["options"] = options | request.options
    return msgspec.structs.replace(request, **filled) if filled else request


def asked_languages(names: Sequence[str], param: str = "languages") -> tuple[str, ...]:
    """Return the codes of languages as clients write them, each once."""
    codes = [language_code(name, f"{param}[{index}]") for index, name in enumerate(names)]
    return tuple(dict.fromkeys(code for code in codes if code is not None))
