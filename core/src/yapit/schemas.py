"""What goes into an adapter and what comes out: frozen data that may cross process boundaries.

PCM is 16-bit signed little-endian mono everywhere; times are seconds from the start of the call's audio.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from msgspec import Struct, field

WordSource = Literal["native", "estimated"]


class Request(Struct, frozen=True, kw_only=True):
    """What every request carries; `options` are the model's own, passed on as the client sent them."""

    options: dict[str, Any] = {}


class Chunk(Struct, frozen=True, kw_only=True):
    """One item of an adapter's stream."""


# ── synthesize ────────────────────────────────────────────────────────────────────────────────────────────────────────
class Word(Struct, frozen=True, kw_only=True):
    """When a word is spoken.

    Args:
        text: the word as it stands in the request's text.
        start_s: seconds from the start of the audio.
        end_s: seconds from the start of the audio.
        offset: index of the word's first character in the request's text.
    """

    text: str
    start_s: float
    end_s: float
    offset: int


class SynthesizeRequest(Request, frozen=True, kw_only=True):
    """Speak `text`; `voice` is one of the model's ids, or its default when None, `speed` is 1.0 as trained."""

    text: str
    voice: str | None = None
    language: str | None = None
    speed: float = 1.0
    instructions: str | None = None


class AudioChunk(Chunk, frozen=True, kw_only=True):
    """A stretch of speech: PCM of any length at `sample_rate` Hz, and the words that begin in it, if the model knows.

    Word times count from the first sample of the call, not of the chunk.
    """

    pcm: bytes
    sample_rate: int
    words: tuple[Word, ...] = ()

    @classmethod
    def from_samples(cls, samples: Any, sample_rate: int, words: tuple[Word, ...] = ()) -> AudioChunk:
        """Return the chunk of a one-dimensional array: floats in [-1, 1] (clipped) or int16."""
        import numpy as np

        array = np.asarray(samples).reshape(-1)
        if array.dtype != np.int16:
            array = np.round(np.clip(array.astype(np.float32), -1, 1) * 32767).astype("<i2")
        return cls(pcm=array.tobytes(), sample_rate=sample_rate, words=words)


# ── transcribe ────────────────────────────────────────────────────────────────────────────────────────────────────────
class TranscribeRequest(Request, frozen=True, kw_only=True):
    """Write down, or translate to English, the speech in `pcm` at `sample_rate` Hz."""

    pcm: bytes
    sample_rate: int
    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    translate: bool = False
    word_times: bool = False


class Segment(Chunk, frozen=True, kw_only=True):
    """A stretch of transcript, with what the model computed about it."""

    text: str
    start_s: float
    end_s: float
    words: tuple[Word, ...] = ()
    language: str | None = None
    tokens: tuple[int, ...] = ()
    temperature: float | None = None
    average_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_probability: float | None = None


# ── embed ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
class EmbedRequest(Request, frozen=True, kw_only=True):
    """Embed each text, or each list of token ids; `dimensions` asks for shorter vectors."""

    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None


class Embedding(Chunk, frozen=True, kw_only=True):
    """The vector of input number `index` as little-endian float32, and the tokens it took."""

    index: int
    vector: bytes
    tokens: int


# ── generate ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class Usage(Struct, frozen=True, kw_only=True):
    """Tokens read and written by one call."""

    input_tokens: int
    output_tokens: int


class GenerateRequest(Request, frozen=True, kw_only=True):
    """Continue `messages` (OpenAI chat shape) or `prompt`, exactly one of which is set."""

    messages: tuple[dict[str, Any], ...] = ()
    prompt: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


class TextChunk(Chunk, frozen=True, kw_only=True):
    """A piece of generated text; the last one has the finish reason and the usage."""

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None


# ── rerank ────────────────────────────────────────────────────────────────────────────────────────────────────────────
class RerankRequest(Request, frozen=True, kw_only=True):
    """Score each pair of a query and a document.

    Pairs and not one query, so that requests of several clients can be one batch; an adapter that wants a query with
    its documents groups neighbours.
    """

    pairs: tuple[tuple[str, str], ...]


class Score(Chunk, frozen=True, kw_only=True):
    """The relevance, 0 to 1, of the document of pair number `index`, and the tokens it took."""

    index: int
    relevance: float
    tokens: int


# ── classify ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class ClassifyRequest(Request, frozen=True, kw_only=True):
    """Label each text, or each encoded image; `labels` are the candidates where the model takes any (zero-shot)."""

    texts: tuple[str, ...] = ()
    images: tuple[bytes, ...] = ()
    labels: tuple[str, ...] = ()


class Classification(Chunk, frozen=True, kw_only=True):
    """The labels of text, or image, number `index` with their scores, best first."""

    index: int
    scores: tuple[tuple[str, float], ...]


# ── provision ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class ProvisionRequest(Request, frozen=True, kw_only=True):
    """Bring a model to a wanted state; `plan` only says what would be done."""

    action: Literal["apply", "remove"] = "apply"
    plan: bool = False


class ProvisionState(Chunk, frozen=True, kw_only=True):
    """A state passed through on the way, with the bytes moved while downloading."""

    state: str
    message: str = ""
    bytes_done: int | None = None
    bytes_total: int | None = None
    bytes_per_s: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


RequestT = TypeVar("RequestT", bound=Request)
ChunkT = TypeVar("ChunkT", bound=Chunk)
