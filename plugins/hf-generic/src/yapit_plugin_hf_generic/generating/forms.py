"""The form that a request wants its answer to have."""

import json
from collections.abc import Mapping
from typing import Any

from llguidance import grammar_from, regex_to_lark

from yapit import GenerateRequest, InvalidInputError
from yapit_plugin_hf_generic.generating.calling import json_rule, literal

_ANY_OBJECT = {"type": "object"}
_GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice", "guided_grammar": "grammar"}
_REASON = 300  # characters of a library's message that are passed on


def wanted_form(request: GenerateRequest) -> tuple[str, Any, str] | None:
    """Return the kind of form the answer must have, the form, and the field that says so; None if it is free.

    Raises:
        InvalidInputError: several are asked for, or one of an unknown kind.
    """
    if request.tools and request.tool_choice == "required":
        return "tools", list(request.tools), "tools"
    found = _of_response_format(request.response_format) if request.response_format else []
    guided = [(kind, request.options[name], name) for name, kind in _GUIDED.items() if request.options.get(name)]
    outputs = request.options.get("structured_outputs") or {}
    if not isinstance(outputs, Mapping) or set(outputs) - {*_GUIDED.values(), "json_object"}:
        message = f"Expected an object with one of {', '.join(_GUIDED.values())}, json_object."
        raise InvalidInputError(message, param="structured_outputs")
    found += guided
    found += [_of_outputs(kind, value) for kind, value in outputs.items() if value]
    if len(found) > 1:
        names = ", ".join(name for _, _, name in found)
        raise InvalidInputError(f"An answer can have one form only; these ask for several: {names}.", param=found[1][2])
    return found[0] if found else None


def _of_response_format(wanted: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    kind = wanted.get("type")
    if kind == "json_object":
        return [("json", _ANY_OBJECT, "response_format")]
    if kind == "json_schema":
        schema = (wanted.get("json_schema") or {}).get("schema")
        return [("json", _ANY_OBJECT if schema is None else schema, "response_format")]
    if kind in {None, "text"}:
        return []
    message = f"Unknown type {kind!r}: expected text, json_object or json_schema."
    raise InvalidInputError(message, param="response_format.type")


def _of_outputs(kind: str, value: Any) -> tuple[str, Any, str]:
    if kind == "json_object":
        return "json", _ANY_OBJECT, "structured_outputs"
    return kind, value, "structured_outputs"


def _json_rule(value: Any, param: str) -> str:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidInputError(f"The JSON schema is no JSON: {error}", param=param) from error
    if not isinstance(value, Mapping | bool):
        raise InvalidInputError("A JSON schema is an object.", param=param)
    return json_rule(value)


def _regex_rule(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise InvalidInputError("Expected the text of a regular expression.", param=param)
    return f"/{regex_to_lark(value)}/"


def _choice_rule(value: Any, param: str) -> str:
    if not isinstance(value, list | tuple) or not all(isinstance(choice, str) and choice for choice in value):
        raise InvalidInputError("Expected a list of texts.", param=param)
    return " | ".join(literal(choice) for choice in value)


def lark_of(value: Any, param: str) -> str:
    """Return a grammar in Lark's syntax, given in that or in GBNF's.

    Raises:
        InvalidInputError: it is in neither.
    """
    if not isinstance(value, str):
        raise InvalidInputError("Expected the text of a grammar, in Lark's or GBNF's syntax.", param=param)
    try:
        text: str = grammar_from("grammar", value)
    except ValueError as error:
        raise InvalidInputError(f"The grammar is refused: {brief(error)}", param=param) from error
    return text


RULES = {"json": _json_rule, "regex": _regex_rule, "choice": _choice_rule}


def brief(said: Any) -> str:
    """Return the first line of a library's message."""
    return str(said).strip().split("\n")[0][:_REASON]
