"""Answers as models write them, told apart: reasoning, text, calls."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import writers
from yapit import GenerateRequest, TextChunk
from yapit_plugin_hf_generic.generating.chat import ChatOptions
from yapit_plugin_hf_generic.generating.parsing import AnswerParser, AnswerStyle, Tags, ToolsFormat
from yapit_plugin_hf_generic.generating.parsing.styles import FORMATS, DeepSeek

THINK = Tags(open="<think>", close="</think>")
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": ["boolean", "null"]}},
}
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": WEATHER}} for name in ("get_weather", "other")
)
PLAIN_CALL = '{"name": "get_weather", "arguments": {"city": "Köln", "days": 2}}'
ARGUMENTS = '{"city": "Köln", "days": 2}'


class Read:
    """What the pieces of an answer are together."""

    def __init__(self, chunks: Iterable[TextChunk]) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls: list[list[str]] = []
        self.ids: list[str] = []
        for chunk in chunks:
            self.text += chunk.text
            self.reasoning += chunk.reasoning
            for part in chunk.tool_calls:
                if part.id is not None:
                    assert part.index == len(self.calls)
                    self.calls.append(["", ""])
                    self.ids.append(part.id)
                self.calls[part.index][0] += part.name or ""
                self.calls[part.index][1] += part.arguments

    @property
    def all(self) -> tuple[str, str, list[list[str]]]:
        return self.text, self.reasoning, self.calls


def asked(*, tools: tuple[Any, ...] = TOOLS, parallel: bool = True) -> GenerateRequest:
    return GenerateRequest(messages=({"role": "user"},), tools=tools, parallel_tool_calls=parallel)


def read(
    style: AnswerStyle, pieces: Iterable[str], *, request: GenerateRequest | None = None, prefix: str = ""
) -> Read:
    parser = AnswerParser(style, request or asked(), prefix)
    chunks = [chunk for piece in pieces for chunk in parser.feed(piece)]
    found = Read([*chunks, *parser.end()])
    assert parser.called == bool(found.calls)
    return found


def styled(tools: ToolsFormat, reasoning: Tags | None = THINK) -> AnswerStyle:
    return AnswerStyle(tools=tools, reasoning=reasoning)


XML_CALL = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln\n</parameter>\n"
    "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
)
GLM_CALL = (
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
)
LLAMA_CALL = PLAIN_CALL.replace("arguments", "parameters")
DEEPSEEK_CALL = f"{DeepSeek.BEGIN}function{DeepSeek.BETWEEN}get_weather\n```json\n{ARGUMENTS}\n```{DeepSeek.END}"
DEEPSEEK_V31_CALL = f"{DeepSeek.BEGIN}get_weather{DeepSeek.BETWEEN}{ARGUMENTS}{DeepSeek.END}"
KIMI_CALL = f"<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{ARGUMENTS}<|tool_call_end|>"
HARMONY_CALL = (
    f"<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{ARGUMENTS}<|call|>"
)
CALLS: list[tuple[ToolsFormat, str, int]] = [
    ("hermes", f"<tool_call>\n{PLAIN_CALL}\n</tool_call>", 1),
    ("hermes", f"<tool_call>{PLAIN_CALL}</tool_call>\n<tool_call>{PLAIN_CALL}</tool_call>", 2),
    ("hermes", XML_CALL, 1),
    ("xml", f"{XML_CALL}\n{XML_CALL}", 2),
    ("glm", f"{GLM_CALL}\n{GLM_CALL}", 2),
    ("llama3", LLAMA_CALL, 1),
    ("llama3", f"{LLAMA_CALL}; {LLAMA_CALL}", 2),
    ("llama3", f"<|python_tag|>{LLAMA_CALL}", 1),
    ("llama3", LLAMA_CALL.replace("{", '{"type": "function", ', 1), 1),
    ("mistral", f"[TOOL_CALLS] [{PLAIN_CALL}, {PLAIN_CALL}]", 2),
    ("mistral-args", f"[TOOL_CALLS]get_weather[ARGS]{ARGUMENTS}[TOOL_CALLS]get_weather[ARGS]{ARGUMENTS}", 2),
    ("mistral-args", f"[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{ARGUMENTS}", 1),
    ("deepseek", f"{DeepSeek.ALL_BEGIN}{DEEPSEEK_CALL}\n{DEEPSEEK_CALL}{DeepSeek.ALL_END}", 2),
    ("deepseek-v31", f"{DeepSeek.ALL_BEGIN}{DEEPSEEK_V31_CALL}{DEEPSEEK_V31_CALL}{DeepSeek.ALL_END}", 2),
    ("kimi", f"<|tool_calls_section_begin|>{KIMI_CALL}{KIMI_CALL}<|tool_calls_section_end|>", 2),
    ("granite", f"<|tool_call|>[{PLAIN_CALL}]", 1),
    ("granite", f"<tool_call>[{PLAIN_CALL}]</tool_call>", 1),
    ("json", PLAIN_CALL, 1),
    ("json", f"```json\n[{PLAIN_CALL}]\n```", 1),
    ("harmony", HARMONY_CALL + HARMONY_CALL, 2),
]


def test_every_format_is_tried_here() -> None:
    assert {name for name, _, _ in CALLS} == set(FORMATS)


@pytest.mark.parametrize(("tools", "text", "count"), CALLS)
def test_calls_are_read_in_each_format_whole_and_character_by_character(
    tools: ToolsFormat, text: str, count: int
) -> None:
    for pieces in ([text], list(text)):
        found = read(styled(tools), pieces)
        assert found.text == ""
        assert [(name, json.loads(arguments)) for name, arguments in found.calls] == [
            ("get_weather", {"city": "Köln", "days": 2})
        ] * count
        assert len(set(found.ids)) == count


@pytest.mark.parametrize(("tools", "text", "count"), CALLS)
def test_only_the_first_call_is_given_if_the_client_takes_no_others(tools: ToolsFormat, text: str, count: int) -> None:
    found = read(styled(tools), [text], request=asked(parallel=False))
    assert len(found.calls) == 1 <= count
    assert json.loads(found.calls[0][1]) == {"city": "Köln", "days": 2}


@pytest.mark.parametrize(("tools", "text", "count"), [item for item in CALLS if item[0] != "harmony"])
def test_without_tools_the_same_is_text(tools: ToolsFormat, text: str, count: int) -> None:
    assert read(styled(tools), list(text), request=asked(tools=())).text == text


@pytest.mark.parametrize(("tools", "text", "count"), [item for item in CALLS if item[0] not in {"llama3", "json"}])
def test_text_before_and_after_calls_is_text(tools: ToolsFormat, text: str, count: int) -> None:
    before, after = "Let me see.", "Done."
    if tools == "harmony":
        before, after = f"<|channel|>final<|message|>{before}<|end|>", f"<|start|>assistant<|message|>{after}"
    found = read(styled(tools), list(f"{before}\n{text}\n{after}"))
    assert found.text.replace("\n", "") == "Let me see.Done."
    assert len(found.calls) == count


def test_the_arguments_stream_as_the_model_writes_them() -> None:
    parser = AnswerParser(styled("hermes"), asked())
    opened = parser.feed('<tool_call>\n{"name": "get_weather", "arguments": {')
    assert [part.name for chunk in opened for part in chunk.tool_calls] == ["get_weather"]
    assert Read(opened).calls == [["get_weather", "{"]]
    [chunk] = parser.feed('"city":  "K')
    assert chunk.tool_calls[0].arguments == '"city":  "K'
    assert chunk.tool_calls[0].index == 0
    assert chunk.tool_calls[0].name is None


def test_a_parameter_in_tags_streams_when_it_is_complete() -> None:
    parser = AnswerParser(styled("xml"), asked())
    first = Read(parser.feed("<tool_call>\n<function=get_weather>\n<parameter=days>\n3\n</parameter>\n<param"))
    assert first.calls == [["get_weather", '{"days": 3']]


def test_text_is_let_out_at_once_unless_it_may_be_a_mark() -> None:
    parser = AnswerParser(styled("hermes", None), asked())
    assert [chunk.text for chunk in parser.feed("Hello")] == ["Hello"]
    assert parser.feed(" <tool") == []
    assert [chunk.text for chunk in parser.feed("box> it is")] == [" <toolbox> it is"]
    assert [chunk.text for chunk in AnswerParser(styled("hermes"), asked(tools=())).feed("x <tool_")] == ["x <tool_"]


def test_json_that_is_no_call_streams_as_soon_as_that_is_known() -> None:
    parser = AnswerParser(styled("json"), asked())
    assert parser.feed('{"na') == []
    assert [chunk.text for chunk in parser.feed('med": 1')] == ['{"named": 1']


@pytest.mark.parametrize(
    ("text", "prefix", "reasoning", "answer"),
    [
        ("<think>\nhm\n</think>\n\nyes", "", "hm", "yes"),
        ("hm\n</think>\n\nyes", "<think>\n", "hm", "yes"),
        ("yes", "<think>\n\n</think>\n\n", "", "yes"),
        ("yes", "</think>", "", "yes"),
        ("hm", "<think>\n", "hm", ""),
        (" more</think>yes", "<think>I began", " more", "yes"),
        (" <think>x</think>", "Sure:", "", " <think>x</think>"),
        ("no <think>x</think>", "", "", "no <think>x</think>"),
        ("<think>a <b> </c></think>\n", "", "a <b> </c>", ""),
        ("<think", "", "", "<think"),
        ("<think></think>yes", "", "", "yes"),
    ],
)
def test_reasoning_is_told_from_the_answer(text: str, prefix: str, reasoning: str, answer: str) -> None:
    for pieces in ([text], list(text)):
        found = read(styled("hermes"), pieces, prefix=prefix)
        assert (found.reasoning, found.text) == (reasoning, answer)


def test_harmony_tells_its_channels_apart() -> None:
    text = (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>I call.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>It <is> so"
    )
    for pieces in ([text], list(text)):
        assert read(styled("harmony", None), pieces).all == ("I call.It <is> so", "hm", [])
    assert read(styled("harmony", None), ["no header"]).text == "no header"


def test_a_bare_prompt_is_continued_as_it_is() -> None:
    request = GenerateRequest(prompt="x", tools=TOOLS)
    text = "<think>a</think><tool_call>" + PLAIN_CALL
    assert read(styled("hermes"), [text], request=request).text == text


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call> oops </tool_call>",
        "<tool_call>{}</tool_call> after",
        "<tool_call>{'name': 'f'}</tool_call>",
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        "a <tool_call>",
        '<tool_call>\n{"name": "get_w',
        "<tool_call>\n<function",
        "a</tool_call>b",
        '<tool_call>{"arguments": {"a": 1}}</tool_call>',
    ],
)
def test_what_only_looks_like_a_call_is_text(text: str) -> None:
    for pieces in ([text], list(text)):
        assert read(styled("hermes", None), pieces).all == (text, "", [])


@pytest.mark.parametrize(
    "text", ['{"name": "Bob", "age": 3}', "{", "[1]", '{"name": "unheard_of", "arguments": {}}', "`"]
)
def test_a_json_answer_is_no_call_of_an_unknown_function(text: str) -> None:
    assert read(styled("json"), list(text)).text == text


@pytest.mark.parametrize(
    ("text", "arguments", "rest"),
    [
        ('<tool_call>{"arguments": {"a": "}</tool_call>"}, "name": "f"}</tool_call>x', {"a": "}</tool_call>"}, "x"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>x', {"a": 1}, "x"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}, "id": 7}</tool_call>x', {"a": 1}, "x"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}} x', {"a": 1}, "x"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}, oops</tool_call>x', {"a": 1}, ", oops</tool_call>x"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}, "b": 2', {"a": 1}, ', "b": 2'),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', {"a": 1}, ""),
        ('<tool_call>{"name": "f", "arguments": null}</tool_call>', {}, ""),
        ('<tool_call>{"name": "f"}</tool_call>', {}, ""),
        ('<tool_call>{"name": "f", "arguments": {"a": "x\ny\t\\"{"}}</tool_call>', {"a": 'x\ny\t"{'}, ""),
        ("<tool_call><function=f></function></tool_call>x", {}, "x"),
        ("<tool_call><function=f><parameter=a>1</parameter></tool_call>x", {"a": "1"}, "x"),
    ],
)
def test_calls_are_read_that_are_written_in_other_ways(text: str, arguments: dict[str, Any], rest: str) -> None:
    for pieces in ([text], list(text)):
        found = read(styled("hermes"), pieces)
        assert [(name, json.loads(said)) for name, said in found.calls] == [("f", arguments)]
        assert found.text == rest


def test_a_call_that_is_cut_off_keeps_what_it_had() -> None:
    found = read(styled("hermes"), ['<tool_call>{"name": "f", "arguments": {"a": "be'])
    assert found.all == ("", "", [["f", '{"a": "be']])
    found = read(styled("xml"), ["<tool_call><function=f><parameter=a>\nbe"])
    assert found.all == ("", "", [["f", '{"a": "be']])


@pytest.mark.parametrize(
    ("schema", "written", "value"),
    [
        ({"type": "string"}, "12", "12"),
        ({"type": "string"}, "a\n  b", "a\n  b"),
        ({"type": "integer"}, "12", 12),
        ({"type": "number"}, "12", 12),
        ({"type": "integer"}, "twelve", "twelve"),
        ({"type": "boolean"}, "True", True),
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"anyOf": [{"type": "object"}, {"type": "string"}]}, '{"x": 1}', {"x": 1}),
        ({"enum": [1, 2]}, "2", 2),
        ({}, "2", "2"),
        ("nonsense", "2", "2"),
    ],
)
def test_parameters_in_tags_get_the_type_that_the_function_says(schema: Any, written: str, value: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": schema}}}}
    text = f"<tool_call>\n<function=f>\n<parameter=a>\n{written}\n</parameter>\n</function>\n</tool_call>"
    found = read(styled("xml"), [text], request=asked(tools=(tool,)))
    assert json.loads(found.calls[0][1]) == {"a": value}


def test_calls_have_ids_of_the_length_that_their_templates_take_back() -> None:
    assert all(
        len(identity) == 29 and identity.startswith("call_") for identity in read(styled("json"), [PLAIN_CALL]).ids
    )
    [identity] = read(styled("mistral"), [f"[TOOL_CALLS][{PLAIN_CALL}]"]).ids
    assert len(identity) == 9
    assert identity.isalnum()


# On a busy machine, drawing an example takes its time.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
FRAGMENTS = [
    *(mark for kind in FORMATS.values() for mark in sorted(kind.marks)),
    *(
        "<think>",
        "</think>",
        "<function=",
        "f>",
        "<parameter=a>",
        "</parameter>",
        "</function>",
        "<arg_key>a</arg_key>",
    ),
    *(
        "<arg_value>1</arg_value>",
        '{"name": "get_weather", "arguments": ',
        '"parameters": ',
        '{"a": 1}',
        "{",
        "}",
        "[",
        "]",
    ),
    *(
        ",",
        ";",
        '"',
        "\\",
        "\n",
        " ",
        "```json",
        "```",
        "get_weather",
        "text",
        "ü",
        "\x00",
        "to=functions.f",
        "analysis",
    ),
    *(text for _, text, _ in CALLS),
]
texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=12).map("".join)


@unhurried
@given(st.data(), texts, st.sampled_from(sorted(FORMATS)), st.sampled_from(["", "<think>\n", "Sure"]))
def test_it_does_not_matter_in_which_pieces_the_text_comes(
    data: st.DataObject, text: str, tools: Any, prefix: str
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = read(styled(tools), [text], prefix=prefix).all
    assert read(styled(tools), pieces, prefix=prefix).all == whole
    assert read(styled(tools), text, prefix=prefix).all == whole


no_calls = st.lists(
    st.sampled_from([part for part in FRAGMENTS if "get_weather" not in part and "functions." not in part])
    | st.text(max_size=3).filter(lambda part: "name" not in part),
    max_size=12,
).map("".join)


@unhurried
@given(no_calls, st.sampled_from(["hermes", "mistral", "mistral-args", "llama3", "granite", "json"]))
def test_no_character_is_lost_where_there_is_no_call(text: str, tools: Any) -> None:
    found = read(styled(tools, None), text)
    if not found.calls:
        assert found.all == (text, "", [])
    assert read(styled(tools, None), text, request=asked(tools=())).text == text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@unhurried
@given(
    st.dictionaries(st.text(max_size=5), values, max_size=4),
    st.sampled_from(["hermes", "mistral", "llama3", "json", "harmony"]),
)
def test_whatever_the_arguments_are_they_come_out_as_they_were_written(arguments: dict[str, Any], tools: Any) -> None:
    said = json.dumps(arguments, ensure_ascii=False)
    call = f'{{"name": "get_weather", "arguments": {said}}}'
    text = {
        "hermes": f"<tool_call>\n{call}\n</tool_call>",
        "mistral": f"[TOOL_CALLS] [{call}]",
        "harmony": f"<|channel|>commentary to=functions.get_weather<|message|>{said}",
    }.get(tools, call)
    if tools == "harmony" and "<|" in said:
        return
    assert read(styled(tools, None), text).all == ("", "", [["get_weather", said]])


@pytest.mark.parametrize(
    ("template", "special", "tools", "reasoning"),
    [
        (writers.THINKING, (), "hermes", "<think>"),
        (writers.CHATML, (), "hermes", "<think>"),
        ("<tool_call>\n<function=f>\n<parameter=x>", (), "xml", "<think>"),
        ("<tool_call>{{ name }}<arg_key>", (), "glm", "<think>"),
        ("[TOOL_CALLS] [THINK]", ("[TOOL_CALLS]", "[THINK]", "[/THINK]"), "mistral", "[THINK]"),
        ("[TOOL_CALLS]", ("[TOOL_CALLS]", "[ARGS]"), "mistral-args", "<think>"),
        ("<|start_header_id|>", ("<|python_tag|>",), "llama3", "<think>"),
        (f"{DeepSeek.BEGIN} ```json", (), "deepseek", "<think>"),
        (DeepSeek.BEGIN, (), "deepseek-v31", "<think>"),
        ("<|tool_call_begin|>", (), "kimi", "<think>"),
        ("<|tool_call|>", (), "granite", "<think>"),
        ("<|channel|>analysis", (), "harmony", None),
        ("{{ messages }}", (), "json", "<think>"),
        (None, (), "json", "<think>"),
    ],
)
def test_the_style_is_found_in_the_template_and_the_vocabulary(
    template: str | None, special: tuple[str, ...], tools: str, reasoning: str | None
) -> None:
    style = AnswerStyle.of(writers.tokenizer(special=special), template)
    assert style.tools == tools
    assert (style.reasoning.open if style.reasoning else None) == reasoning


def test_a_vocabulary_without_marks_has_no_reasoning() -> None:
    assert AnswerStyle.of(writers.tokenizer(plain=()), "{{ messages }}").reasoning is None


def test_marks_are_those_that_a_decoder_would_leave_out() -> None:
    words = writers.tokenizer(special=("[TOOL_CALLS]", "[ARGS]", "[THINK]", "[INST]"))
    style = AnswerStyle.of(words, "[TOOL_CALLS][THINK]")
    assert style.marks == {"[TOOL_CALLS]", "[ARGS]", "[THINK]"}
    assert AnswerStyle.of(writers.tokenizer(), writers.THINKING).marks == frozenset()


def test_options_say_what_cannot_be_found() -> None:
    words = writers.tokenizer()
    options = ChatOptions(reasoning=Tags(open="<r>", close="</r>"), tools_format="llama3")
    style = AnswerStyle.of(words, writers.THINKING, options)
    assert (style.reasoning, style.tools) == (Tags(open="<r>", close="</r>"), "llama3")
    style = AnswerStyle.of(words, writers.THINKING, ChatOptions(reasoning="none"))
    assert style.reasoning is None
    assert read(style, ["<think>a</think>b"]).text == "<think>a</think>b"
