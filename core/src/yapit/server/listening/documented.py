"""What the OpenAPI document says of bodies that a handler reads itself."""

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema

from yapit.server.listening.bodies import TranscriptionBody, TranslationBody

_PLAIN = ("type", "enum", "minimum", "maximum", "required")


def _schema(kind: Any) -> Schema:
    """Return the schema of a struct's field, or of a struct, as a form or JSON may have it."""
    (described,), definitions = msgspec.json.schema_components([kind], ref_template="{name}")
    return _inlined(described, definitions)


def _inlined(described: dict[str, Any], definitions: dict[str, Any]) -> Schema:
    if "$ref" in described:
        described = definitions[described["$ref"]]
    plain: dict[str, Any] = {name: described[name] for name in _PLAIN if name in described}
    if "items" in described:
        plain["items"] = _inlined(described["items"], definitions)
    if "properties" in described:
        plain["properties"] = {name: _inlined(item, definitions) for name, item in described["properties"].items()}
    if "anyOf" in described:
        plain["any_of"] = [_inlined(item, definitions) for item in described["anyOf"]]
    return Schema(**plain)


@dataclass
class TranslationOperation(Operation):
    """Documents the two bodies, which the handler reads itself, and every kind of answer."""

    kind = TranslationBody

    def __post_init__(self) -> None:
        form, said = _schema(self.kind), _schema(self.kind)
        assert form.properties is not None  # noqa: S101 - a struct has fields
        assert said.required is not None  # noqa: S101 - likewise
        del form.properties["input_audio"]
        form.properties["file"] = Schema(type="string", format="binary")  # type: ignore[arg-type]  # plain names
        form.required = ["model", "file"]
        said.required = ["model", "input_audio"]
        self.request_body = RequestBody(
            required=True,
            content={
                "multipart/form-data": OpenAPIMediaType(schema=form),
                "application/json": OpenAPIMediaType(schema=said),
            },
        )
        text = OpenAPIMediaType(schema=Schema(type="string"))  # type: ignore[arg-type]  # likewise
        content = self.responses["200"].content  # type: ignore[index, union-attr]  # filled by Litestar before this runs
        assert content is not None  # noqa: S101 - likewise
        content["text/plain"] = text
        if self.kind is TranscriptionBody:
            content["text/event-stream"] = text


@dataclass
class TranscriptionOperation(TranslationOperation):
    """Documents transcriptions."""

    kind = TranscriptionBody
