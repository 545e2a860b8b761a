"""`/v1/score`: pairs of texts in, their relevance out, as vLLM has it."""

import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec
from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.types import ASGIApp
from msgspec import Struct

from yapit.catalog import Model
from yapit.errors import InvalidInputError
from yapit.schemas import RerankRequest
from yapit.server.calls import TokenUsage, check_count, new_id
from yapit.server.problems import PROBLEMS
from yapit.server.rerank import Ranking, missing, ranking_model, ranking_request, scores
from yapit.server.responses import ChunkedResponse
from yapit.server.services import Services, services

_encode = msgspec.json.Encoder().encode


class ScoreBody(Ranking, frozen=True, kw_only=True):
    """Pairs of texts: as many on both sides, or one on one of them.

    Args:
        text_1: the queries.
        text_2: the documents.
        queries: the same as `text_1`.
        documents: the same as `text_2`.
    """

    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None


class PairScore(Struct, frozen=True, kw_only=True):
    """The score of one pair."""

    index: int
    object: str = "score"
    score: float


class ScoreList(Struct, frozen=True, kw_only=True):
    """The scores, in the order of the pairs."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[PairScore]
    usage: TokenUsage


@post(
    ["/v1/score", "/score"],
    status_code=200,
    responses={200: ResponseSpec(ScoreList, description="The scores."), **PROBLEMS},
    tags=["rerank"],
)
async def create_score(request: Request[Any, Any, Any], data: JSONBody[ScoreBody]) -> ASGIApp:
    """Score pairs of texts."""
    parts = services(request)
    model = ranking_model(parts, data)
    pairs, many = _pairs(data)
    names = {"pairs": many}
    if isinstance(getattr(data, many), str):
        names["pairs[0]"] = many
    return ChunkedResponse(
        _answer(parts, model, ranking_request(data, pairs), names), bytes, "application/json", whole=True
    )


def _pairs(body: ScoreBody) -> tuple[tuple[tuple[str, str], ...], str]:
    """Return the pairs, and the field that has one text for each.

    Raises:
        InvalidInputError: there are none or too many, or the sides differ in number.
    """
    first = "queries" if body.text_1 is None and body.queries is not None else "text_1"
    second = "documents" if body.text_2 is None and body.documents is not None else "text_2"
    sides = []
    for name in (first, second):
        given = getattr(body, name)
        if given is None:
            raise missing(name)
        sides.append([given] if isinstance(given, str) else given)
        check_count(len(sides[-1]), name)
    queries, documents = sides
    count = max(len(queries), len(documents))
    if {len(queries), len(documents)} - {1, count}:
        message = f"Invalid '{second}': {len(documents)} texts cannot be paired with {len(queries)} in '{first}'."
        raise InvalidInputError(message, param=second)
    many = first if len(queries) > len(documents) else second
    return tuple(zip(queries * (count // len(queries)), documents * (count // len(documents)), strict=True)), many


async def _answer(
    parts: Services, model: Model, wanted: RerankRequest, names: Mapping[str, str]
) -> AsyncGenerator[bytes, None]:
    found = await scores(parts, model, wanted, names)
    tokens = sum(score.tokens for score in found)
    yield _encode(
        ScoreList(
            id=new_id("score-"),
            created=int(time.time()),
            model=model.id,
            data=[PairScore(index=score.index, score=score.relevance) for score in found],
            usage=TokenUsage(prompt_tokens=tokens, total_tokens=tokens),
        )
    )


ROUTES = [create_score]
