"""A conversation: checked, and in the one form that adapters are given."""

from typing import Any

from yapit.errors import InvalidInputError

Message = dict[str, Any]
Part = dict[str, Any]
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_PARTS = {
    "system": ("text",),
    "user": ("text", "image_url"),
    "assistant": ("text", "refusal"),
    "tool": ("text", "image_url"),
}
_MEDIA = {"input_audio": "audio", "file": "files"}


def checked(messages: list[Message]) -> tuple[Message, ...]:
    """Return the messages with today's roles: `developer` is `system`, `function` is `tool`.

    Raises:
        InvalidInputError: a message has not the shape of its role; names the place.
    """
    called: list[str] = []
    return tuple(_message(message, f"messages[{index}]", called) for index, message in enumerate(messages))


def _message(message: Message, path: str, called: list[str]) -> Message:
    role = message.get("role")
    if role not in _ROLES:
        known = ", ".join(map(repr, _ROLES))
        raise wrong(f"{path}.role", f"{role!r} is none of {known}") if role else missing(f"{path}.role")
    if not isinstance(message.get("name", ""), str | None):
        raise wrong(f"{path}.name", "expected text")
    match role:
        case "developer" | "system":
            return message | {"role": "system", "content": _content(message, path, "system")}
        case "user":
            return message | {"content": _content(message, path, "user")}
        case "assistant":
            return _assistant(message, path, called)
        case "tool":
            text_of(message, "tool_call_id", path)
            return message | {"content": _content(message, path, "tool")}
    # The answer to a call in the form that was used before there were tools.
    name = text_of(message, "name", path)
    content = "" if message.get("content") is None else text_of(message, "content", path)
    return {"role": "tool", "tool_call_id": called[-1] if called else name, "name": name, "content": content}


def _assistant(message: Message, path: str, called: list[str]) -> Message:
    kept = {key: value for key, value in message.items() if key not in ("refusal", "function_call", "audio")}
    if message.get("refusal") is not None and message.get("content") is None:
        kept["content"] = text_of(message, "refusal", path)
    calls = [_call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(items_of(message, "tool_calls", path))]
    if message.get("function_call") is not None:
        function = _function(message["function_call"], f"{path}.function_call")
        called.append(f"call_{path.removeprefix('messages[').removesuffix(']')}")
        calls.append({"id": called[-1], "type": "function", "function": function})
    kept.pop("tool_calls", None)
    if calls:
        kept["tool_calls"] = calls
    if calls and kept.get("content") is None:
        return kept | {"content": None}
    return kept | {"content": _content(kept, path, "assistant")}


def _call(call: Any, path: str) -> Part:
    if not isinstance(call, dict):
        raise wrong(path, "expected an object")
    if call.get("type", "function") != "function":
        raise wrong(f"{path}.type", "only calls of functions are supported")
    text_of(call, "id", path)
    return call | {"type": "function", "function": _function(call.get("function"), f"{path}.function")}


def _function(function: Any, path: str) -> Part:
    if not isinstance(function, dict):
        raise missing(path) if function is None else wrong(path, "expected an object")
    text_of(function, "name", path)
    text_of(function, "arguments", path)
    return function


def _content(message: Message, path: str, role: str) -> str | list[Part]:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        raise missing(f"{path}.content")
    if not isinstance(content, list):
        raise wrong(f"{path}.content", "expected text or a list of parts")
    return [_part(part, f"{path}.content[{index}]", role) for index, part in enumerate(content)]


def _part(part: Any, path: str, role: str) -> Part:
    if not isinstance(part, dict):
        raise wrong(path, "expected an object")
    kind = part.get("type")
    if isinstance(kind, str) and kind in _MEDIA:
        message = f"Invalid '{path}': messages with {_MEDIA[kind]} are not supported."
        raise InvalidInputError(message, param=path, code="unsupported_value")
    if kind not in _PARTS[role]:
        known = ", ".join(map(repr, _PARTS[role]))
        raise wrong(f"{path}.type", f"{kind!r} is none of {known}") if kind else missing(f"{path}.type")
    if kind == "image_url":
        return {"type": "image_url", "image_url": _image(part.get("image_url"), f"{path}.image_url")}
    return {"type": "text", "text": text_of(part, str(kind), path)}


def _image(image: Any, path: str) -> Part:
    # Some clients give the address alone.
    found = {"url": image} if isinstance(image, str) else image
    if not isinstance(found, dict):
        raise missing(path) if image is None else wrong(path, "expected an object with 'url'")
    text_of(found, "url", path)
    return found


def text_of(holder: dict[str, Any], key: str, path: str) -> str:
    """Return the text that must be there under `key`.

    Raises:
        InvalidInputError: it is not there, or no text; `path` is where `holder` stands.
    """
    value = holder.get(key)
    if isinstance(value, str):
        return value
    place = f"{path}.{key}" if path else key
    raise missing(place) if value is None else wrong(place, "expected text")


def items_of(holder: dict[str, Any], key: str, path: str) -> list[Any]:
    """Return the list that may be there under `key`; an empty one if it is not."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong(f"{path}.{key}" if path else key, "expected a list")
    return value


def missing(path: str) -> InvalidInputError:
    """Return the error for something that is not there and must be."""
    return InvalidInputError(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")


def wrong(path: str, reason: str) -> InvalidInputError:
    """Return the error for a value that is refused."""
    return InvalidInputError(f"Invalid '{path}': {reason}.", param=path)
