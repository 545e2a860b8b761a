"""Which functions the model may call, and what its answer must look like."""

from typing import Any, Literal

from msgspec import Struct

from yapit.errors import InvalidInputError
from yapit.server.writing.messages import missing, text_of, wrong

Tool = dict[str, Any]
Choice = str | dict[str, Any] | None
_MOST = 128


class Toolbox(Struct, frozen=True):
    """The functions that the model may call, and whether it must call one."""

    tools: tuple[Tool, ...] = ()
    choice: Literal["auto", "required"] = "auto"


def toolbox(tools: list[Tool], choice: Choice, field: str = "tools", inner: str = ".function") -> Toolbox:
    """Return what `tools` and `tool_choice` mean together.

    Args:
        tools: in OpenAI's chat shape.
        choice: none, auto, required, a function's name in its object, or a list of allowed ones in its object.
        field: what the client calls the tools.
        inner: where the client has the function in a tool.

    Raises:
        InvalidInputError: a tool is none, or what is chosen is not there.
    """
    if len(tools) > _MOST:
        raise wrong(field, f"there are {len(tools)} tools, and at most {_MOST} are allowed")
    names = [_name(tool, f"{field}[{index}]", inner) for index, tool in enumerate(tools)]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise wrong(field, f"there are two functions '{name}'")
    if choice in (None, "auto"):
        return Toolbox(tuple(tools))
    if choice == "none":
        return Toolbox()
    if not tools:
        raise wrong("tool_choice", f"it is only allowed with '{field}'")
    if choice == "required":
        return Toolbox(tuple(tools), "required")
    wanted, mode = _wanted(choice)
    for name in wanted:
        if name not in names:
            raise wrong("tool_choice", f"there is no function '{name}' in '{field}'")
    return Toolbox(tuple(tool for tool, name in zip(tools, names, strict=True) if name in wanted), mode)


def _name(tool: Tool, path: str, inner: str) -> str:
    """Return the name of the function, once the tool has been found right."""
    kind = tool.get("type")
    if kind != "function":
        if kind is None:
            raise missing(f"{path}.type")
        message = f"Invalid '{path}.type': only tools of type 'function' are supported, not {kind!r}."
        raise InvalidInputError(message, param=f"{path}.type", code="unsupported_value")
    path += inner
    function = tool.get("function")
    if not isinstance(function, dict):
        raise missing(path) if function is None else wrong(path, "expected an object")
    if not isinstance(function.get("parameters"), dict | None):
        raise wrong(f"{path}.parameters", "expected a JSON schema")
    if not isinstance(function.get("description"), str | None):
        raise wrong(f"{path}.description", "expected text")
    name = text_of(function, "name", path)
    if not name:
        raise wrong(f"{path}.name", "it is empty")
    return name


def _wanted(choice: Choice) -> tuple[list[str], Literal["auto", "required"]]:
    """Return the names that a choice allows, and whether one must be called."""
    match choice:
        case {"type": "function", "function": {"name": str(name)}}:
            return [name], "required"
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": [*allowed]}}:
            return [_allowed(tool) for tool in allowed], mode
    expected = "'none', 'auto', 'required', a function by name, or allowed functions"
    raise wrong("tool_choice", f"expected {expected}")


def _allowed(tool: Any) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
    raise wrong("tool_choice", "expected functions by name in its list of allowed tools")


def answer_format(
    wanted: dict[str, Any] | None, field: str = "response_format", inner: str = ".json_schema"
) -> dict[str, Any] | None:
    """Return what the text must be; None if it may be any text.

    Args:
        wanted: in OpenAI's chat shape.
        field: what the client calls it.
        inner: where the client has the schema in it.

    Raises:
        InvalidInputError: it is not one of the formats, or its schema is none.
    """
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {"type": "json_object"}
        case {"type": "json_schema"}:
            schema, path = wanted.get("json_schema"), field + inner
            if not isinstance(schema, dict):
                raise missing(path) if schema is None else wrong(path, "expected an object")
            text_of(schema, "name", path)
            if not isinstance(schema.get("schema"), dict | None):
                raise wrong(f"{path}.schema", "expected a JSON schema")
            return wanted
    raise wrong(f"{field}.type", "expected 'text', 'json_object' or 'json_schema'")
