"""How a model marks what it thinks and which functions it calls: found from its chat template and vocabulary."""

from typing import Any, Literal, Protocol

import regex
from msgspec import Struct

ToolsFormat = Literal[
    "hermes",
    "xml",
    "glm",
    "llama3",
    "mistral",
    "mistral-args",
    "deepseek",
    "deepseek-v31",
    "kimi",
    "granite",
    "harmony",
    "json",
]


def bars(words: str) -> str:
    """Return a mark as DeepSeek's vocabularies have them: between wide bars, with wide spaces."""
    return f"<\uff5c{words}\uff5c>".replace(" ", "\u2581")


class DeepSeek:
    """The marks of DeepSeek's calls."""

    ALL_BEGIN = bars("tool calls begin")
    BEGIN = bars("tool call begin")
    BETWEEN = bars("tool sep")
    END = bars("tool call end")
    ALL_END = bars("tool calls end")


class Tags(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The texts before and after what a model thinks."""

    open: str
    close: str


class Markup(Struct, frozen=True, kw_only=True):
    """Arguments that are written as tags instead of JSON.

    Args:
        name: of the function, with what is before it; the group `name`.
        lead: how a parameter begins.
        key: its beginning up to the value; group 1 is its name.
        close: after a value.
        done: after the last parameter, None if only the call's own end is.
    """

    name: regex.Pattern[str]
    lead: str
    key: regex.Pattern[str]
    close: str
    done: str | None


class Format(Struct, frozen=True, kw_only=True):
    """How a call is written.

    Args:
        begin: of a call; empty if nothing marks it.
        end: of a call.
        around: marks about all calls, which say nothing more.
        head: between the beginning and the arguments, where these are JSON by themselves; the group `name`.
        markup: of the arguments, if they are not JSON.
        bare: an answer that is nothing but a call's JSON is a call.
        any_name: so even if there is no such function.
        inner: further marks inside of calls.
    """

    begin: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    head: regex.Pattern[str] | None = None
    markup: Markup | None = None
    bare: bool = False
    any_name: bool = False
    inner: tuple[str, ...] = ()

    @property
    def marks(self) -> frozenset[str]:
        """Everything that may be a token of its own."""
        return frozenset((*self.begin, *self.end, *self.around, *self.inner))


_XML = Markup(
    name=regex.compile(r"\s*<function=(?P<name>[^>\n]{1,200})>"),
    lead="<parameter=",
    key=regex.compile(r"<parameter=([^>\n]{1,200})>"),
    close="</parameter>",
    done="</function>",
)
_GLM = Markup(
    name=regex.compile(r"\s*(?P<name>[^\s<{]{1,200})\s*(?=<)"),
    lead="<arg_key>",
    key=regex.compile(r"<arg_key>\s*([^<\n]{1,200}?)\s*</arg_key>\s*<arg_value>"),
    close="</arg_value>",
    done=None,
)
_HERMES = Format(begin=("<tool_call>",), end=("</tool_call>",), markup=_XML)
_MISTRAL = Format(
    begin=("[TOOL_CALLS]",),
    head=regex.compile(r"\s*(?P<name>[^\s\[{]{1,200})\s*(?:\[CALL_ID\][^\[{]{0,200})?(?:\[ARGS\])?\s*(?=\{)"),
    inner=("[CALL_ID]", "[ARGS]"),
)
_DEEPSEEK = Format(
    begin=(DeepSeek.BEGIN,),
    end=(DeepSeek.END,),
    around=(DeepSeek.ALL_BEGIN, DeepSeek.ALL_END),
    head=regex.compile(
        rf"\s*(?:function{DeepSeek.BETWEEN})?(?P<name>[^\s<{{`]{{1,200}})\s*(?:{DeepSeek.BETWEEN}|```json)?\s*(?=\{{)"
    ),
    inner=(DeepSeek.BETWEEN,),
)
FORMATS: dict[str, Format] = {
    "hermes": _HERMES,
    "xml": _HERMES,
    "glm": Format(begin=("<tool_call>",), end=("</tool_call>",), markup=_GLM),
    "llama3": Format(begin=("<|python_tag|>",), bare=True, any_name=True),
    "mistral": _MISTRAL,
    "mistral-args": _MISTRAL,
    "deepseek": _DEEPSEEK,
    "deepseek-v31": _DEEPSEEK,
    "kimi": Format(
        begin=("<|tool_call_begin|>",),
        end=("<|tool_call_end|>",),
        around=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        head=regex.compile(
            r"\s*(?:functions\.)?(?P<name>[^\s<{]{1,200}?)(?::\d+)?\s*<\|tool_call_argument_begin\|>\s*(?=\{)"
        ),
        inner=("<|tool_call_argument_begin|>",),
    ),
    "granite": Format(begin=("<|tool_call|>", "<tool_call>"), end=("<|/tool_call|>", "</tool_call>")),
    "harmony": Format(inner=("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>", "<|call|>")),
    "json": Format(bare=True),
}
# What a template says that belongs to a format: the first that fits is taken.
_EVIDENCE: tuple[tuple[str, ToolsFormat], ...] = (
    ("<|channel|>", "harmony"),
    ("<|tool_call_begin|>", "kimi"),
    ("[ARGS]", "mistral-args"),
    ("[TOOL_CALLS]", "mistral"),
    ("<function=", "xml"),
    ("<arg_key>", "glm"),
    ("<|tool_call|>", "granite"),
    ("<tool_call>", "hermes"),
    ("<|python_tag|>", "llama3"),
    ('"parameters"', "llama3"),
)
_REASONING = (
    Tags(open="<think>", close="</think>"),
    Tags(open="[THINK]", close="[/THINK]"),
    Tags(open="<|START_THINKING|>", close="<|END_THINKING|>"),
    Tags(open="<seed:think>", close="</seed:think>"),
    Tags(open="<|channel>thought\n", close="<channel|>"),
    Tags(open="<reasoning>", close="</reasoning>"),
    Tags(open="<thinking>", close="</thinking>"),
)


class StyleOptions(Protocol):
    """What a model's options say of its style."""

    @property
    def reasoning(self) -> Literal["auto", "none"] | Tags:
        """The tags, instead of those that are found; `none` leaves them in the text."""

    @property
    def tools_format(self) -> Literal["auto"] | ToolsFormat:
        """The format of calls, instead of the one that is found."""


class AnswerStyle(Struct, frozen=True, kw_only=True):
    """How a model writes an answer.

    Args:
        reasoning: around what it thinks first; None if nothing is marked.
        tools: the format of its calls, a key of `FORMATS`.
        marks: tokens that a decoder leaves out as special, but which mean something here: they stay in the text.
    """

    reasoning: Tags | None = None
    tools: ToolsFormat = "json"
    marks: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tokenizer: Any, template: str | None, options: "StyleOptions | None" = None) -> "AnswerStyle":
        """Return the style of a model with this tokenizer and chat template.

        Args:
            tokenizer: of transformers.
            template: the text of the chat template, None if there is none.
            options: what is known better than can be found.
        """
        added = set(tokenizer.get_added_vocab())
        wanted_tools = "auto" if options is None else options.tools_format
        wanted = "auto" if options is None else options.reasoning
        tools = _tools_of(template, added) if wanted_tools == "auto" else wanted_tools
        if wanted == "none" or tools == "harmony":
            tags = None
        else:
            tags = _reasoning_of(template, added) if wanted == "auto" else wanted
        known = FORMATS[tools].marks | ({tags.open, tags.close} if tags else set())
        special = (str(token) for token in tokenizer.all_special_tokens)
        marks = frozenset(token for token in special if any(token in text for text in known))
        return cls(reasoning=tags, tools=tools, marks=marks)


def _tools_of(template: str | None, added: set[str]) -> ToolsFormat:
    said = template or ""
    if "[TOOL_CALLS]" in said and "[ARGS]" in added:
        return "mistral-args"  # templates of some that write it do not say so
    if DeepSeek.BEGIN in said:
        return "deepseek" if "```json" in said else "deepseek-v31"
    found = next((name for evidence, name in _EVIDENCE if evidence in said), None)
    return found or ("llama3" if "<|python_tag|>" in added else "json")


def _reasoning_of(template: str | None, added: set[str]) -> Tags | None:
    said = template or ""
    for tags in _REASONING:
        if tags.open.strip() in said or tags.close.strip() in said:
            return tags
    return next((tags for tags in _REASONING if {tags.open, tags.close} <= added), None)
