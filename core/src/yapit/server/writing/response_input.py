"""The input of a response: items, as the conversation that adapters are given."""

from typing import Any

from msgspec import Struct

from yapit.errors import InvalidInputError
from yapit.server.writing.messages import Message, Part, missing, text_of, wrong

Item = dict[str, Any]
_ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}
_TEXTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}


class Conversation(Struct):
    """The messages, and under which names the client knows their parts."""

    messages: list[Message] = []
    names: dict[str, str] = {}

    def add(self, message: Message, place: str | None = None) -> None:
        """Add a message that stands at `place` of the request."""
        number = len(self.messages)
        self.messages.append(message)
        if place is not None and isinstance(message.get("content"), list):
            for index in range(len(message["content"])):
                self.names[f"messages[{number}].content[{index}]"] = f"{place}[{index}]"

    def add_call(self, call: Part) -> None:
        """Add a call to the assistant's turn."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        self.messages[-1].setdefault("tool_calls", []).append(call)


def conversation(given: str | list[Item], instructions: str | None) -> Conversation:
    """Return the messages that the instructions and the input are.

    Raises:
        InvalidInputError: an item has not the shape of its type, or a type that is not supported.
    """
    found = Conversation()
    if instructions is not None:
        found.add({"role": "system", "content": instructions})
    if isinstance(given, str):
        found.add({"role": "user", "content": given})
        return found
    if not given:
        raise wrong("input", "there is nothing in the list")
    for index, item in enumerate(given):
        _add(found, item, f"input[{index}]")
    return found


def _add(found: Conversation, item: Item, path: str) -> None:
    kind = item.get("type") or ("message" if "role" in item else None)
    match kind:
        case "message":
            found.add(_message(item, path), f"{path}.content")
        case "function_call":
            function = {"name": text_of(item, "name", path), "arguments": text_of(item, "arguments", path)}
            found.add_call({"id": text_of(item, "call_id", path), "type": "function", "function": function})
        case "function_call_output":
            name = text_of(item, "call_id", path)
            output = _content(item.get("output"), f"{path}.output")
            found.add({"role": "tool", "tool_call_id": name, "content": output}, f"{path}.output")
        case "reasoning":
            pass  # what the model thought before is not told to it again
        case None:
            raise missing(f"{path}.type")
        case _:
            raise _unsupported(f"{path}.type", f"items of type {kind!r} are not supported")


def _message(item: Item, path: str) -> Message:
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        known = ", ".join(map(repr, _ROLES))
        raise wrong(f"{path}.role", f"{role!r} is none of {known}") if role else missing(f"{path}.role")
    content = _content(item.get("content"), f"{path}.content")
    if role == "assistant" and isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    return {"role": _ROLES[role], "content": content}


def _content(content: Any, path: str) -> str | list[Part]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise missing(path) if content is None else wrong(path, "expected text or a list of parts")
    parts = [_part(part, f"{path}[{index}]") for index, part in enumerate(content)]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts


def _part(part: Any, path: str) -> Part:
    if not isinstance(part, dict):
        raise wrong(path, "expected an object")
    kind = part.get("type")
    if kind is None:
        raise missing(f"{path}.type")
    if isinstance(kind, str) and kind in _TEXTS:
        return {"type": "text", "text": text_of(part, _TEXTS[kind], path)}
    if kind != "input_image":
        raise _unsupported(path, f"parts of type {kind!r} are not supported")
    if part.get("file_id") is not None:
        raise _unsupported(f"{path}.file_id", "this server keeps no files")
    image = {"url": text_of(part, "image_url", path)}
    if part.get("detail") is not None:
        image["detail"] = text_of(part, "detail", path)
    return {"type": "image_url", "image_url": image}


def _unsupported(path: str, reason: str) -> InvalidInputError:
    return InvalidInputError(f"Invalid '{path}': {reason}.", param=path, code="unsupported_value")
