"""`/v1/audio/speech`: text in; audio, events or timed words out."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Router, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, Schema
from litestar.params import FromQuery, JSONBody, QueryParameter
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from yapit.audio import FORMATS
from yapit.errors import InvalidInputError, YapitError
from yapit.schemas import Word
from yapit.server.problems import PROBLEMS, envelope
from yapit.server.requests import keep_loaded
from yapit.server.responses import ChunkedResponse, sse
from yapit.server.services import Services, services
from yapit.speech import Speech, SpeechUsage, Utterance
from yapit.subtitles import subtitles
from yapit.timeline import Part

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
SubtitleFormat = Literal["srt", "vtt"]
StreamFormat = Literal["audio", "sse"]
Speed = Annotated[float, Meta(ge=0.25, le=4)]
_SUBTITLES = {"srt": "text/plain; charset=utf-8", "vtt": "text/vtt; charset=utf-8"}
_JSON = "application/json"
_STREAMED = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
_encode = msgspec.json.Encoder().encode


class VoiceReference(Struct, frozen=True):
    """A voice by id, as OpenAI's clients may write it."""

    id: str


class Saying(Struct, frozen=True, kw_only=True):
    """What to say; a null field counts as absent, an unknown one is ignored.

    Args:
        model: id or alias of a model that speaks.
        input: the text.
        voice: one of the model's, or a name of the voice map; the model's default when absent.
        speed: 1.0 is as spoken.
        instructions: how to say it, for models that take direction.
        language: BCP 47, where the voice does not say it.
        options: the model's own parameters.
        keep_alive: how long the model stays loaded after this, when idle: seconds, or `10m`.
    """

    model: str
    input: str
    voice: str | VoiceReference | None = None
    speed: Speed | None = None
    instructions: Annotated[str, Meta(max_length=4096)] | None = None
    language: str | None = None
    options: dict[str, Any] | None = None
    keep_alive: str | float | None = None


class SpeechBody(Saying, frozen=True, kw_only=True):
    """What to say and how to send it.

    Args:
        response_format: mp3 when absent.
        stream_format: the bytes themselves, or server-sent events.
        stream: false returns the response in one piece, with its length.
        return_timestamps: the words' times, in each event or in the JSON that `/timestamps` returns.
    """

    response_format: AudioFormat | None = None
    stream_format: StreamFormat | None = None
    stream: bool | None = None
    return_timestamps: bool | None = None


class TimestampsBody(Saying, frozen=True, kw_only=True):
    """What to say; `response_format` is an audio format for JSON with audio and words, or `srt` or `vtt`."""

    response_format: AudioFormat | SubtitleFormat | None = None


class WordTime(Struct, frozen=True):
    """When a word is heard, in seconds of the response; `offset` is its first character's index in `input`."""

    word: str
    start: float
    end: float
    offset: int


class Usage(Struct, frozen=True, kw_only=True):
    """What the response took: a token read is a character, a token written a twentieth of a second."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_characters: int
    audio_seconds: float


class SpeechDelta(Struct, frozen=True, kw_only=True, tag="speech.audio.delta", omit_defaults=True):
    """An event: base64 audio, and the words whose times have become known, if they were asked for."""

    audio: bytes
    words: list[WordTime] = []


class SpeechDone(Struct, frozen=True, kw_only=True, tag="speech.audio.done", omit_defaults=True):
    """The last event; `word_source` says whether the words' times are the model's own."""

    usage: Usage
    word_source: Literal["native", "estimated"] | None = None


class TimedSpeech(Struct, frozen=True, kw_only=True):
    """Speech in one piece with the times of its words; `audio` is base64."""

    audio: bytes
    format: str
    duration: float
    word_source: Literal["native", "estimated"]
    words: list[WordTime]
    usage: Usage


@dataclass
class _SpeechOperation(Operation):
    """Documents every content type of the audio response."""

    def __post_init__(self) -> None:
        binary = Schema(type="string", format="binary")  # type: ignore[arg-type]  # a plain OpenAPI type name
        types = [*(known.media_type for known in FORMATS.values()), "text/event-stream"]
        self.responses["200"].content = {  # type: ignore[index, union-attr]  # filled by Litestar before this runs
            **{media_type: OpenAPIMediaType(schema=binary) for media_type in types},
            **(self.responses["200"].content or {}),  # type: ignore[index, union-attr]
        }


@post(
    ["/v1/audio/speech", "/audio/speech"],
    status_code=200,
    responses={200: ResponseSpec(TimedSpeech, description="Audio, events, or timed words."), **PROBLEMS},
    operation_class=_SpeechOperation,
    tags=["audio"],
)
async def create_speech(request: Request[Any, Any, Any], data: JSONBody[SpeechBody]) -> ASGIApp:
    """Speak `input`: streamed as it is made unless `stream` is false."""
    audio_format = data.response_format or "mp3"
    timed = bool(data.return_timestamps)
    parts = services(request)
    speech = Speech(parts.engine, _utterance(parts, data, audio_format, words=timed))
    if data.stream_format == "sse":
        return ChunkedResponse(
            _events(speech, timed=timed), _same, "text/event-stream", _STREAMED, on_error=_error_event
        )
    if timed:
        return ChunkedResponse(_timed_json(speech, audio_format), _same, _JSON, whole=True)
    media_type = FORMATS[audio_format].media_type
    if data.stream is False:
        return ChunkedResponse(_complete(speech), _audio, media_type, whole=True)
    return ChunkedResponse(speech.parts(), _audio, media_type, _STREAMED)


@post(
    status_code=200,
    responses={200: ResponseSpec(TimedSpeech, description="Audio and words, or subtitles."), **PROBLEMS},
    tags=["audio"],
)
async def create_timestamps(request: Request[Any, Any, Any], data: JSONBody[TimestampsBody]) -> ASGIApp:
    """Speak `input` and say when each word is heard, as JSON with base64 audio, or as srt or vtt subtitles."""
    return _timestamps(services(request), data)


@get(
    responses={200: ResponseSpec(TimedSpeech, description="Audio and words, or subtitles."), **PROBLEMS},
    tags=["audio"],
)
async def get_timestamps(
    request: Request[Any, Any, Any],
    model: FromQuery[str],
    text: Annotated[str, QueryParameter(name="input")],
    voice: FromQuery[str | None] = None,
    response_format: FromQuery[AudioFormat | SubtitleFormat | None] = None,
    speed: FromQuery[Speed | None] = None,
) -> ASGIApp:
    """Do the same for a link, such as the `src` of an HTML track."""
    body = TimestampsBody(model=model, input=text, voice=voice, response_format=response_format, speed=speed)
    return _timestamps(services(request), body)


def _timestamps(parts: Services, body: TimestampsBody) -> ASGIApp:
    wanted = body.response_format or "mp3"
    if wanted == "srt" or wanted == "vtt":  # noqa: PLR1714 - mypy narrows a Literal by comparison only
        speech = Speech(parts.engine, _utterance(parts, body, "pcm", words=True))
        return ChunkedResponse(_subtitles(speech, body.input, wanted), _same, _SUBTITLES[wanted], whole=True)
    speech = Speech(parts.engine, _utterance(parts, body, wanted, words=True))
    return ChunkedResponse(_timed_json(speech, wanted), _same, _JSON, whole=True)


def _utterance(parts: Services, body: Saying, audio_format: str, *, words: bool) -> Utterance:
    model = parts.engine.catalog[body.model]
    keep_loaded(body.keep_alive)
    check_text(body.input, parts.settings.speech.max_input_chars)
    wanted = body.voice.id if isinstance(body.voice, VoiceReference) else body.voice
    return Utterance(
        model=model,
        text=body.input,
        voice=parts.voices.resolve(model, wanted, body.language),
        language=body.language,
        speed=1.0 if body.speed is None else body.speed,
        instructions=body.instructions,
        options=body.options or {},
        format=audio_format,
        words=words,
    )


def check_text(text: str, limit: int) -> None:
    """Raise `InvalidInputError` if `text` has nothing to say or more than `limit` characters (0 = no limit)."""
    if not text.strip():
        raise InvalidInputError("Invalid 'input': there is nothing to say in it.", param="input", code="empty_input")
    if limit and len(text) > limit:
        message = (
            f"Invalid 'input': string too long. Expected a string with maximum length {limit}, "
            f"but got a string with length {len(text)} instead."
        )
        raise InvalidInputError(message, param="input", code="string_above_max_length")


def _audio(part: Part) -> bytes:
    return part.audio


def _same(body: bytes) -> bytes:
    return body


async def _complete(speech: Speech) -> AsyncGenerator[Part, None]:
    yield await speech.complete()


async def _events(speech: Speech, *, timed: bool) -> AsyncGenerator[bytes, None]:
    async with aclosing(speech.parts()) as parts:
        async for part in parts:
            yield sse(_encode(SpeechDelta(audio=part.audio, words=_times(part.words))))
    source = speech.word_source if timed else None
    yield sse(_encode(SpeechDone(usage=_usage(speech.usage), word_source=source)))


async def _timed_json(speech: Speech, audio_format: str) -> AsyncGenerator[bytes, None]:
    part = await speech.complete()
    yield _encode(
        TimedSpeech(
            audio=part.audio,
            format=audio_format,
            duration=round(speech.usage.audio_seconds, 3),
            word_source=speech.word_source,
            words=_times(part.words),
            usage=_usage(speech.usage),
        )
    )


async def _subtitles(speech: Speech, text: str, kind: SubtitleFormat) -> AsyncGenerator[bytes, None]:
    yield subtitles(text, (await speech.complete()).words, kind).encode()


def _error_event(error: YapitError) -> bytes:
    return sse(_encode(envelope(error)))


def _times(words: tuple[Word, ...]) -> list[WordTime]:
    return [WordTime(word.text, word.start_s, word.end_s, word.offset) for word in words]


def _usage(usage: SpeechUsage) -> Usage:
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_characters=usage.input_characters,
        audio_seconds=round(usage.audio_seconds, 3),
    )


ROUTES: list[HTTPRouteHandler | Router] = [
    create_speech,
    # In routers, so that what Litestar answers to OPTIONS names both methods.
    *(
        Router(path=f"{prefix}/audio/speech/timestamps", route_handlers=[create_timestamps, get_timestamps])
        for prefix in ("/v1", "")
    ),
]
