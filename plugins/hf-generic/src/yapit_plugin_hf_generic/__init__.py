"""Any model of the Hugging Face hub that transformers can run, found out from its repository's own files."""

from importlib.resources import files
from typing import Any

from yapit import (
    Backend,
    Classifier,
    Context,
    Embedder,
    Model,
    Reranker,
    Synthesizer,
    TextGenerator,
    Transcriber,
    Weights,
    hookimpl,
    read_models,
)
from yapit.computing import before_torch

BACKEND = "hf-generic"


@hookimpl
def register_models() -> list[Model]:
    """Return well-known models, none of which is downloaded before it is used."""
    return read_models(files(__name__) / "models.yaml")


@hookimpl
def register_backends() -> list[Backend]:
    """Return the backend as a heavy one: each model has a process of its own, whose memory is given back whole."""
    return [Backend(name=BACKEND, heavy=True)]


@hookimpl(trylast=True)
def complete_model(entry: dict[str, Any]) -> dict[str, Any] | None:
    """Return the tasks of an entry that only has a source, and what else its repository's files say."""
    if entry.get("backend", BACKEND) != BACKEND:
        return None
    from yapit_plugin_hf_generic.vision.architectures import describe_bare

    found, source = describe_bare(entry), entry.get("source")
    if found is None and isinstance(source, str):
        from yapit_plugin_hf_generic.repositories import describe, describe_speaking

        found = describe(source, entry.get("revision"))
        if found is not None and "backend" not in entry and "tasks" not in entry:
            found = describe_speaking(source, entry.get("revision"), found)
    return None if found is None else {"backend": BACKEND, **found}  # another one's, if that is known to fit


@hookimpl(trylast=True)
def weights(model: Model) -> list[Weights] | None:
    """Return the repositories or the file that the model needs, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    from yapit_plugin_hf_generic.needs import needs

    return needs(model)


@hookimpl(trylast=True)
def optimizations(model: Model) -> list[dict[str, Any]] | None:
    """Return options with which the model may be faster, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    from yapit_plugin_hf_generic.tuning import offers

    return offers(model)


@hookimpl(trylast=True)
def embed(model: Model, context: Context) -> Embedder | None:
    """Return the adapter that embeds, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    before_torch()
    from yapit_plugin_hf_generic.embedding import HFEmbedder

    return HFEmbedder(model, context)


@hookimpl(trylast=True)
def generate(model: Model, context: Context) -> TextGenerator | None:
    """Return the adapter that writes, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    before_torch()
    from yapit_plugin_hf_generic.generating.adapter import generator

    return generator(model, context)


@hookimpl(trylast=True)
def rerank(model: Model, context: Context) -> Reranker | None:
    """Return the adapter that ranks, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    before_torch()
    from yapit_plugin_hf_generic.ranking import reranker

    return reranker(model, context)


@hookimpl(trylast=True)
def classify(model: Model, context: Context) -> Classifier | None:
    """Return the adapter that labels, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    before_torch()
    from yapit_plugin_hf_generic.classifying import classifier

    return classifier(model, context)


@hookimpl(trylast=True)
def synthesize(model: Model, context: Context) -> Synthesizer | None:
    """Return the adapter that speaks, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    before_torch()
    from yapit_plugin_hf_generic.speaking import synthesizer

    return synthesizer(model, context)


@hookimpl(trylast=True)
def transcribe(model: Model, context: Context) -> Transcriber | None:
    """Return the adapter that listens, or None if the backend is not this one."""
    if model.backend != BACKEND:
        return None
    before_torch()
    from yapit_plugin_hf_generic.listening import HFTranscriber

    return HFTranscriber(model, context)
