"""A model's chat template, and what it wants to be given.

The template is code of the repository's: transformers runs it in a sandbox, in which it sees plain data only.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import structlog
from jinja2 import TemplateError, TemplateSyntaxError

from yapit import InvalidInputError, LoadError, SettingsError

_log = structlog.get_logger(__name__)
_PROBE = "yapitprobe"
_PROBED = ("user", "system", "assistant", "tool")
_REASON = 300  # characters of a template's message that are passed on
# What a template fails with when it is given what it does not expect.
_FAILURES = (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)

Message = dict[str, Any]
Shape = Literal["text", "parts"]


def template_of(holder: Any, option: str | None) -> str | dict[str, str] | None:
    """Return the chat template of a tokenizer or processor, or the one that an option names or is.

    Raises:
        SettingsError: the option names a file that cannot be read.
    """
    if option is None:
        found = getattr(holder, "chat_template", None)
        if found is None and hasattr(holder, "tokenizer"):
            found = getattr(holder.tokenizer, "chat_template", None)
        return found or None
    if "{" in option:
        return option
    try:
        return Path(option).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        message = f"options: chat_template: expected a template, or the path of one that can be read: {error}"
        raise SettingsError(message) from error


class ChatTemplate:
    """Puts messages in the form that a model was trained on.

    Args:
        holder: the tokenizer, or the processor of a model that sees.
        template: its text, or several by their names, of which `tool_use` is for requests with tools.

    Raises:
        LoadError: it is no template.
    """

    def __init__(self, holder: Any, template: str | Mapping[str, str]) -> None:
        self._holder = holder
        self._templates = {"default": template} if isinstance(template, str) else dict(template)
        self.text = "\n".join(self._templates.values())
        self.short_ids = "length 9" in self.text  # Mistral's refuse all other ids of calls
        self._given_arguments = self._probe_arguments()
        self._shapes = {role: self._probe_shapes(role) for role in _PROBED}

    def knows(self, variable: str) -> bool:
        """Tell whether the template says anything of a variable."""
        return re.search(rf"\b{variable}\b", self.text) is not None

    def shapes(self, role: str) -> frozenset[Shape]:
        """Return the shapes that the content of a role's messages may have."""
        return self._shapes.get(role, self._shapes["user"])

    @property
    def parsed_arguments(self) -> bool:
        """Whether the arguments of a call are given as an object, and not as JSON text."""
        return self._given_arguments == "object"

    def render(self, messages: Sequence[Message], *, tools: Sequence[Any] = (), **variables: Any) -> str:
        """Return the text of a chat.

        Raises:
            InvalidInputError: the template refuses the messages, with what it says.
        """
        try:
            return self._rendered(messages, tools, variables)
        except _FAILURES as error:
            said = " ".join(str(error).split())[:_REASON]
            message = f"This model's chat template does not take these messages: {said}"
            raise InvalidInputError(message, param="messages") from error

    def _rendered(self, messages: Sequence[Message], tools: Sequence[Any], variables: Mapping[str, Any]) -> str:
        wanted = "tool_use" if tools and "tool_use" in self._templates else "default"
        template = self._templates.get(wanted) or next(iter(self._templates.values()))
        text: str = self._holder.apply_chat_template(
            list(messages), chat_template=template, tools=list(tools) or None, tokenize=False, **variables
        )
        return text

    def _tried(self, messages: Sequence[Message]) -> str:
        """Return the text of a chat, nothing if the template does not take it.

        Raises:
            LoadError: it is no template.
        """
        try:
            return self._rendered(messages, (), {})
        except TemplateSyntaxError as error:
            message = f"The chat template is wrong in line {error.lineno}: {error.message}"
            raise LoadError(message) from error
        except Exception as error:  # noqa: BLE001 - a template may fail in any way at what it was not made for
            _log.debug("template_probe", reason=str(error)[:_REASON])
            return ""

    def _probe_arguments(self) -> Literal["object", "text"]:
        if _PROBE in (said := self._tried(_called({_PROBE: 1}))) and f"{{'{_PROBE}'" not in said:
            return "object"
        as_text = f'{{"{_PROBE}": 1}}'
        return "text" if as_text in self._tried(_called(as_text)) else "object"

    def _probe_shapes(self, role: str) -> frozenset[Shape]:
        found: set[Shape] = set()
        if _PROBE in self._tried(self._chat(role, _PROBE)):
            found.add("text")
        said = self._tried(self._chat(role, [{"type": "text", "text": _PROBE}]))
        if _PROBE in said and "'type'" not in said and '"type"' not in said:
            found.add("parts")
        return frozenset(found or {"text"})

    def _chat(self, role: str, content: Any) -> list[Message]:
        """Return a chat in which a message of this role has this content, and all others nothing."""
        empty = "" if isinstance(content, str) else []
        message: Message = {"role": role, "content": content}
        question: Message = {"role": "user", "content": empty}
        if role == "user":
            return [message]
        if role == "system":
            return [message, question]
        if role == "assistant":
            return [question, message, question]
        arguments = {} if self._given_arguments == "object" else "{}"
        return [*_called(arguments, empty), {**message, "tool_call_id": "probe0000", "name": "probe"}]


def _called(arguments: Any, empty: Any = "") -> list[Message]:
    """Return a chat in which a function is called."""
    call = {"id": "probe0000", "type": "function", "function": {"name": "probe", "arguments": arguments}}
    return [{"role": "user", "content": empty}, {"role": "assistant", "content": empty, "tool_calls": [call]}]
