"""Requests that a model is tried with, and whether two answers to one are the same in what counts."""

from collections.abc import Sequence

import numpy as np

from yapit.catalog import Model
from yapit.schemas import (
    Chunk,
    Classification,
    ClassifyRequest,
    Embedding,
    EmbedRequest,
    GenerateRequest,
    Request,
    RerankRequest,
    Score,
    Segment,
    TextChunk,
    TranscribeRequest,
)

COSINE = 0.999  # at least, of two vectors of one text
SCORE = 0.01  # at most, between two scores of one pair, or of one label
_RATE = 16_000
_TEXTS = (
    "What is the capital of France?",
    "Rain falls on the river.",
    "Trains leave at nine.",
)
_LONG = "A model server keeps models in memory, answers requests for them, and says how long that takes. " * 8
_ROOM = 512  # tokens that the long text takes at most


def probes(task: str, model: Model) -> list[Request]:
    """Return what a task is tried with; nothing where answers cannot be compared."""
    texts = (*_TEXTS, _LONG) if (model.context_length or 0) >= _ROOM else _TEXTS
    match task:
        case "embed":
            return [EmbedRequest(inputs=(text,), truncate=True) for text in texts]
        case "rerank":
            return [RerankRequest(pairs=((_TEXTS[0], text),)) for text in texts]
        case "classify":
            return [ClassifyRequest(texts=(text,)) for text in texts]
        case "generate":
            messages = ({"role": "user", "content": _TEXTS[0]},)
            return [GenerateRequest(messages=messages, max_tokens=16, temperature=0.0)]
        case "transcribe":
            return [TranscribeRequest(pcm=_sound(), sample_rate=_RATE)]
    return []


def agree(before: Sequence[Chunk], after: Sequence[Chunk]) -> bool:
    """Tell whether two answers to one request are the same in what counts."""
    if all(isinstance(chunk, TextChunk | Segment) for chunk in (*before, *after)):
        return _text(before) == _text(after)
    return len(before) == len(after) and all(_same(*pair) for pair in zip(before, after, strict=True))


def _same(before: Chunk, after: Chunk) -> bool:
    match before, after:
        case Embedding(), Embedding():
            one, other = (np.frombuffer(each.vector, "<f4").astype(np.float64) for each in (before, after))
            if one.shape != other.shape:
                return False
            return bool(one @ other >= COSINE * np.linalg.norm(one) * np.linalg.norm(other))
        case Score(), Score():
            return abs(before.relevance - after.relevance) <= SCORE
        case Classification(), Classification():
            one_scores, other_scores = dict(before.scores), dict(after.scores)
            same = one_scores.keys() == other_scores.keys() and before.scores[0][0] == after.scores[0][0]
            return same and all(abs(one_scores[name] - other_scores[name]) <= SCORE for name in one_scores)
    return False


def _text(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk | Segment))


def _sound() -> bytes:
    """Return two seconds of a voice-like sound: a tone that glides, with overtones, louder and softer."""
    at = np.arange(2 * _RATE) / _RATE
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * at)) / _RATE
    wave = sum(np.sin(number * phase) / number for number in range(1, 8)) * (0.6 + 0.4 * np.sin(6 * np.pi * at))
    return bytes((wave / np.abs(wave).max() * 12_000).astype("<i2").tobytes())
