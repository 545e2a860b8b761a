"""`/v1/rerank`: a query and documents in, the documents' relevance out, in the words of several servers."""

import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Annotated, Any

import msgspec
from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType, field

from yapit.catalog import Model
from yapit.errors import BackendError, InvalidInputError
from yapit.schemas import RerankRequest, Score
from yapit.server.calls import TokenUsage, answers, check_count, new_id
from yapit.server.problems import PROBLEMS
from yapit.server.requests import keep_loaded
from yapit.server.responses import ChunkedResponse
from yapit.server.services import Services, services
from yapit.tasks import RERANK

_INFINITY = "/infinity/rerank"  # its clients break on documents that are objects, and those of others on texts
_encode = msgspec.json.Encoder().encode


class Ranking(Struct, frozen=True, kw_only=True):
    """What ranking and scoring have in common; a null field counts as absent, an unknown one is ignored.

    Args:
        model: id or alias of a model that ranks; may be absent where there is only one.
        instruction: what makes a document relevant, for models that take one.
        raw_scores: the model's own scores, of any size, instead of 0 to 1.
        use_activation: false is another word for raw scores.
        options: the model's own parameters.
        keep_alive: how long the model stays loaded after this, when idle: seconds, or `10m`.
    """

    model: str | None = None
    instruction: str | None = None
    raw_scores: bool | None = None
    use_activation: bool | None = None
    options: dict[str, Any] | None = None
    keep_alive: str | float | None = None


class RerankBody(Ranking, frozen=True, kw_only=True):
    """A query, and the documents to be ordered by what they say about it.

    Args:
        query: what is looked for.
        documents: texts, or objects with `text`, or with the fields that `rank_fields` names.
        texts: the same as `documents`; the answer is a bare list.
        top_n: as many of the best; all when absent or 0.
        top_k: the same.
        return_documents: put each document beside its score.
        return_text: the same, for `texts`.
        max_tokens_per_doc: documents are cut to as many tokens.
        rank_fields: the fields of a document that count.
    """

    query: str
    documents: list[str | dict[str, Any]] | None = None
    texts: list[str] | None = None
    top_n: Annotated[int, Meta(ge=0)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    max_tokens_per_doc: Annotated[int, Meta(ge=1)] | None = None
    rank_fields: list[str] | None = None


class DocumentText(Struct, frozen=True):
    """A document."""

    text: str


class Ranked(Struct, frozen=True, kw_only=True):
    """A document's relevance; `index` is its place in the request."""

    index: int
    relevance_score: float
    document: DocumentText | str | UnsetType = UNSET


class ApiVersion(Struct, frozen=True, kw_only=True):
    """The version of Cohere's API that this is like."""

    version: str = "2"


class BilledUnits(Struct, frozen=True, kw_only=True):
    """What Cohere would have billed."""

    search_units: int = 1


class RerankTokens(Struct, frozen=True, kw_only=True):
    """The tokens in Cohere's words."""

    input_tokens: int
    output_tokens: int = 0


class RerankMeta(Struct, frozen=True, kw_only=True):
    """What Cohere's clients read besides the results."""

    api_version: ApiVersion = field(default_factory=ApiVersion)
    billed_units: BilledUnits = field(default_factory=BilledUnits)
    tokens: RerankTokens


class RerankResults(Struct, frozen=True, kw_only=True):
    """The documents, best first; `results` and `data` are the same, for different clients."""

    id: str
    object: str = "rerank"
    created: int
    model: str
    results: list[Ranked]
    data: list[Ranked]
    usage: TokenUsage
    meta: RerankMeta


class RankedText(Struct, frozen=True, kw_only=True):
    """One item of the bare list that answers `texts`."""

    index: int
    score: float
    text: str | UnsetType = UNSET


@post(
    ["/v1/rerank", "/v2/rerank", "/rerank", _INFINITY],
    status_code=200,
    responses={
        200: ResponseSpec(RerankResults | list[RankedText], description="Best first."),  # type: ignore[arg-type]  # it takes a union
        **PROBLEMS,
    },
    tags=["rerank"],
)
async def create_rerank(request: Request[Any, Any, Any], data: JSONBody[RerankBody]) -> ASGIApp:
    """Order documents by their relevance to a query."""
    parts = services(request)
    model = ranking_model(parts, data)
    if not data.query.strip():
        raise InvalidInputError("Invalid 'query': there is nothing in it.", param="query", code="empty_input")
    texts = _texts(data)
    wanted = ranking_request(data, tuple((data.query, text) for text in texts), data.max_tokens_per_doc)
    plain = data.texts is not None or request.url.path == _INFINITY
    shown = (str if plain else DocumentText) if data.return_documents or data.return_text else _absent
    return ChunkedResponse(_ranking(parts, model, wanted, data, shown), bytes, "application/json", whole=True)


def ranking_model(parts: Services, body: Ranking) -> Model:
    """Return the model that is asked for, or the only one that ranks.

    Raises:
        InvalidInputError: none is asked for, and there is not exactly one.
    """
    keep_loaded(body.keep_alive)
    if body.model is not None:
        return parts.engine.catalog[body.model]
    found = parts.engine.catalog.with_task(RERANK.name)
    if len(found) != 1:
        raise missing("model")
    return found[0]


def missing(name: str) -> InvalidInputError:
    """Return the error for a field that must be there."""
    message = f"Missing required parameter: '{name}'."
    return InvalidInputError(message, param=name, code="missing_required_parameter")


def ranking_request(
    body: Ranking, pairs: tuple[tuple[str, str], ...], max_document_tokens: int | None = None
) -> RerankRequest:
    """Return the request for these pairs."""
    return RerankRequest(
        pairs=pairs,
        raw_scores=bool(body.raw_scores) or body.use_activation is False,
        instruction=body.instruction,
        max_document_tokens=max_document_tokens,
        options=body.options or {},
    )


def _texts(body: RerankBody) -> list[str]:
    """Return the documents as the model reads them.

    Raises:
        InvalidInputError: there are none, or too many, or one has no text.
    """
    if body.texts is not None:
        check_count(len(body.texts), "texts")
        return body.texts
    if body.documents is None:
        raise missing("documents")
    check_count(len(body.documents), "documents")
    return [_text(document, index, body.rank_fields) for index, document in enumerate(body.documents)]


def _text(document: str | dict[str, Any], index: int, fields: list[str] | None) -> str:
    if isinstance(document, str):
        return document
    if fields and (chosen := {name: document[name] for name in fields if name in document}):
        return msgspec.yaml.encode(chosen).decode().rstrip()
    text = document.get("text")
    if not isinstance(text, str):
        name = f"documents[{index}]"
        raise InvalidInputError(f"Invalid '{name}': expected a text, or an object with 'text'.", param=name)
    return text


def _absent(_: str) -> UnsetType:
    return UNSET


async def _ranking(
    parts: Services, model: Model, wanted: RerankRequest, body: RerankBody, shown: Callable[[str], Any]
) -> AsyncGenerator[bytes, None]:
    names = {"pairs": "documents" if body.texts is None else "texts"}
    found = await scores(parts, model, wanted, names)
    # The sort is stable: what is equally relevant stays in the order of the request.
    best = sorted(found, key=lambda score: -score.relevance)[: body.top_n or body.top_k or None]
    chosen = [(score.index, score.relevance, shown(wanted.pairs[score.index][1])) for score in best]
    if body.texts is not None:
        yield _encode([RankedText(index=index, score=relevance, text=text) for index, relevance, text in chosen])
        return
    results = [Ranked(index=index, relevance_score=relevance, document=text) for index, relevance, text in chosen]
    tokens = sum(score.tokens for score in found)
    yield _encode(
        RerankResults(
            id=new_id("rerank-"),
            created=int(time.time()),
            model=model.id,
            results=results,
            data=results,
            usage=TokenUsage(prompt_tokens=tokens, total_tokens=tokens),
            meta=RerankMeta(tokens=RerankTokens(input_tokens=tokens)),
        )
    )


async def scores(parts: Services, model: Model, wanted: RerankRequest, names: Mapping[str, str]) -> list[Score]:
    """Return the score of each pair; `names` are the client's ones, as `spelled` takes them."""
    renamed = {"max_document_tokens": "max_tokens_per_doc", **names}
    found = await answers(parts.engine, RERANK, model, wanted, Score, renamed)
    check_finite(model.id, found)
    return found


def check_finite(model_id: str, found: Iterable[Score]) -> None:
    """Raise `BackendError` if a score is one that JSON cannot write."""
    if not all(math.isfinite(score.relevance) for score in found):
        raise BackendError(f"The model '{model_id}' gave a score that is infinite or no number.")


ROUTES = [create_rerank]
