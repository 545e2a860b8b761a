"""Ollama's route that brings models."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from litestar import Request, post
from litestar.params import JSONBody
from litestar.types import ASGIApp
from msgspec import Struct

from yapit.catalog import Model
from yapit.errors import InvalidInputError, ModelNotFoundError, YapitError
from yapit.server.keys import ADMIN
from yapit.server.managing.asking import DownloadBody
from yapit.server.managing.starting import Begun
from yapit.server.problems import documented
from yapit.server.responses import ChunkedResponse
from yapit.server.services import Services, services
from yapit.store import Download
from yapit.tickets import current

_LATEST = ":latest"
_HUB = ("hf.co/", "huggingface.co/")
_DAY_S = 24 * 3600.0


class OllamaError(Struct, frozen=True):
    """The body of Ollama's errors."""

    error: str


FAILURES = documented(OllamaError)


class NamedBody(Struct, frozen=True, kw_only=True):
    """Which model is meant; `name` is the older word."""

    model: str | None = None
    name: str | None = None
    verbose: bool = False


class PullBody(NamedBody, frozen=True, kw_only=True):
    """A model that is wanted: an id or alias, or the id of a repository of the hub; `insecure` means nothing here."""

    stream: bool = True
    insecure: bool = False


@post("/api/pull", opt=ADMIN, status_code=200, tags=["ollama"], responses=FAILURES)
async def pull(request: Request[Any, Any, Any], data: JSONBody[PullBody]) -> ASGIApp:
    """Fetch a model, and tell how far it is line by line; it goes on when the client leaves."""
    current().within(_DAY_S)
    parts = services(request)
    begun = await _begun(parts, named(data))
    if data.stream:
        return ChunkedResponse(_lines(parts, begun), lambda line: line, "application/x-ndjson", on_error=_error_line)
    return ChunkedResponse(_end(parts, begun), lambda line: line, "application/json", whole=True)


def named(body: NamedBody) -> str:
    """Return the name of the model that a body means; raises `InvalidInputError` if it has none."""
    name = body.model or body.name
    if not name:
        raise InvalidInputError("Missing required parameter: 'model'.", param="model")
    return name


def meant(parts: Services, name: str) -> Model | None:
    """Return the model that Ollama's clients mean; they write `:latest` behind a name."""
    catalog = parts.engine.catalog
    for known in (name, name.removesuffix(_LATEST)):
        if known in catalog:
            return catalog[known]
    return None


def digest_of(model: Model) -> str:
    """Return a name for all that a model needs; the files' own checksums are checked when they come."""
    return "sha256:" + hashlib.sha256(f"{model.source or model.id}@{model.revision or ''}".encode()).hexdigest()


async def _begun(parts: Services, name: str) -> Begun:
    model = meant(parts, name)
    if model is not None:
        if await parts.downloads.here(model):
            return Begun(model=model, download=await parts.downloads.found(model), status="already_exists")
        await parts.starter.plan(model)
        return Begun(model=model, download=await parts.downloads.begin(model), status="downloading")
    repository = name.removesuffix(_LATEST)
    for prefix in _HUB:
        repository = repository.removeprefix(prefix)
    if "/" not in repository:
        raise ModelNotFoundError(f"pull model manifest: the model '{name}' does not exist", param="model")
    body = DownloadBody(source="huggingface", model_id=repository, name=repository, enable_large_model=True)
    return await parts.starter.start(body)


async def _lines(parts: Services, begun: Begun) -> AsyncGenerator[bytes, None]:
    """Yield what Ollama tells of a pull."""
    yield _line(status="pulling manifest")
    async with aclosing(parts.downloads.watch(begun.download.id)) as changes:
        digest, last = digest_of(begun.model), begun.download
        async for last in changes:
            if last.bytes_total:
                layer = {"digest": digest, "total": last.bytes_total, "completed": last.bytes_done}
                yield _line(status=f"pulling {digest.removeprefix('sha256:')[:12]}", **layer)
    if last.state != "completed":
        yield _line(error=_reason(last))
        return
    for status in ("verifying sha256 digest", "writing manifest", "success"):
        yield _line(status=status)


async def _end(parts: Services, begun: Begun) -> AsyncGenerator[bytes, None]:
    """Yield the end alone."""
    last = begun.download
    async with aclosing(parts.downloads.watch(last.id)) as changes:
        async for change in changes:
            last = change
    if last.state != "completed":
        raise YapitError(_reason(last))
    yield _line(status="success")


def _reason(download: Download) -> str:
    return download.message or f"the download was {download.state}"


def _line(**fields: Any) -> bytes:
    return msgspec.json.encode(fields) + b"\n"


def _error_line(error: YapitError) -> bytes:
    return _line(error=error.message)
