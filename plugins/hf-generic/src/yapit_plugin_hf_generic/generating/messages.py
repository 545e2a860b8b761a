"""Messages of OpenAI's shape as chat templates want them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from yapit import InvalidInputError
from yapit_plugin_hf_generic.generating.templates import ChatTemplate, Message

_ROLES = {"developer": "system", "function": "tool"}
_SHORT_ID = 9  # characters
_NOT_SHORT = re.compile("[^A-Za-z0-9]")
_TEXTS = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}


class Messages:
    """Makes a request's messages what a template takes.

    Args:
        template: of the model.
        seeing: the model takes images.
    """

    def __init__(self, template: ChatTemplate, *, seeing: bool) -> None:
        self._template = template
        self._seeing = seeing
        self.images: list[tuple[str, str]] = []

    def of(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        """Return the messages; the URLs of their images, each with its field, are in `images` then.

        Raises:
            InvalidInputError: a part is of a kind that the model does not take, with its place.
        """
        return [self._message(message, f"messages[{index}]") for index, message in enumerate(messages)]

    def _message(self, message: Mapping[str, Any], where: str) -> Message:
        role = str(message.get("role") or "user")
        role = _ROLES.get(role, role)
        # What is null is not there: templates take it for the word None.
        found = {key: value for key, value in message.items() if value is not None and key != "function_call"}
        found["role"] = role
        found["content"] = self._content(message.get("content"), role, where)
        calls = message.get("tool_calls") or []
        if message.get("function_call"):
            calls = [{"id": "call0", "type": "function", "function": message["function_call"]}]
        if calls:
            found["tool_calls"] = [self._call(call) for call in calls]
        if self._template.short_ids and "tool_call_id" in found:
            found["tool_call_id"] = _short(found["tool_call_id"])
        return found

    def _content(self, content: Any, role: str, where: str) -> str | list[dict[str, Any]]:
        shapes = self._template.shapes(role)
        parts = [] if content is None or content == "" else content
        if isinstance(parts, str):
            parts = [{"type": "text", "text": parts}]
        elif not isinstance(parts, list | tuple):
            raise InvalidInputError("Expected a text or a list of parts.", param=f"{where}.content")
        found = [self._part(part, f"{where}.content[{index}]") for index, part in enumerate(parts)]
        texts = [part["text"] for part in found if part["type"] == "text"]
        if len(texts) < len(found) and "parts" not in shapes:
            message = f"This model takes no images in messages of the role '{role}'."
            raise InvalidInputError(message, param=f"{where}.content")
        return "\n".join(texts) if len(texts) == len(found) and "text" in shapes else found

    def _part(self, part: Any, where: str) -> dict[str, Any]:
        """Return a part with nothing in it but what was asked for: a template's library would open paths and URLs."""
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _TEXTS and isinstance(text := part.get(_TEXTS[kind]), str):
            return {"type": "text", "text": text}
        if kind != "image_url":
            raise InvalidInputError(f"This model takes no parts of the type {kind!r}.", param=where)
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        if not isinstance(url, str):
            raise InvalidInputError("Expected an object with a URL.", param=f"{where}.image_url")
        if not self._seeing:
            raise InvalidInputError("This model takes no images.", param=where)
        self.images.append((url, f"{where}.image_url"))
        return {"type": "image"}

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = dict(call.get("function") or {})
        arguments = function.get("arguments")
        if self._template.parsed_arguments:
            arguments = _parsed(arguments)
        elif not isinstance(arguments, str):
            arguments = json.dumps(arguments or {}, ensure_ascii=False)
        found = {**call, "type": "function", "function": {**function, "arguments": arguments}}
        if self._template.short_ids and "id" in found:
            found["id"] = _short(found["id"])
        return found


def _parsed(arguments: Any) -> Any:
    """Return arguments as an object; as they are if they are none."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def _short(identity: Any) -> str:
    """Return 9 letters and digits for the id of a call, the same ones each time."""
    return _NOT_SHORT.sub("", str(identity))[-_SHORT_ID:].rjust(_SHORT_ID, "0")
