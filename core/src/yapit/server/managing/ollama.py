"""Ollama's routes that list, show and remove models."""

import asyncio
import datetime as dt
from typing import Any

from litestar import Request, Response, delete, get, post
from litestar.params import JSONBody
from msgspec import Struct

from yapit import __version__
from yapit.catalog import Model
from yapit.errors import ModelNotFoundError
from yapit.server.keys import ADMIN
from yapit.server.loaded import Details
from yapit.server.managing.holdings import Holding, held, model_info
from yapit.server.managing.pulling import FAILURES, NamedBody, OllamaError, digest_of, meant, named, pull
from yapit.server.managing.refusals import RefusedError
from yapit.server.managing.removing import remove
from yapit.server.moments import moment
from yapit.server.problems import respond
from yapit.server.services import Services, services

_LATEST = ":latest"
_HUB = ("hf.co/", "huggingface.co/")
_DAY_S = 24 * 3600.0
_BILLION, _MILLION = 1e9, 1e6
_CAPABILITIES = {"generate": "completion", "embed": "embedding"}


class Tag(Struct, frozen=True, kw_only=True):
    """A model that is here."""

    name: str
    model: str
    modified_at: dt.datetime
    size: int
    digest: str
    details: Details


class Tags(Struct, frozen=True):
    """The models that are here."""

    models: list[Tag]


class Shown(Struct, frozen=True, kw_only=True):
    """What is known of a model."""

    license: str
    modelfile: str
    parameters: str
    template: str
    modified_at: dt.datetime
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]


class Version(Struct, frozen=True):
    """The version of yapit."""

    version: str


def refuse_as_ollama(request: Request[Any, Any, Any], raised: Exception) -> Response[OllamaError]:
    """Answer what a route raised as Ollama does."""
    answer = respond(request, raised.cause if isinstance(raised, RefusedError) else raised)
    body = OllamaError(answer.content.error.message)
    return Response(body, status_code=answer.status_code, headers=dict(answer.headers), media_type="application/json")


@get("/api/tags", tags=["ollama"], responses=FAILURES)
async def list_tags(request: Request[Any, Any, Any]) -> Tags:
    """List the models that are here, or need nothing."""
    parts = services(request)
    return Tags(await asyncio.to_thread(_tags, parts))


@delete("/api/delete", opt=ADMIN, status_code=200, tags=["ollama"], responses=FAILURES)
async def delete_model(request: Request[Any, Any, Any], data: JSONBody[NamedBody]) -> Response[None]:
    """Remove a model's files, and the model if it was registered."""
    parts = services(request)
    name = named(data)
    model = meant(parts, name)
    if model is None or await remove(parts, model) is None:
        raise ModelNotFoundError(f"model '{name}' not found", param="model")
    return Response(None, media_type="text/plain")


@post("/api/show", status_code=200, tags=["ollama"], responses=FAILURES)
async def show(request: Request[Any, Any, Any], data: JSONBody[NamedBody]) -> Shown:
    """Say what is known of a model."""
    parts = services(request)
    name = named(data)
    model = meant(parts, name)
    if model is None:
        raise ModelNotFoundError(f"model '{name}' not found", param="model")
    found = await model_info(parts, model)
    details = _details(model, found.parameters)
    known = {
        "general.architecture": model.backend,
        "general.parameter_count": found.parameters,
        f"{model.backend}.context_length": model.context_length,
        f"{model.backend}.embedding_length": model.dimensions,
    }
    return Shown(
        license=model.licence or "",
        modelfile="",
        parameters="\n".join(f"{name} {value}" for name, value in model.defaults.items()),
        template="",
        modified_at=found.modified_at or _started(parts),
        details=details,
        model_info={name: value for name, value in known.items() if value is not None},
        capabilities=[_CAPABILITIES.get(task, task) for task in model.tasks],
    )


@get("/api/version", sync_to_thread=False, tags=["ollama"], responses=FAILURES)
def version() -> Version:
    """Say which yapit this is."""
    return Version(__version__)


def _tags(parts: Services) -> list[Tag]:
    _, holdings = held(parts)
    found = []
    for model in parts.engine.catalog:
        holding = holdings.get(model.id, Holding(here=model.source is None))
        if not holding.here or not parts.engine.plugins.serves(model):
            continue
        found.append(
            Tag(
                name=model.id,
                model=model.id,
                modified_at=moment(holding.modified_at) or _started(parts),
                size=holding.size_bytes,
                digest=digest_of(model).removeprefix("sha256:"),
                details=_details(model, holding.parameters),
            )
        )
    return found


def _details(model: Model, parameters: int | None) -> Details:
    shown = ""
    if parameters is not None:
        shown = f"{parameters / _BILLION:.1f}B" if parameters >= _BILLION else f"{parameters / _MILLION:.1f}M"
    return Details(family=model.backend, families=[model.backend], parameter_size=shown)


def _started(parts: Services) -> dt.datetime:
    return dt.datetime.fromtimestamp(parts.started_at, dt.UTC)


ROUTES = [pull, list_tags, delete_model, show, version]
