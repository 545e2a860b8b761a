"""The default voice: espeak-ng, its data inside the package it depends on, so nothing is downloaded."""

from importlib.resources import files

from yapit import Backend, Context, Model, Synthesizer, hookimpl, read_models


@hookimpl
def register_models() -> list[Model]:
    """Return `espeak` with the voices of the shipped data."""
    return read_models(files(__name__) / "models.yaml")


@hookimpl
def register_backends() -> list[Backend]:
    """Return espeak as a heavy one: it is small, but some text ends the process that speaks it."""
    return [Backend(name="espeak", heavy=True)]


@hookimpl
def synthesize(model: Model, context: Context) -> Synthesizer | None:  # noqa: ARG001 - the hook's signature
    """Return the adapter that speaks, or None if the backend is not espeak."""
    if model.backend != "espeak":
        return None
    from yapit_plugin_espeak.adapter import EspeakSynthesizer

    return EspeakSynthesizer(model)
