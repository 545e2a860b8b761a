"""The questions the core asks its plugins. Factories are asked once per loaded model, in the process that runs it."""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pluggy

from yapit.adapters import (
    Classifier,
    Context,
    Embedder,
    Provisioner,
    Reranker,
    Synthesizer,
    TextGenerator,
    Transcriber,
)
from yapit.catalog import Backend, Model
from yapit.weights import Weights

if TYPE_CHECKING:
    import click

    from yapit.server.services import Services

PROJECT = "yapit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_models() -> list[Model]:  # type: ignore[empty-body]  # a specification has no body
    """Return the models this plugin brings; called once in every process that starts, so it imports nothing heavy."""


@hookspec
def register_backends() -> list[Backend]:  # type: ignore[empty-body]  # a specification has no body
    """Return the backends whose models this plugin runs, and which of them are heavy; called once, like the above."""


@hookspec
def complete_model(entry: dict[str, Any]) -> dict[str, Any] | None:
    """Return what `entry` of a models file leaves out, or None if it is not yours; called when the catalog is made."""


@hookspec(firstresult=True)
def weights(model: Model) -> list[Weights] | None:
    """Return what has to be on this machine before `model` can be loaded, or None if its backend is not yours."""


@hookspec(firstresult=True)
def optimizations(model: Model) -> list[dict[str, Any]] | None:
    """Return options with which `model` may be faster here, each with its value; None if its backend is not yours."""


@hookspec
def register_commands(cli: "click.Group") -> None:
    """Add commands to `yapit`; called each time the command line starts."""


@hookspec
def register_routes() -> list[Any]:  # type: ignore[empty-body]  # a specification has no body
    """Return Litestar route handlers or routers to serve; called once, when the server is built."""


@hookspec
def accompany(parts: "Services") -> AbstractAsyncContextManager[None] | None:
    """Return what runs beside the server for as long as it does, or None; entered once, before the server listens."""


@hookspec(firstresult=True)
def synthesize(model: Model, context: Context) -> Synthesizer | None:
    """Load `model` and return the adapter that speaks with it, or None at once if its backend is not yours."""


@hookspec(firstresult=True)
def transcribe(model: Model, context: Context) -> Transcriber | None:
    """Load `model` and return the adapter that listens with it, or None at once if its backend is not yours."""


@hookspec(firstresult=True)
def embed(model: Model, context: Context) -> Embedder | None:
    """Load `model` and return the adapter that embeds with it, or None at once if its backend is not yours."""


@hookspec(firstresult=True)
def generate(model: Model, context: Context) -> TextGenerator | None:
    """Load `model` and return the adapter that writes with it, or None at once if its backend is not yours."""


@hookspec(firstresult=True)
def rerank(model: Model, context: Context) -> Reranker | None:
    """Load `model` and return the adapter that ranks with it, or None at once if its backend is not yours."""


@hookspec(firstresult=True)
def classify(model: Model, context: Context) -> Classifier | None:
    """Load `model` and return the adapter that labels with it, or None at once if its backend is not yours."""


@hookspec(firstresult=True)
def provision(model: Model, target: str, context: Context) -> Provisioner | None:
    """Return what can bring `model` to `target` ("local", "runpod", …), or None at once if that is not yours."""
