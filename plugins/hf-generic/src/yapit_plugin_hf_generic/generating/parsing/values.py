"""JSON of what models write in other forms."""

import json
from typing import Any

_PYTHON = {"True": "true", "False": "false", "None": "null"}
_KINDS: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}


def value_of(text: str, schema: Any) -> str:
    """Return the JSON of a parameter's value that was written without quotes, by what the function's schema says."""
    text = text.removeprefix("\n").removesuffix("\n")
    kinds = _kinds_of(schema)
    bare = text.strip()
    bare = _PYTHON.get(bare, bare)
    try:
        kind = _KINDS[type(json.loads(bare))]
    except ValueError:
        kind = "string"
    fits = kind in kinds or (kind == "integer" and "number" in kinds)
    return bare if fits and kind != "string" else json.dumps(text, ensure_ascii=False)


def parsed(text: str) -> Any:
    """Return what JSON says, None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def arguments_of(call: Any) -> str | None:
    """Return the arguments, as JSON text, of a call that is an object; None if it is no call."""
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    given = call.get("arguments", call.get("parameters"))
    if isinstance(given, str):
        return given if isinstance(parsed(given), dict) else None
    return json.dumps(given or {}, ensure_ascii=False) if given is None or isinstance(given, dict) else None


def _kinds_of(schema: Any) -> set[str]:
    """Return the types of JSON that a schema allows, as far as it says so in itself; nothing means text."""
    if not isinstance(schema, dict):
        return set()
    said = schema.get("type", [])
    kinds = {said} if isinstance(said, str) else {kind for kind in said if isinstance(kind, str)}
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        kinds |= _kinds_of(choice)
    if not kinds and isinstance(schema.get("enum"), list):
        kinds = {_KINDS.get(type(value), "string") for value in schema["enum"]}
    return kinds
