"""Transcripts as clients read them: JSON, text and subtitles."""

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from yapit.schemas import LikelyToken, Segment
from yapit.subtitles import captions
from yapit.transcription import Transcript

Form = Literal["json", "text", "srt", "verbose_json", "vtt"]
FORMS: tuple[Form, ...] = get_args(Form)
Granularity = Literal["word", "segment"]
_TOKENS_PER_S = 10  # of audio, as OpenAI counts
_WINDOW_S = 30  # of what a model that says nothing of windows may have listened to at once
_FRAMES_PER_S = 100
_IMPOSSIBLE = -9999.0  # JSON has no infinity
_encode = msgspec.json.Encoder().encode


class Duration(Struct, frozen=True, kw_only=True, tag_field="type", tag="duration"):
    """What a transcript took: seconds of audio, a begun one counted."""

    seconds: int


class InputDetails(Struct, frozen=True, kw_only=True):
    """What the tokens that were read are."""

    text_tokens: int
    audio_tokens: int


class Tokens(Struct, frozen=True, kw_only=True, tag_field="type", tag="tokens"):
    """The same in tokens: one that was read is a tenth of a second of audio."""

    input_tokens: int
    input_token_details: InputDetails
    output_tokens: int
    total_tokens: int


class Logprob(Struct, frozen=True, kw_only=True):
    """A token, its log-probability and its UTF-8."""

    token: str
    logprob: float
    bytes: list[int]


class PlainTranscript(Struct, frozen=True, kw_only=True):
    """The text; `logprobs` if they were asked for."""

    text: str
    logprobs: list[Logprob] | UnsetType = UNSET
    usage: Duration


class TimedWord(Struct, frozen=True, kw_only=True):
    """When a word is heard, in seconds."""

    word: str
    start: float
    end: float


class TimedSegment(Struct, frozen=True, kw_only=True):
    """A stretch of the transcript, in seconds; `seek` is where the model's window begins, in hundredths of one."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseTranscript(Struct, frozen=True, kw_only=True):
    """The text with its language and times; `words` and `segments` as they were asked for."""

    task: Literal["transcribe", "translate"]
    language: str
    duration: float
    text: str
    words: list[TimedWord] | UnsetType = UNSET
    segments: list[TimedSegment] | UnsetType = UNSET
    usage: Duration


def written(transcript: Transcript, form: Form, granularities: Iterable[Granularity] = ()) -> bytes:
    """Return the transcript in one of the forms; `granularities` say what the verbose one has."""
    match form:
        case "text":
            return f"{transcript.text}\n".encode()
        case "srt" | "vtt":
            return captions(transcript.segments, form).encode()
        case "verbose_json":
            return _encode(_verbose(transcript, set(granularities) or {"segment"}))
        case "json":
            return _encode(_plain(transcript))


def logprobs(tokens: Sequence[LikelyToken]) -> list[Logprob]:
    """Return the tokens as clients read them."""
    return [
        Logprob(
            token=token.text, logprob=_finite(token.logprob, _IMPOSSIBLE), bytes=list(token.data or token.text.encode())
        )
        for token in tokens
    ]


def token_usage(transcript: Transcript) -> Tokens:
    """Return what the transcript took, in tokens."""
    read = math.ceil(transcript.duration_s * _TOKENS_PER_S)
    return Tokens(
        input_tokens=read,
        input_token_details=InputDetails(text_tokens=0, audio_tokens=read),
        output_tokens=transcript.output_tokens,
        total_tokens=read + transcript.output_tokens,
    )


def _plain(transcript: Transcript) -> PlainTranscript:
    asked = transcript.request.logprobs
    return PlainTranscript(
        text=transcript.text,
        logprobs=logprobs(transcript.logprobs) if asked else UNSET,
        usage=_duration(transcript),
    )


def _verbose(transcript: Transcript, granularities: set[Granularity]) -> VerboseTranscript:
    words = [
        TimedWord(word=word.text.strip(), start=round(word.start_s, 3), end=round(word.end_s, 3))
        for word in transcript.words
    ]
    segments = [_segment(number, segment, transcript) for number, segment in enumerate(transcript.segments)]
    return VerboseTranscript(
        task="translate" if transcript.request.translate else "transcribe",
        language=transcript.language,
        duration=round(transcript.duration_s, 3),
        text=transcript.text,
        words=words if "word" in granularities else UNSET,
        segments=segments if "segment" in granularities else UNSET,
        usage=_duration(transcript),
    )


def _segment(number: int, segment: Segment, transcript: Transcript) -> TimedSegment:
    window_s = segment.window_start_s
    if window_s is None:
        window_s = segment.start_s // _WINDOW_S * _WINDOW_S
    temperature = segment.temperature if segment.temperature is not None else transcript.request.temperature
    return TimedSegment(
        id=number,
        seek=round(window_s * _FRAMES_PER_S),
        start=round(segment.start_s, 3),
        end=round(segment.end_s, 3),
        text=segment.text,
        tokens=list(segment.tokens),
        temperature=_finite(temperature),
        avg_logprob=_average_logprob(segment),
        compression_ratio=_compression_ratio(segment),
        no_speech_prob=_finite(segment.no_speech_probability),
    )


def _average_logprob(segment: Segment) -> float:
    if segment.average_logprob is None and segment.token_logprobs:
        return _finite(
            sum(token.logprob for token in segment.token_logprobs) / len(segment.token_logprobs), _IMPOSSIBLE
        )
    return _finite(segment.average_logprob, _IMPOSSIBLE if segment.average_logprob is not None else 0.0)


def _compression_ratio(segment: Segment) -> float:
    if segment.compression_ratio is not None:
        return _finite(segment.compression_ratio)
    data = segment.text.encode()
    return len(data) / len(zlib.compress(data))


def _duration(transcript: Transcript) -> Duration:
    return Duration(seconds=math.ceil(transcript.duration_s))


def _finite(value: float | None, otherwise: float = 0.0) -> float:
    return value if value is not None and math.isfinite(value) else otherwise
