"""What goes into an adapter and what comes out: frozen data that may cross process boundaries.

PCM is 16-bit signed little-endian mono everywhere; times are seconds from the start of the call's audio.
"""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from msgspec import Struct, field

if TYPE_CHECKING:  # numpy takes 0.1 s to import, and the command line seldom needs it
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

WordSource = Literal["native", "estimated"]
_GROWS = stat.S_IXUSR  # in a file's mode, which any process sees together with its size
_POLL_S = 0.01


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

    Word times count from the first sample of the call, not of the chunk. A `pause` is silence that the text asks for:
    it is heard at its full length, while other silence between sentences is shortened. `word_source` says whether the
    times are the model's own; for words that no chunk names, the core estimates them.
    """

    pcm: bytes
    sample_rate: int
    words: tuple[Word, ...] = ()
    pause: bool = False
    word_source: WordSource = "native"

    @classmethod
    def from_samples(
        cls, samples: Any, sample_rate: int, words: tuple[Word, ...] = (), word_source: WordSource = "native"
    ) -> AudioChunk:
        """Return the chunk of a one-dimensional array: floats in [-1, 1] (clipped) or int16."""
        import numpy as np

        array = np.asarray(samples).reshape(-1)
        if array.dtype != np.int16:
            array = np.round(np.clip(array.astype(np.float32), -1, 1) * 32767).astype("<i2")
        return cls(pcm=array.tobytes(), sample_rate=sample_rate, words=words, word_source=word_source)


# ── transcribe ────────────────────────────────────────────────────────────────────────────────────────────────────────
class VoiceActivity(Struct, frozen=True, kw_only=True):
    """What counts as speech; the rest is not listened to.

    Args:
        threshold: probability of speech from which on it counts.
        prefix_padding_ms: kept before speech.
        silence_duration_ms: without speech, that end a stretch of it.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 200


class TranscribeRequest(Request, frozen=True, kw_only=True):
    """Write down, or translate to English, the speech of a recording.

    Args:
        pcm: the recording …
        path: … or the file on this machine that holds its PCM and nothing else: for long ones, which a message would
            fill. It stays until the call has ended. While its owner may execute it, it still grows.
        sample_rate: Hz of the recording.
        language: that is spoken, a BCP 47 tag; the model finds it out when None.
        languages: that may be spoken; any when empty.
        prompt: what was said before, or text in the style that is wanted.
        keywords: words that are likely, such as names.
        temperature: 0 takes the likeliest token; the model's own way when None.
        translate: to English.
        word_times: tell when each word was said.
        logprobs: tell how likely each token was.
        voice_activity: listen to what is speech only; to everything when None.
    """

    pcm: bytes = b""
    path: str | None = None
    sample_rate: int
    language: str | None = None
    languages: tuple[str, ...] = ()
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    temperature: float | None = None
    translate: bool = False
    word_times: bool = False
    logprobs: bool = False
    voice_activity: VoiceActivity | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds of the recording, or of what has been decoded of it so far."""
        size = len(self.pcm) if self.path is None else Path(self.path).stat().st_size
        return size / 2 / self.sample_rate

    def samples(self) -> NDArray[np.int16]:
        """Return the recording, [samples], once all of it has been decoded."""
        return self.stretch(0)

    def stretch(
        self, start: int, stop: int | None = None, check: Callable[[], object] | None = None
    ) -> NDArray[np.int16]:
        """Return what lies between two samples, [samples]; blocks until it has been decoded.

        Of a file, only what is looked at is read.

        Args:
            start: the first sample.
            stop: the sample after the last one; that of the recording's end when None or later.
            check: called again and again while waiting; what it raises ends that.
        """
        import numpy as np

        if self.path is None:
            return np.frombuffer(self.pcm, "<i2")[start:stop]
        path = Path(self.path)
        while (about := path.stat()).st_mode & _GROWS and (stop is None or about.st_size < 2 * stop):
            if check is not None:
                check()
            time.sleep(_POLL_S)
        known = about.st_size // 2
        count = (known if stop is None else min(stop, known)) - start
        return np.memmap(path, "<i2", "r", 2 * start, (count,)) if count > 0 else np.empty(0, np.int16)


class Segment(Chunk, frozen=True, kw_only=True):
    """A stretch of transcript, with what the model computed about it.

    Args:
        text: as it goes on from the segment before: with a space at its beginning where the language has spaces.
        start_s: seconds from the start of the recording.
        end_s: seconds from the start of the recording.
        words: and when they were said, if that was asked for.
        language: that was heard, a BCP 47 tag.
        tokens: ids in the model's vocabulary.
        token_logprobs: the tokens that are text, if they were asked for.
        window_start_s: where the stretch begins that the model listened to at once.
        temperature: with which the tokens were chosen.
        average_logprob: of the tokens.
        compression_ratio: of the text; high where it repeats itself.
        no_speech_probability: that there is no speech here.
    """

    text: str
    start_s: float
    end_s: float
    words: tuple[Word, ...] = ()
    language: str | None = None
    tokens: tuple[int, ...] = ()
    token_logprobs: tuple[LikelyToken, ...] = ()
    window_start_s: float | None = None
    temperature: float | None = None
    average_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_probability: float | None = None


# ── embed ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
class EmbedRequest(Request, frozen=True, kw_only=True):
    """Embed each text, or each list of token ids.

    Args:
        inputs: the texts, or their tokens.
        dimensions: length of the vectors, for models whose vectors may be cut (Matryoshka); all when None.
        input_type: which of the model's prompts goes before the texts, such as `query` or `document`.
        truncate: cut texts that are too long at the model's limit; else they are an error.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    input_type: str | None = None
    truncate: bool = False


class Embedding(Chunk, frozen=True, kw_only=True):
    """The vector of input number `index` as little-endian float32, and the tokens it took."""

    index: int
    vector: bytes
    tokens: int


# ── generate ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class Usage(Struct, frozen=True, kw_only=True):
    """Tokens read and written by one call.

    Args:
        input_tokens: of the prompt.
        output_tokens: written, those for reasoning counted.
        cached_tokens: of the prompt, that had been read before.
        reasoning_tokens: of those written.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class GenerateRequest(Request, frozen=True, kw_only=True):
    """Continue `messages` or `prompt`, exactly one of which is set, and give one answer.

    Args:
        messages: in OpenAI's chat shape; content is text or a list of parts.
        prompt: text, or tokens.
        suffix: what comes after the text to be written, for models that fill in the middle.
        echo: begin with the prompt.
        tools: functions the model may call, in OpenAI's shape `{"type": "function", "function": {…}}`.
        tool_choice: `required` if it must call one of them.
        parallel_tool_calls: it may call several.
        response_format: what the text must be, in OpenAI's shape: `json_object` or `json_schema`.
        reasoning_effort: how much the model thinks first, if it does: `none`, `minimal`, `low`, `medium`, `high`, …
        max_tokens: to write at most; as many as fit when None.
        temperature: 0 takes the likeliest token; the model's default when None, as for the five below.
        top_p: takes from the likeliest tokens that have this probability together.
        top_k: takes from this many of the likeliest tokens; from all with 0.
        min_p: takes from the tokens that have this share of the likeliest one's probability.
        frequency_penalty: taken from a token's logit for each time it was written.
        presence_penalty: taken from a token's logit if it was written.
        repetition_penalty: divides the logits of tokens that were read or written; 1 changes nothing.
        logit_bias: added to the logits of these tokens.
        stop: texts that end the answer and are not part of it.
        seed: makes the answer the same each time.
        logprobs: how many of the likeliest tokens are listed with each token; no log-probabilities when None.
    """

    messages: tuple[dict[str, Any], ...] = ()
    prompt: str | tuple[int, ...] | None = None
    suffix: str | None = None
    echo: bool = False
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Literal["auto", "required"] = "auto"
    parallel_tool_calls: bool = True
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] = {}
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None


class LikelyToken(Struct, frozen=True, kw_only=True):
    """A token and its natural log-probability; `data` is its UTF-8, which may be a part of a character."""

    text: str
    logprob: float
    data: bytes = b""


class TokenLogprob(LikelyToken, frozen=True, kw_only=True):
    """A token that was written, and the likeliest ones at its place."""

    top: tuple[LikelyToken, ...] = ()


class ToolCallPart(Struct, frozen=True, kw_only=True):
    """A piece of a tool call; the pieces of one `index` belong together.

    Args:
        index: of the call in the answer.
        id: of the call; in its first piece.
        name: of the function; in its first piece.
        arguments: a further piece of the JSON text.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class TextChunk(Chunk, frozen=True, kw_only=True):
    """A piece of an answer; the last one has the finish reason and the usage.

    Args:
        text: a further piece of the answer.
        reasoning: a further piece of what the model thought first.
        tool_calls: further pieces of the calls it makes.
        logprobs: the tokens of `text`, if they were asked for.
        finish_reason: `stop`, `length` or `tool_calls`.
        usage: of the whole call.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallPart, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None


# ── rerank ────────────────────────────────────────────────────────────────────────────────────────────────────────────
class RerankRequest(Request, frozen=True, kw_only=True):
    """Score each pair of a query and a document.

    Pairs and not one query, so that requests of several clients can be one batch; an adapter that wants a query with
    its documents groups neighbours.

    Args:
        pairs: query and document.
        raw_scores: the model's own scores (logits), of any size, instead of 0 to 1.
        instruction: what makes a document relevant, for models that take one.
        max_document_tokens: documents are cut to as many tokens; to what the model can read when None.
    """

    pairs: tuple[tuple[str, str], ...]
    raw_scores: bool = False
    instruction: str | None = None
    max_document_tokens: int | None = None


class Score(Chunk, frozen=True, kw_only=True):
    """The relevance, 0 to 1 unless raw, of the document of pair number `index`, and the tokens it took."""

    index: int
    relevance: float
    tokens: int


# ── classify ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class ClassifyRequest(Request, frozen=True, kw_only=True):
    """Label each text, or each encoded image.

    Args:
        texts: to be labelled.
        images: to be labelled, as files (JPEG, PNG, …).
        labels: the candidates, for models that take any (zero-shot).
        multi_label: each label is scored by itself; else the scores sum to 1.
        hypothesis_template: the sentence in which a candidate is put for `{}`; the model's own when None.
    """

    texts: tuple[str, ...] = ()
    images: tuple[bytes, ...] = ()
    labels: tuple[str, ...] = ()
    multi_label: bool = False
    hypothesis_template: str | None = None


class Classification(Chunk, frozen=True, kw_only=True):
    """The labels of text, or image, number `index` with their scores, best first, and the tokens it took."""

    index: int
    scores: tuple[tuple[str, float], ...]
    tokens: int = 0


# ── provision ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class ProvisionRequest(Request, frozen=True, kw_only=True):
    """Bring a model to a wanted state; `plan` only says what would be done."""

    action: Literal["apply", "remove"] = "apply"
    plan: bool = False


class ProvisionState(Chunk, frozen=True, kw_only=True):
    """A state passed through on the way, with what has been moved while downloading.

    Args:
        state: its name: `planned`, `downloading`, `ready`, `removed`, or the provisioner's own.
        message: one line for people.
        files_done: that are there, those that were there before too.
        files_total: of what is wanted.
        bytes_done: that are there, those that were there before too.
        bytes_total: of what is wanted.
        bytes_per_s: that came over the last few seconds.
        eta_s: seconds until the end at this rate.
        details: what else a program may want to know.
    """

    state: str
    message: str = ""
    files_done: int | None = None
    files_total: int | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    bytes_per_s: float | None = None
    eta_s: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


RequestT = TypeVar("RequestT", bound=Request)
ChunkT = TypeVar("ChunkT", bound=Chunk)
