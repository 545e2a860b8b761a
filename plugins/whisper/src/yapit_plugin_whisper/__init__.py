"""Every Whisper: recordings of any length are written down or translated, by CTranslate2 or transformers."""

from importlib.resources import files
from typing import Any

from yapit import Backend, Context, Model, Transcriber, Weights, hookimpl, read_models
from yapit.computing import before_torch

BACKEND = "whisper"


@hookimpl
def register_models() -> list[Model]:
    """Return well-known models, none of which is downloaded before it is used."""
    return read_models(files(__name__) / "models.yaml")


@hookimpl
def register_backends() -> list[Backend]:
    """Return the backend as a heavy one: each model has a process of its own, whose memory is given back whole."""
    return [Backend(name=BACKEND, heavy=True)]


@hookimpl
def complete_model(entry: dict[str, Any]) -> dict[str, Any] | None:
    """Return what an entry leaves out whose source is a Whisper's, before a plugin for any model is asked."""
    source = entry.get("source")
    if not isinstance(source, str) or entry.get("backend", BACKEND) != BACKEND:
        return None
    from yapit_plugin_whisper.describing import describe

    found = describe(source, entry.get("revision"))
    return None if found is None else {"backend": BACKEND, **found}


@hookimpl
def weights(model: Model) -> list[Weights] | None:
    """Return the repositories that the model needs, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    from yapit_plugin_whisper.needs import needs

    return needs(model)


@hookimpl
def optimizations(model: Model) -> list[dict[str, Any]] | None:
    """Return options with which the model may be faster, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    return [{"compute_type": "int8"}, {"compute_type": "float32"}, {"engine": "transformers"}]


@hookimpl
def transcribe(model: Model, context: Context) -> Transcriber | None:
    """Return the adapter that listens, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    before_torch()
    from yapit_plugin_whisper.adapter import WhisperTranscriber

    return WhisperTranscriber(model, context)
