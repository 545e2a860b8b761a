"""From a request to the tokens that the model reads."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Literal

from msgspec import Struct

from yapit import GenerateRequest, InvalidInputError
from yapit_plugin_hf_generic.generating.filling import filled, form_of
from yapit_plugin_hf_generic.generating.images import Images
from yapit_plugin_hf_generic.generating.messages import Messages
from yapit_plugin_hf_generic.generating.parsing import AnswerStyle, Tags, ToolsFormat
from yapit_plugin_hf_generic.generating.templates import ChatTemplate, Message, template_of
from yapit_plugin_hf_generic.options import Options, Settings

_NOT_INPUTS = ("input_ids", "attention_mask")
_GENERATION_PROMPT = 300  # characters at most
_EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}  # gpt-oss knows three
_NOT_SHOWN = ("strict",)  # of a function: how it is decoded, not what it does


class ChatOptions(Options, frozen=True, kw_only=True):
    """How a model is talked to.

    Args:
        chat_template: the template, or the path of one, instead of the repository's own.
        reasoning: the tags around what the model thinks, if they are not found; `none` leaves them in the text.
        tools_format: how the model writes calls, if that is not found.
        fim: prompts that fill in the middle, with `{prefix}` and `{suffix}`, if the form is not found.
    """

    chat_template: str | None = None
    reasoning: Literal["auto", "none"] | Tags = "auto"
    tools_format: Literal["auto"] | ToolsFormat = "auto"
    fim: str | None = None


class Prompt(Struct, frozen=True, kw_only=True):
    """What the model reads.

    Args:
        ids: the tokens.
        inputs: further inputs of the model, tensors of the processor: for images; None for text only.
        prefix: what the prompt has written of the answer: reasoning that it begins or leaves out, or the message that
            is continued.
    """

    ids: list[int]
    inputs: dict[str, Any] | None = None
    prefix: str = ""


class Chat:
    """Makes prompts of requests.

    Args:
        tokenizer: of the model.
        processor: of a model that sees, None for others.
        settings: of the plugin: what holds for images.
        options: of the model.

    Raises:
        LoadError: the chat template is no template.
        SettingsError: the option names one that cannot be read.
    """

    def __init__(
        self,
        tokenizer: Any,
        processor: Any | None,
        settings: Settings,
        options: ChatOptions,
        *,
        images: Images | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._processor = processor
        self._images = images or Images(settings)
        found = template_of(processor or tokenizer, options.chat_template)
        self._template = None if found is None else ChatTemplate(processor or tokenizer, found)
        self._fim = form_of(tokenizer.get_vocab(), options.fim)
        # What a template's variable must not be called: it would be taken for something else.
        reserved = signature(type(processor or tokenizer).apply_chat_template).parameters
        self._reserved = frozenset(reserved) | {"messages", "tools"}
        text = None if self._template is None else self._template.text
        self.style = AnswerStyle.of(tokenizer, text, options)

    def prompt(self, request: GenerateRequest) -> Prompt:
        """Return the prompt of a request; not to be called on a thread with an event loop if there may be images.

        Raises:
            InvalidInputError: the model does not take what the request has.
        """
        if request.prompt is not None:
            return Prompt(ids=self._ids(request.prompt, request.suffix))
        if self._template is None:
            message = (
                "This model has no chat template: use /v1/completions, or give it one with the option 'chat_template' "
                "of its catalog entry."
            )
            raise InvalidInputError(message, param="messages")
        return self._chat(self._template, request)

    def _ids(self, prompt: str | Sequence[int], suffix: str | None) -> list[int]:
        if not isinstance(prompt, str):
            if suffix:
                raise InvalidInputError("A prompt with a suffix must be a text.", param="suffix")
            return self._known(prompt)
        text = filled(self._fim, prompt, suffix) if suffix else prompt
        ids: list[int] = self._tokenizer(text)["input_ids"]
        first = self._tokenizer.bos_token_id
        return ids or ([] if first is None else [first])

    def _known(self, ids: Sequence[int]) -> list[int]:
        size = len(self._tokenizer)
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            message = f"The model has no token {wrong}; its tokens are 0 to {size - 1}."
            raise InvalidInputError(message, param="prompt")
        return list(ids)

    def _chat(self, template: ChatTemplate, request: GenerateRequest) -> Prompt:
        reading = Messages(template, seeing=self._processor is not None)
        messages = reading.of(request.messages)
        continued = self._continued(request)
        tools, variables = _shown(request.tools), self._variables(template, request)
        begun = request.options.get("add_generation_prompt") is not False
        how: dict[str, Any] = {"continue_final_message": True} if continued else {"add_generation_prompt": begun}
        text = template.render(messages, tools=tools, **how, **variables)
        if continued:
            prefix = _text_of(messages[-1])
        else:
            prefix = self._prefix(text, lambda: template.render(messages, tools=tools, **variables))
        if self._processor is None:
            return Prompt(ids=self._tokenizer(text, add_special_tokens=False)["input_ids"], prefix=prefix)
        return self._seen(text, prefix, reading.images)

    def _seen(self, text: str, prefix: str, wanted: Sequence[tuple[str, str]]) -> Prompt:
        """Return the prompt of a model that takes images."""
        assert self._processor is not None  # noqa: S101 - else this is not called
        images = self._images.load(wanted)
        first = self._tokenizer.bos_token
        special = {"add_special_tokens": False} if first and text.startswith(first) else {}
        try:
            found = self._processor(text=[text], images=[images] if images else None, return_tensors="pt", **special)
        except (ValueError, LookupError, RuntimeError, StopIteration) as error:
            # A client has written the model's own mark for an image, or an image is too small for the model.
            message = f"The images do not fit the text, or the model: {' '.join(str(error).split())[:200]}"
            raise InvalidInputError(message, param="messages") from error
        ids: list[int] = found["input_ids"][0].tolist()
        inputs = {key: value for key, value in found.items() if key not in _NOT_INPUTS} if images else None
        return Prompt(ids=ids, inputs=inputs, prefix=prefix)

    def _prefix(self, text: str, without: Any) -> str:
        """Return what a prompt writes of the reasoning, after the beginning of the assistant's turn."""
        tags = self.style.reasoning
        tail = text[-_GENERATION_PROMPT:]
        if tags is None or (tags.open not in tail and tags.close not in tail):
            return ""
        before = without()
        added = text[len(before) :] if text.startswith(before) else ""
        places = [at for tag in (tags.open, tags.close) if (at := added.find(tag)) >= 0]
        return added[min(places) :] if places else ""

    def _continued(self, request: GenerateRequest) -> bool:
        """Tell whether the answer goes on with the last message."""
        last = request.messages[-1] if request.messages else {}
        asked = request.options.get("continue_final_message", last.get("prefix"))
        if asked and last.get("role") != "assistant":
            message = "Only a last message of the assistant can be continued."
            raise InvalidInputError(message, param="continue_final_message")
        return bool(asked)

    def _variables(self, template: ChatTemplate, request: GenerateRequest) -> dict[str, Any]:
        """Return the template's variables: those of the request's options, and those about reasoning."""
        given = request.options.get("chat_template_kwargs") or {}
        if not isinstance(given, Mapping) or self._reserved & set(given):
            message = f"Expected an object with no {', '.join(sorted(self._reserved & set(given)))}."
            raise InvalidInputError(message, param="chat_template_kwargs")
        effort = request.reasoning_effort
        if effort is None:
            return dict(given)
        found: dict[str, Any] = {"reasoning_effort": effort}
        if self.style.tools == "harmony":
            found["reasoning_effort"] = _EFFORTS.get(effort, effort)
        for name in ("enable_thinking", "thinking"):
            if template.knows(name):
                found[name] = effort != "none"
        return {**found, **given}


def _shown(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the functions as a template shows them to the model.

    Raises:
        InvalidInputError: a tool is no function.
    """
    found = []
    for index, tool in enumerate(tools):
        function = tool.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidInputError("Expected a function with a name.", param=f"tools[{index}]")
        said = {key: value for key, value in function.items() if value is not None and key not in _NOT_SHOWN}
        found.append({"type": "function", "function": said})
    return found


def _text_of(message: Message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
