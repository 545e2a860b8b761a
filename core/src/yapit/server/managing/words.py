"""Models in the words of this API's clients: tasks as the hub names them, sizes in megabytes, kinds of models."""

import math

from yapit.catalog import Model, folder_of
from yapit.weights import is_url

_TASK_WORDS = {
    "synthesize": "text-to-speech",
    "transcribe": "automatic-speech-recognition",
    "generate": "text-generation",
    "embed": "feature-extraction",
    "rerank": "text-ranking",
    "classify": "text-classification",
}
IMAGE_CLASSIFICATION = "image-classification"
_MODEL_TYPES = {"synthesize": "tts", "transcribe": "stt"}
_MINUTE_S, _HOUR_S = 60, 3600


def task_of(model: Model) -> str:
    """Return what a model is for; of several tasks, the first."""
    if not model.tasks:
        return "unknown"
    if model.tasks[0] == "classify" and labels_images(model):
        return IMAGE_CLASSIFICATION
    return _TASK_WORDS.get(model.tasks[0], model.tasks[0])


def labels_images(model: Model) -> bool:
    """Tell whether a model labels images, as far as its entry says so."""
    said = " ".join(str(part) for part in (model.options.get("architecture"), model.description) if part).casefold()
    return "classify" in model.tasks and "image" in said


def category_of(model: Model) -> str:
    """Return `audio`, `vision` or `text`."""
    if speaks(model) or "transcribe" in model.tasks:
        return "audio"
    return "vision" if labels_images(model) else "text"


def type_of(model: Model) -> str:
    """Return `tts`, `stt`, or what the model is for."""
    return _MODEL_TYPES.get(model.tasks[0] if model.tasks else "", task_of(model))


def speaks(model: Model) -> bool:
    """Tell whether a model makes speech."""
    return "synthesize" in model.tasks


def source_of(model: Model) -> str:
    """Return where a model comes from: `huggingface`, `url`, `local`, or the backend that brings it."""
    if model.source is None:
        return model.backend
    if is_url(model.source):
        return "url"
    return "local" if folder_of(model.source) is not None else "huggingface"


def tags_of(model: Model) -> list[str]:
    """Return words to look for: the backend, who made it, what it is for, its languages and licence."""
    owner = model.source.partition("/")[0] if source_of(model) == "huggingface" and model.source else None
    words = [model.backend, owner, type_of(model), *model.languages, model.licence]
    return list(dict.fromkeys(word.lower() for word in words if word))


def megabytes(count: int | None) -> float | None:
    """Return bytes as millions of them."""
    return None if count is None else round(count / 1_000_000, 2)


def span(seconds: float | None) -> str:
    """Return a time for people: `less than a minute`, `4 minutes`, `about 3 hours`; `unknown` if nobody knows."""
    if seconds is None:
        return "unknown"
    if seconds < _MINUTE_S:
        return "less than a minute"
    if seconds < 2 * _HOUR_S:
        minutes = math.ceil(seconds / _MINUTE_S)
        return f"{minutes} minutes" if minutes > 1 else "1 minute"
    return f"about {round(seconds / _HOUR_S)} hours"
