"""`/v1/classify`: texts or images in, labels with scores out."""

import binascii
import re
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, post
from litestar.datastructures import FormMultiDict, UploadFile
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.params import JSONBody
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from yapit.catalog import Model
from yapit.errors import InvalidInputError
from yapit.schemas import Classification, ClassifyRequest
from yapit.server.calls import TokenUsage, answers, check_count, new_id
from yapit.server.problems import PROBLEMS
from yapit.server.requests import keep_loaded
from yapit.server.responses import ChunkedResponse
from yapit.server.services import Services, services
from yapit.tasks import CLASSIFY

_encode = msgspec.json.Encoder().encode
_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


class ImageUrl(Struct, frozen=True):
    """An image as a data URL."""

    url: str


class ClassifyItem(Struct, frozen=True, kw_only=True):
    """A text or an image: base64, or a data URL; OpenAI's chat parts are taken too."""

    text: str | None = None
    image: str | None = None
    image_url: ImageUrl | str | None = None


class ClassifyBody(Struct, frozen=True, kw_only=True):
    """What to label; a null field counts as absent, an unknown one is ignored.

    Args:
        model: id or alias of a model that classifies.
        input: a text or an image, or a list of either.
        labels: the candidates, for models that take any.
        multi_label: each label is scored by itself; else the scores sum to 1.
        hypothesis_template: the sentence in which a candidate is put for `{}`.
        top_k: as many of the best labels; all when absent or 0.
        options: the model's own parameters.
        keep_alive: how long the model stays loaded after this, when idle: seconds, or `10m`.
    """

    model: str
    input: str | ClassifyItem | list[str | ClassifyItem]
    labels: list[str] | None = None
    multi_label: bool | None = None
    hypothesis_template: str | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    options: dict[str, Any] | None = None
    keep_alive: str | float | None = None


class LabelScore(Struct, frozen=True, kw_only=True):
    """A label and its score."""

    label: str
    score: float


class Labelled(Struct, frozen=True, kw_only=True):
    """The labels of one input, best first, and the best one; `index` is the input's place in the request."""

    index: int
    label: str
    score: float
    scores: list[LabelScore]


class ClassificationList(Struct, frozen=True, kw_only=True):
    """The labels, in the order of the inputs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Labelled]
    usage: TokenUsage


@dataclass
class _FormOperation(Operation):
    """Documents that the body may be a form with files."""

    def __post_init__(self) -> None:
        file = Schema(type="string", format="binary")  # type: ignore[arg-type]  # a plain OpenAPI type name
        text = Schema(type="string")  # type: ignore[arg-type]  # likewise
        files = Schema(type="array", items=file)  # type: ignore[arg-type]  # likewise
        form = Schema(type="object", properties={"model": text, "file": files}, required=["model", "file"])  # type: ignore[arg-type]  # likewise
        assert isinstance(self.request_body, RequestBody)  # noqa: S101 - filled by Litestar before this runs
        self.request_body.content["multipart/form-data"] = OpenAPIMediaType(schema=form)


async def read_form(form: FormMultiDict) -> dict[str, Any]:
    """Return the body that a form says: its files are images, and its other fields have the names they have in JSON.

    Raises:
        InvalidInputError: `options` is not JSON.
    """
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    fields: dict[str, Any] = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    images = [{"image": b64encode(await file.read()).decode()} for file in files]
    given = [*form.getall("input", []), *images]
    if given:
        fields["input"] = given
    if "labels" in fields:
        fields["labels"] = form.getall("labels")
    if "options" in fields:
        try:
            fields["options"] = msgspec.json.decode(fields["options"])
        except msgspec.DecodeError as error:
            raise InvalidInputError(f"Invalid 'options': it is not JSON: {error}.", param="options") from error
    return fields


@post(
    ["/v1/classify", "/classify"],
    status_code=200,
    responses={200: ResponseSpec(ClassificationList, description="The labels."), **PROBLEMS},
    operation_class=_FormOperation,
    opt={"form": read_form},
    tags=["classify"],
)
async def create_classification(request: Request[Any, Any, Any], data: JSONBody[ClassifyBody]) -> ASGIApp:
    """Label each text, or each image, of `input`."""
    parts = services(request)
    model = parts.engine.catalog[data.model]
    keep_loaded(data.keep_alive)
    return ChunkedResponse(_labels(parts, model, classify_request(data), data), bytes, "application/json", whole=True)


def classify_request(body: ClassifyBody) -> ClassifyRequest:
    """Return what the model is asked.

    Raises:
        InvalidInputError: there is nothing to label, too much, texts beside images, or something that is neither.
    """
    texts, images = _inputs(body.input)
    return ClassifyRequest(
        texts=texts,
        images=images,
        labels=tuple(body.labels or ()),
        multi_label=bool(body.multi_label),
        hypothesis_template=body.hypothesis_template,
        options=body.options or {},
    )


def _inputs(given: str | ClassifyItem | list[str | ClassifyItem]) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """Return the texts or the images."""
    if not isinstance(given, list):
        found = [_content(given, "input")]
    else:
        check_count(len(given), "input")
        found = [_content(item, f"input[{index}]") for index, item in enumerate(given)]
    texts = tuple(item for item in found if isinstance(item, str))
    images = tuple(item for item in found if isinstance(item, bytes))
    if texts and images:
        raise InvalidInputError("Invalid 'input': texts and images in one request.", param="input")
    return texts, images


def _content(item: str | ClassifyItem, name: str) -> str | bytes:
    text = item if isinstance(item, str) else item.text
    if text is not None:
        if not text:
            raise InvalidInputError(f"Invalid '{name}': it is empty.", param=name, code="empty_input")
        return text
    assert isinstance(item, ClassifyItem)  # noqa: S101 - tells mypy
    url = item.image_url.url if isinstance(item.image_url, ImageUrl) else item.image_url
    written = item.image if item.image is not None else url
    if written is None:
        raise InvalidInputError(f"Invalid '{name}': expected 'text', 'image' or 'image_url'.", param=name)
    return _image(written, name)


def _image(written: str, name: str) -> bytes:
    """Return the file that base64 or a data URL holds."""
    if re.match("https?:", written, re.IGNORECASE):
        message = f"Invalid '{name}': images are not fetched from elsewhere; send base64, or a data URL."
        raise InvalidInputError(message, param=name)
    try:
        image = b64decode("".join(_DATA_URL.sub("", written, count=1).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"Invalid '{name}': the image is neither base64 nor a data URL with base64."
        raise InvalidInputError(message, param=name) from error
    if not image:
        raise InvalidInputError(f"Invalid '{name}': the image is empty.", param=name, code="empty_input")
    return image


async def _labels(
    parts: Services, model: Model, wanted: ClassifyRequest, body: ClassifyBody
) -> AsyncGenerator[bytes, None]:
    names = {"texts": "input", "images": "input"}
    if not isinstance(body.input, list):
        names |= {"texts[0]": "input", "images[0]": "input"}
    found = await answers(parts.engine, CLASSIFY, model, wanted, Classification, names)
    tokens = sum(classification.tokens for classification in found)
    yield _encode(
        ClassificationList(
            id=new_id("classify-"),
            created=int(time.time()),
            model=model.id,
            data=[_labelled(classification, body.top_k or None) for classification in found],
            usage=TokenUsage(prompt_tokens=tokens, total_tokens=tokens),
        )
    )


def _labelled(classification: Classification, top_k: int | None) -> Labelled:
    best, score = classification.scores[0]
    scores = [LabelScore(label=label, score=value) for label, value in classification.scores[:top_k]]
    return Labelled(index=classification.index, label=best, score=score, scores=scores)


ROUTES = [create_classification]
