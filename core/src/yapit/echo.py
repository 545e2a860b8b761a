"""The built-in plugin: a voice, an ear and a mind without weights, for tests, benchmarks and first steps.

Its models answer every task with something that can be computed from the request alone.
"""

import array
import asyncio
import hashlib
import math
import re
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import msgspec

from yapit.adapters import (
    Adapter,
    Classifier,
    Context,
    Embedder,
    Provisioner,
    Reranker,
    Synthesizer,
    TextGenerator,
    Transcriber,
)
from yapit.catalog import Model, Voice
from yapit.errors import BackendError, InvalidInputError
from yapit.hookspecs import hookimpl
from yapit.schemas import (
    AudioChunk,
    Classification,
    ClassifyRequest,
    Embedding,
    EmbedRequest,
    GenerateRequest,
    LikelyToken,
    ProvisionRequest,
    ProvisionState,
    RerankRequest,
    Score,
    Segment,
    SynthesizeRequest,
    TextChunk,
    TokenLogprob,
    TranscribeRequest,
    Usage,
    Word,
)

SAMPLE_RATE = 24_000
SECONDS_PER_CHARACTER = 0.06
DIMENSIONS = 16
_MAX_DIMENSIONS = 4096
_TONES = {"low": 220.0, "high": 440.0}
_CHUNK_S = 1.0
_MODEL = Model(
    id="echo",
    backend="echo",
    tasks=("synthesize", "transcribe", "embed", "generate", "rerank", "classify"),
    voices=tuple(Voice(id=name, name=f"Sine, {hertz:.0f} Hz") for name, hertz in _TONES.items()),
    defaults={"voice": "low"},
    sample_rate=SAMPLE_RATE,
    dimensions=DIMENSIONS,
    description="A sine for each character, canned answers for the rest: no weights.",
)


@hookimpl
def register_models() -> list[Model]:
    """Return the one model that does everything."""
    return [_MODEL]


@cache
def sine(hertz: float) -> bytes:
    """Return one second of a sine at a quarter of full scale as PCM."""
    step = 2 * math.pi * hertz / SAMPLE_RATE
    return array.array("h", (round(8192 * math.sin(step * i)) for i in range(SAMPLE_RATE))).tobytes()


class _Echo(Adapter):
    """What the echo adapters share: any number of calls at once, and scripted trouble.

    `options`: `delay_s` waits before each chunk, `fail` raises after the first one, `seconds` is the speech's length,
    `max_concurrency` the number of calls at once.
    """

    max_concurrency = 1_000

    def __init__(self, model: Model, context: Context) -> None:
        self.model = model
        self.context = context
        self.delay_s = float(model.options.get("delay_s", 0))
        self.fails = bool(model.options.get("fail"))
        self.max_concurrency = int(model.options.get("max_concurrency", self.max_concurrency))

    async def _pause(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)


class EchoSynthesizer(_Echo, Synthesizer):
    """Hums: 60 ms of a sine for each character."""

    async def synthesize(self, request: SynthesizeRequest) -> AsyncIterator[AudioChunk]:
        """Yield the sine in chunks of one second."""
        second = sine(_TONES.get(request.voice or "low", _TONES["low"]))
        remaining = float(self.model.options.get("seconds", len(request.text) * SECONDS_PER_CHARACTER))
        while remaining > 0:
            await self._pause()
            samples = round(min(remaining, _CHUNK_S) * SAMPLE_RATE)
            yield AudioChunk(pcm=second[: 2 * samples], sample_rate=SAMPLE_RATE)
            if self.fails:
                raise BackendError("The echo model was told to fail.")
            remaining -= _CHUNK_S


class EchoTranscriber(_Echo, Transcriber):
    """Hears the same sentence in everything, or what its option `answer` lists: the fields of each segment.

    Further options: `segments` is how often it hears the sentence, `silence` lets it hear nothing.
    """

    def __init__(self, model: Model, context: Context) -> None:
        super().__init__(model, context)
        self.answer = msgspec.convert(model.options.get("answer", ()), tuple[Segment, ...])
        self.count = 0 if model.options.get("silence") else int(model.options.get("segments", 1))

    async def transcribe(self, request: TranscribeRequest) -> AsyncIterator[Segment]:
        """Yield segments that together are as long as the audio, or the scripted ones."""
        samples = await asyncio.to_thread(request.samples)
        length_s = len(samples) / request.sample_rate / (self.count or 1)
        heard = (_heard(request, number, length_s) for number in range(self.count))
        for segment in self.answer or heard:
            await self._pause()
            yield segment
            if self.fails:
                raise BackendError("The echo model was told to fail.")


def _heard(request: TranscribeRequest, number: int, length_s: float) -> Segment:
    """Return the sentence as segment `number`, its words equally long and certain, if they were asked for."""
    said = ["This", "is", "an", "echo."]
    start_s, step_s = number * length_s, length_s / len(said)
    text = " ".join(said)
    words = (
        Word(text=word, start_s=start_s + i * step_s, end_s=start_s + (i + 1) * step_s, offset=text.index(word))
        for i, word in enumerate(said)
    )
    tokens = (LikelyToken(text=word, logprob=0.0, data=word.encode()) for word in said)
    return Segment(
        text=text if number == 0 else f" {text}",
        start_s=start_s,
        end_s=start_s + length_s,
        words=tuple(words) if request.word_times else (),
        language=request.language or "en",
        token_logprobs=tuple(tokens) if request.logprobs else (),
    )


class EchoEmbedder(_Echo, Embedder):
    """Gives each text a unit vector from its hash."""

    async def embed(self, request: EmbedRequest) -> AsyncIterator[Embedding]:
        """Yield one vector for each input."""
        dimensions = request.dimensions or DIMENSIONS
        if dimensions > _MAX_DIMENSIONS:
            message = f"Invalid 'dimensions': the echo model's vectors have at most {_MAX_DIMENSIONS}."
            raise InvalidInputError(message, param="dimensions")
        for index, text in enumerate(request.inputs):
            await self._pause()
            digest = hashlib.shake_128(repr(text).encode("utf-8", "surrogatepass")).digest(dimensions)
            values = [byte / 255 - 0.5 for byte in digest]
            norm = math.hypot(*values) or 1.0
            vector = array.array("f", (value / norm for value in values)).tobytes()
            yield Embedding(index=index, vector=vector, tokens=len(text))


class EchoTextGenerator(_Echo, TextGenerator):
    """Says what it was told, word by word, or what its option `answer` lists: the fields of one chunk after the other.

    It reads at most the model's `context_length` words.
    """

    def __init__(self, model: Model, context: Context) -> None:
        super().__init__(model, context)
        self.answer = msgspec.convert(model.options.get("answer", ()), tuple[TextChunk, ...])

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        """Yield the prompt's words, at most `max_tokens` of them, or the scripted chunks."""
        for chunk in self.answer or _repeated(request, self.model.context_length):
            await self._pause()
            yield chunk
            if self.fails:
                raise BackendError("The echo model was told to fail.")


def _repeated(request: GenerateRequest, limit: int | None) -> list[TextChunk]:
    """Return the chunks that say again what a request says."""
    spoken = request.prompt is None
    told = request.messages[-1].get("content") if spoken else request.prompt
    words = _words(told)
    if limit is not None and len(words) > limit:
        message = f"The prompt has {len(words)} tokens; the model reads {limit}."
        raise InvalidInputError(message, param="messages" if spoken else "prompt", code="context_length_exceeded")
    kept = words[: request.max_tokens]
    said = " ".join([*(words if request.echo else ()), *kept])
    ends = [end for text in request.stop if (end := said.find(text)) >= 0]
    pieces = re.findall(r"\s*\S+|\s+", said[: min(ends, default=None)])
    reason = "stop" if ends or len(kept) == len(words) else "length"
    written = max(0, len(pieces) - (len(words) if request.echo else 0))
    usage = Usage(input_tokens=len(words), output_tokens=written)
    return [
        *(TextChunk(text=piece, logprobs=_certain(piece, request.logprobs)) for piece in pieces),
        TextChunk(finish_reason=reason, usage=usage),
    ]


def _certain(text: str, count: int | None) -> tuple[TokenLogprob, ...]:
    """Return the one token that a piece of text is, with probability 1."""
    if count is None:
        return ()
    top = (LikelyToken(text=text, logprob=0.0, data=text.encode()),)[:count]
    return (TokenLogprob(text=text, logprob=0.0, data=text.encode(), top=top),)


def _words(told: Any) -> list[str]:
    """Return the words of a prompt, of its tokens, or of a message's content."""
    if isinstance(told, str):
        return told.split()
    parts = [str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in told or ()]
    return " ".join(parts).split()


class EchoReranker(_Echo, Reranker):
    """Scores a document by the words it shares with the query."""

    async def rerank(self, request: RerankRequest) -> AsyncIterator[Score]:
        """Yield one score for each pair."""
        for index, (query, document) in enumerate(request.pairs):
            await self._pause()
            wanted = set(query.casefold().split())
            words = document.casefold().split()[: request.max_document_tokens]
            shared = len(wanted & set(words)) / (len(wanted) or 1)
            yield Score(index=index, relevance=shared, tokens=len(words))


class EchoClassifier(_Echo, Classifier):
    """Labels a text by whether it is long."""

    async def classify(self, request: ClassifyRequest) -> AsyncIterator[Classification]:
        """Yield the labels of each input; the first candidate wins, or `short` against `long`."""
        for index, item in enumerate(request.texts or request.images):
            await self._pause()
            labels = request.labels or (("short", "long") if len(item) < len(_MODEL.id) * 10 else ("long", "short"))
            rest = 0.1 / max(1, len(labels) - 1)
            yield Classification(index=index, scores=tuple((x, 0.9 if i == 0 else rest) for i, x in enumerate(labels)))


class EchoProvisioner(_Echo, Provisioner):
    """Pretends to deploy."""

    async def provision(self, request: ProvisionRequest) -> AsyncIterator[ProvisionState]:
        """Yield the states of a deployment that needs nothing."""
        if request.plan:
            yield ProvisionState(state="planned", message=f"{request.action}: nothing to move")
            return
        for state in ("preparing", "removed" if request.action == "remove" else "ready"):
            await self._pause()
            yield ProvisionState(state=state)


@hookimpl
def synthesize(model: Model, context: Context) -> Synthesizer | None:
    """Hum."""
    return EchoSynthesizer(model, context) if model.backend == "echo" else None


@hookimpl
def transcribe(model: Model, context: Context) -> Transcriber | None:
    """Hear."""
    return EchoTranscriber(model, context) if model.backend == "echo" else None


@hookimpl
def embed(model: Model, context: Context) -> Embedder | None:
    """Hash."""
    return EchoEmbedder(model, context) if model.backend == "echo" else None


@hookimpl
def generate(model: Model, context: Context) -> TextGenerator | None:
    """Repeat."""
    return EchoTextGenerator(model, context) if model.backend == "echo" else None


@hookimpl
def rerank(model: Model, context: Context) -> Reranker | None:
    """Compare."""
    return EchoReranker(model, context) if model.backend == "echo" else None


@hookimpl
def classify(model: Model, context: Context) -> Classifier | None:
    """Measure."""
    return EchoClassifier(model, context) if model.backend == "echo" else None


@hookimpl
def provision(model: Model, target: str, context: Context) -> Provisioner | None:
    """Deploy nowhere."""
    return EchoProvisioner(model, context) if model.backend == "echo" and target == "echo" else None
