"""Kokoro: a small model that speaks nine languages with 54 voices, and any mixture of them."""

from importlib.resources import files
from typing import Any

from yapit import Backend, Context, Model, Synthesizer, Weights, hookimpl, read_models
from yapit.computing import before_torch

BACKEND = "kokoro"


@hookimpl
def register_models() -> list[Model]:
    """Return the published models with their voices; none is downloaded before it is used."""
    return read_models(files(__name__) / "models.yaml")


@hookimpl
def register_backends() -> list[Backend]:
    """Return the backend as a heavy one: each model has a process of its own, whose memory is given back whole."""
    return [Backend(name=BACKEND, heavy=True)]


@hookimpl
def complete_model(entry: dict[str, Any]) -> dict[str, Any] | None:
    """Return the tasks of an entry that only has a source, if that is a Kokoro."""
    source = entry.get("source")
    if not isinstance(source, str) or entry.get("backend", BACKEND) != BACKEND:
        return None
    from yapit_plugin_kokoro.describing import describe

    return describe(source)


@hookimpl
def weights(model: Model) -> list[Weights] | None:
    """Return the repository that the model needs, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    from yapit_plugin_kokoro.needs import needs

    return needs(model)


@hookimpl
def synthesize(model: Model, context: Context) -> Synthesizer | None:
    """Return the adapter that speaks, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    before_torch()
    from yapit_plugin_kokoro.adapter import KokoroSynthesizer

    return KokoroSynthesizer(model, context)
