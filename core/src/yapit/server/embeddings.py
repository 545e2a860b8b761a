"""`/v1/embeddings`: texts or tokens in, vectors out."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Iterable
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np
from litestar import Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.types import ASGIApp
from msgspec import Meta, Raw, Struct

from yapit.catalog import Model
from yapit.errors import BackendError, InvalidInputError
from yapit.schemas import Embedding, EmbedRequest
from yapit.server.calls import TokenUsage, answers, check_count
from yapit.server.problems import PROBLEMS
from yapit.server.requests import keep_loaded
from yapit.server.responses import ChunkedResponse
from yapit.server.services import Services, services
from yapit.tasks import EMBED

EncodingFormat = Literal["float", "base64"]
_TOKENS = range(2**31)
_SLICE = 16  # vectors: a few milliseconds for long ones, after which others get their turn
_encode = msgspec.json.Encoder().encode


class EmbeddingsBody(Struct, frozen=True, kw_only=True):
    """What to embed; a null field counts as absent, an unknown one is ignored.

    Args:
        model: id or alias of a model that embeds.
        input: a text, texts, the tokens of a text, or lists of tokens; tokens are the model's own.
        encoding_format: lists of numbers when absent, or base64 of little-endian float32.
        dimensions: length of the vectors, for models whose vectors may be cut.
        input_type: which of the model's prompts goes before the texts, such as `query` or `document`.
        truncate: cut texts that are too long for the model; else they are an error.
        options: the model's own parameters.
        keep_alive: how long the model stays loaded after this, when idle: seconds, or `10m`.
    """

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: EncodingFormat | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    input_type: str | None = None
    truncate: bool | None = None
    options: dict[str, Any] | None = None
    keep_alive: str | float | None = None


class EmbeddingItem(Struct, frozen=True, kw_only=True):
    """One vector: numbers, or base64 of little-endian float32; `index` is its text's place in the request."""

    object: str = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """The vectors, in the order of the texts."""

    object: str = "list"
    data: list[EmbeddingItem]
    model: str
    usage: TokenUsage


@post(
    ["/v1/embeddings", "/embeddings"],
    status_code=200,
    responses={200: ResponseSpec(EmbeddingList, description="The vectors."), **PROBLEMS},
    tags=["embeddings"],
)
async def create_embeddings(request: Request[Any, Any, Any], data: JSONBody[EmbeddingsBody]) -> ASGIApp:
    """Embed each text of `input`, or each list of tokens."""
    parts = services(request)
    model = parts.engine.catalog[data.model]
    keep_loaded(data.keep_alive)
    return ChunkedResponse(_vectors(parts, model, embed_request(data), data), bytes, "application/json", whole=True)


def embed_request(body: EmbeddingsBody) -> EmbedRequest:
    """Return what the model is asked.

    Raises:
        InvalidInputError: there is nothing to embed, too much, or something empty among it.
    """
    return EmbedRequest(
        inputs=_inputs(body.input),
        dimensions=body.dimensions,
        input_type=body.input_type,
        truncate=bool(body.truncate),
        options=body.options or {},
    )


def _inputs(given: str | list[str | int | list[int]]) -> tuple[str | tuple[int, ...], ...]:
    """Return what is to be embedded: texts, and tuples of tokens."""
    if isinstance(given, str):
        return (_checked(given, "input"),)
    kinds = set(map(type, given))
    if kinds == {int}:
        return (_checked(cast("list[int]", given), "input"),)
    check_count(len(given), "input")
    if int in kinds:
        place = next(index for index, item in enumerate(given) if isinstance(item, int))
        raise InvalidInputError(f"Invalid 'input[{place}]': a token among texts.", param=f"input[{place}]")
    texts = cast("list[str | list[int]]", given)
    return tuple(_checked(item, f"input[{index}]") for index, item in enumerate(texts))


def _checked(item: str | list[int], name: str) -> str | tuple[int, ...]:
    if not item:
        raise InvalidInputError(f"Invalid '{name}': it is empty.", param=name, code="empty_input")
    if isinstance(item, str):
        return item
    if min(item) not in _TOKENS or max(item) not in _TOKENS:
        raise InvalidInputError(f"Invalid '{name}': it has numbers that no token has.", param=name)
    return tuple(item)


async def _vectors(
    parts: Services, model: Model, wanted: EmbedRequest, body: EmbeddingsBody
) -> AsyncGenerator[bytes, None]:
    """Yield the response.

    Raises:
        BackendError: the model answered numbers that are none.
    """
    names = {"inputs": "input"}
    if isinstance(body.input[0], int) or body.input == wanted.inputs[0]:
        names["inputs[0]"] = "input"  # it is no list of inputs
    found = await answers(parts.engine, EMBED, model, wanted, Embedding, names)
    slices = []
    for start in range(0, len(found), _SLICE):
        items = _items(model, found[start : start + _SLICE], body.encoding_format or "float")
        slices.append(_encode(items)[1:-1])
        await asyncio.sleep(0)
    tokens = sum(embedding.tokens for embedding in found)
    yield _encode(
        EmbeddingList(
            data=cast("list[EmbeddingItem]", [Raw(b",".join(slices))]),  # encoded already
            model=model.id,
            usage=TokenUsage(prompt_tokens=tokens, total_tokens=tokens),
        )
    )


def _items(model: Model, embeddings: Iterable[Embedding], form: EncodingFormat) -> list[EmbeddingItem]:
    items = []
    for embedding in embeddings:
        vector = np.frombuffer(embedding.vector, "<f4")
        if not np.isfinite(vector).all():
            raise BackendError(f"The model '{model.id}' gave a vector of which some numbers are infinite or none.")
        written = b64encode(embedding.vector).decode() if form == "base64" else decimals(vector)
        items.append(EmbeddingItem(index=embedding.index, embedding=written))
    return items


def decimals(vector: "np.ndarray[Any, np.dtype[np.float32]]") -> list[float]:
    """Return the numbers with nine digits: as many name every float32, and all 17 of a float64 are twice the bytes."""
    exact = vector.astype(np.float64)
    magnitude = np.floor(np.log10(np.abs(exact), out=np.zeros_like(exact), where=exact != 0))
    scale = 10.0 ** (8 - magnitude)
    rounded: list[float] = (np.rint(exact * scale) / scale).tolist()
    return rounded


ROUTES = [create_embeddings]
