"""Answers that are bound to a form, written at random by a model that knows nothing."""

import json
import re
from collections.abc import Sequence
from typing import Any

import jsonschema
import numpy as np
import pytest

from models import writers
from yapit import BackendError, GenerateRequest, InvalidInputError
from yapit_plugin_hf_generic.generating.grammar import Constraint, Grammars
from yapit_plugin_hf_generic.generating.parsing import AnswerParser, AnswerStyle, Tags
from yapit_plugin_hf_generic.generating.parsing.styles import FORMATS

THINK = Tags(open="<think>", close="</think>")
MESSAGES = ({"role": "user", "content": "?"},)
LONGEST = 4000  # tokens of a random answer
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 18, "maximum": 24},
        "kind": {"enum": ["a", "b", 3]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "bounds": {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": -3, "maximum": 12}},
        "required": ["n"],
    },
    "enum": {"type": "object", "properties": {"e": {"enum": ["x", 1, None]}}, "required": ["e"]},
    "nested": {"type": "object", "properties": {"who": PERSON}, "required": ["who"], "additionalProperties": False},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "refs": {
        "$defs": {"leaf": {"type": "string", "maxLength": 3}},
        "type": "object",
        "properties": {
            "l": {"$ref": "#/$defs/leaf"},
            "many": {"type": "array", "items": {"$ref": "#/$defs/leaf"}, "maxItems": 2},
        },
        "required": ["l", "many"],
        "additionalProperties": False,
    },
    "any of": {
        "type": "object",
        "properties": {"v": {"anyOf": [{"type": "integer", "maximum": 5, "minimum": 0}, {"const": "none"}]}},
        "required": ["v"],
    },
    "pattern": {
        "type": "object",
        "properties": {"p": {"type": "string", "pattern": "^[a-c]{2,4}$"}},
        "required": ["p"],
    },
}
GREETED: dict[str, Any] = {
    **PERSON,
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 18, "maximum": 24},
        "kind": {"enum": ["a", "b"]},
    },
}
TOOLS: tuple[dict[str, Any], ...] = (
    {"type": "function", "function": {"name": "greet", "parameters": GREETED}},
    {"type": "function", "function": {"name": "stop"}},
)
CALLED: dict[str, Any] = {"greet": GREETED, "stop": {"maxProperties": 0}}


def grammars(style: AnswerStyle | None = None, *, special: tuple[str, ...] = (), **options: Any) -> Grammars:
    return Grammars(writers.tokenizer(special=special), style or AnswerStyle(), **options)


def asked(schema: Any, **fields: Any) -> GenerateRequest:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    return GenerateRequest(messages=MESSAGES, response_format=wanted, **fields)


def bound(found: Constraint | None) -> Constraint:
    assert found is not None
    return found


class Writer:
    """Writes what a constraint lets it, at random."""

    def __init__(self, seed: int, *, special: tuple[str, ...] = (), hints: Sequence[str] = ()) -> None:
        self.words = writers.tokenizer(special=special)
        self._random = np.random.default_rng(seed)
        self._hints = [self.words.encode(hint, add_special_tokens=False) for hint in hints]

    def write(self, constraint: Constraint) -> str:
        ids: list[int] = []
        ready: list[int] = []
        while len(ids) < LONGEST:
            allowed = constraint.mask(ids)
            assert allowed.any()
            if allowed[self.words.eos_token_id] and (constraint.done or self._random.random() < 0.3):
                return str(self.words.decode(ids))
            allowed = allowed.copy()
            allowed[self.words.eos_token_id] = False
            if not ready and self._hints and self._random.random() < 0.1:
                ready = list(self._hints[self._random.integers(len(self._hints))])
            ids.append(self._next(np.flatnonzero(allowed), ready))
        raise AssertionError(self.words.decode(ids[:500]))

    def _next(self, allowed: Any, ready: list[int]) -> int:
        """Return a token: of a hint, if there is one; of a mark, or what ends a string, more often than by chance."""
        if ready:
            token = ready.pop(0)
            if token in allowed:
                return token
            ready.clear()
        likely = [token for token in allowed if token >= 256 or self.words.decode([token]) in '"}]']
        pool = likely if likely and self._random.random() < 0.2 else allowed
        return int(self._random.choice(pool))


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_is_written_fits_the_schema(name: str) -> None:
    made = grammars()
    seen = set()
    for seed in range(12):
        text = Writer(seed).write(bound(made.of(asked(SCHEMAS[name]))))
        jsonschema.validate(json.loads(text), SCHEMAS[name])
        seen.add(text)
    assert len(seen) > 3  # it is a form, not one text


def test_strict_or_not_the_schema_holds() -> None:
    for strict in (False, None):
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": PERSON, "strict": strict}}
        request = GenerateRequest(messages=MESSAGES, response_format=wanted)
        jsonschema.validate(json.loads(Writer(1).write(bound(grammars().of(request)))), PERSON)


@pytest.mark.parametrize("wanted", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x"}}])
def test_json_object_is_any_object(wanted: dict[str, Any]) -> None:
    made = grammars()
    for seed in range(8):
        request = GenerateRequest(messages=MESSAGES, response_format=wanted)
        assert isinstance(json.loads(Writer(seed).write(bound(made.of(request)))), dict)


def test_nothing_binds_an_answer_of_which_nothing_is_asked() -> None:
    for wanted in (None, {"type": "text"}, {}):
        assert grammars().of(GenerateRequest(messages=MESSAGES, response_format=wanted)) is None
    # With tools that it need not call, it may say anything.
    assert grammars().of(GenerateRequest(messages=MESSAGES, tools=TOOLS)) is None


def test_json_has_the_white_space_of_models_and_no_more() -> None:
    def takes(text: str) -> bool:
        constraint, ids = bound(grammars().of(asked(PERSON))), writers.tokenizer().encode(text)
        return all(constraint.mask(ids[:place])[token] for place, token in enumerate(ids))

    assert takes('{"name": "x", "age": 20}')
    assert takes('{"name":"x","age":20}')
    assert not takes('{"name":  "x"')
    assert not takes('{ "name"')
    assert not takes('{"name": "x", "age": 17')


def test_the_end_comes_when_the_form_is_complete_and_not_before() -> None:
    constraint = bound(grammars().of(asked({"const": "ab"})))
    words = writers.tokenizer()
    ids = words.encode('"ab"')
    for place in range(4):
        assert not constraint.mask(ids[:place])[words.eos_token_id]
        assert not constraint.done
    assert np.flatnonzero(constraint.mask(ids)).tolist() == [words.eos_token_id]
    assert constraint.done
    assert np.flatnonzero(constraint.mask([*ids, words.eos_token_id])).tolist() == [words.eos_token_id]


def test_every_token_that_ends_an_answer_is_allowed_at_its_end() -> None:
    words = writers.tokenizer()
    ends = [words.eos_token_id, words.bos_token_id]
    constraint = bound(grammars(ends=ends).of(asked({"const": 1})))
    assert np.flatnonzero(constraint.mask(words.encode("1"))).tolist() == sorted(ends)


def test_the_mask_has_the_size_of_the_logits() -> None:
    words = writers.tokenizer()
    for size in (len(words), len(words) + 57, 200):
        mask = bound(grammars(size=size).of(asked({"type": "string"}))).mask([])
        assert mask.shape == (size,)
        assert mask.dtype == np.bool_
        assert [words.decode([token]) for token in np.flatnonzero(mask)] == ['"']


def test_answers_to_one_schema_do_not_disturb_each_other() -> None:
    made = grammars()
    words = writers.tokenizer()
    one, two = bound(made.of(asked(PERSON))), bound(made.of(asked(PERSON)))
    first = one.mask([]).tolist()
    one.mask(words.encode('{"name": "a'))
    assert two.mask([]).tolist() == first
    assert bound(made.of(asked(PERSON))).mask([]).tolist() == first


def test_an_answer_that_begins_again_is_followed_from_its_beginning() -> None:
    words = writers.tokenizer()
    constraint = bound(grammars().of(asked(PERSON)))
    ids = words.encode('{"name": "a", "age": 2')
    after = constraint.mask(ids).tolist()
    constraint.mask(ids[:1])
    assert constraint.mask(ids).tolist() == after


def test_an_answer_that_has_left_its_form_is_an_error() -> None:
    constraint = bound(grammars().of(asked(PERSON)))
    with pytest.raises(BackendError, match="form"):
        constraint.mask(writers.tokenizer().encode("hello"))


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "nonsense"}, "nonsense"),
        ({"type": "object", "not": {}}, "not"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
        ({"type": "string", "pattern": "("}, "unclosed|regex"),
        ({"$ref": "http://example.org/x"}, "example"),
        ([1], "object"),
        ("no json", "JSON"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_with_the_reason(schema: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        grammars().of(asked(schema))
    assert caught.value.param == "response_format"


def test_the_function_whose_parameters_are_refused_is_named() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}
    with pytest.raises(InvalidInputError, match="nonsense") as caught:
        grammars().of(GenerateRequest(messages=MESSAGES, tools=(*TOOLS, tool), tool_choice="required"))
    assert caught.value.param == "tools[2].function.parameters"


def test_an_unknown_response_format_is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        grammars().of(GenerateRequest(messages=MESSAGES, response_format={"type": "xml"}))
    assert caught.value.param == "response_format.type"


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({"guided_regex": "(yes|no) [0-9]{2}"}, "(yes|no) [0-9]{2}"),
        ({"guided_choice": ["good", 'bad/"ü']}, 'good|bad/"ü'),
        ({"guided_grammar": 'start: "<" /[ab]{1,3}/ ">"'}, "<[ab]{1,3}>"),
        ({"guided_grammar": 'root ::= "x" [0-9] "y"'}, "x[0-9]y"),
        ({"guided_json": {"type": "integer", "minimum": 1, "maximum": 3}}, "[123]"),
        ({"guided_json": '{"const": 7}'}, "7"),
        ({"structured_outputs": {"regex": "a{3}"}}, "aaa"),
        ({"structured_outputs": {"choice": ["x"]}}, "x"),
        ({"structured_outputs": {"json": {"const": 1}}}, "1"),
        ({"structured_outputs": {"grammar": 'start: "q"'}}, "q"),
    ],
)  # fmt: skip
def test_other_forms_are_kept_as_well(options: dict[str, Any], form: str) -> None:
    for prompt in ({"messages": MESSAGES}, {"prompt": "x"}):
        request = GenerateRequest(**prompt, options=options)
        for seed in range(4):
            made = grammars(AnswerStyle(reasoning=THINK))
            text = Writer(seed).write(bound(made.of(request, "<think></think>")))
            assert re.fullmatch(form, text)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_regex": 3}, "guided_regex"),
        ({"guided_choice": "yes"}, "guided_choice"),
        ({"guided_choice": ["", "x"]}, "guided_choice"),
        ({"guided_grammar": "start: nowhere"}, "guided_grammar"),
        ({"guided_grammar": 1}, "guided_grammar"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": {"const": 1}, "guided_regex": "a"}, "guided_regex"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs"),
        ({"structured_outputs": "json"}, "structured_outputs"),
    ],
)
def test_forms_that_are_none_are_refused_with_their_field(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        grammars().of(GenerateRequest(messages=MESSAGES, options=options))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("special", "plain"),
    [((), ("<think>", "</think>")), (("<think>", "</think>"), ()), ((), ())],
    ids=["tokens", "special", "letters"],
)
@pytest.mark.parametrize("prefix", ["", "<think>\n", "<think>\n\n</think>\n\n"])
def test_reasoning_is_free_and_what_follows_is_bound(
    special: tuple[str, ...], plain: tuple[str, ...], prefix: str
) -> None:
    words = writers.tokenizer(special=special, plain=plain)
    made = Grammars(words, AnswerStyle(reasoning=THINK))
    request = asked({"const": "x"})
    thought = 'Is it {"a": 1}? </thin> ü\n'
    for text in ('"x"', f'<think>{thought}</think>\n\n"x"', f'{thought}</think>"x"'):
        constraint = bound(made.of(request, prefix))
        ids = words.encode(text, add_special_tokens=False)
        taken = all(constraint.mask(ids[:place])[token] for place, token in enumerate(ids))
        complete = taken and bool(constraint.mask(ids)[words.eos_token_id])
        closes = "</think>" in text
        # Within reasoning a token that begins it has no place; its letters are letters.
        begins = text.startswith("<think>") and (prefix == "" or "<think>" in words.get_vocab())
        assert complete == ({"": begins == closes, "<think>\n": closes and not begins}.get(prefix, not closes))


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("tools", sorted(FORMATS))
def test_a_required_call_is_a_call_whatever_the_model_would_write(tools: Any, parallel: bool) -> None:  # noqa: FBT001
    special = tuple(sorted(FORMATS[tools].marks - {"<tool_call>", "</tool_call>"}))
    hints = ["\n</parameter>", "</arg_value>"]
    request = GenerateRequest(messages=MESSAGES, tools=TOOLS, tool_choice="required", parallel_tool_calls=parallel)
    names = set()
    for reasoning in (None, THINK):
        style = AnswerStyle(tools=tools, reasoning=reasoning)
        made = grammars(style, special=special)
        for seed in range(4):
            text = Writer(seed, special=special, hints=hints).write(bound(made.of(request)))
            parser = AnswerParser(style, request)
            chunks = [*parser.feed(text), *parser.end()]
            assert not any(chunk.text for chunk in chunks), text
            parts = [part for chunk in chunks for part in chunk.tool_calls]
            calls: dict[int, list[str]] = {}
            for part in parts:
                call = calls.setdefault(part.index, ["", ""])
                call[0] += part.name or ""
                call[1] += part.arguments
            assert calls
            assert parallel or len(calls) == 1
            for name, arguments in calls.values():
                given = json.loads(arguments)
                if tools in {"xml", "glm"}:
                    given |= (
                        {"name": given["name"][:6]} if "name" in given else {}
                    )  # text between tags has no greatest length
                jsonschema.validate(given, CALLED[name])
                names.add(name)
    assert names == {"greet", "stop"}


def test_a_required_call_goes_before_a_response_format() -> None:
    request = asked(PERSON, tools=TOOLS, tool_choice="required")
    text = Writer(0).write(bound(grammars(AnswerStyle(tools="json")).of(request)))
    assert json.loads(text)["name"] in CALLED


def test_harmony_thinks_and_then_answers_in_the_form() -> None:
    special = tuple(sorted(FORMATS["harmony"].marks))
    style = AnswerStyle(tools="harmony")
    made = grammars(style, special=special)
    thought = 0
    for seed in range(6):
        text = Writer(seed, special=special).write(bound(made.of(asked(PERSON))))
        parser = AnswerParser(style, asked(PERSON))
        chunks = [*parser.feed(text), *parser.end()]
        jsonschema.validate(json.loads("".join(chunk.text for chunk in chunks)), PERSON)
        thought += bool("".join(chunk.reasoning for chunk in chunks))
    assert 0 < thought < 6


def test_a_schema_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = grammars()
    compiled = []
    compile_once = made._compile

    def compile_and_note(*given: Any) -> Any:
        compiled.append(given)
        return compile_once(*given)

    monkeypatch.setattr(made, "_compile", compile_and_note)
    for _ in range(3):
        made.of(asked(PERSON))
    assert len(compiled) == 1
    for bound_above in range(80):
        made.of(asked({"const": bound_above}))
    assert len(made._compiled) < 80
    made.of(asked(PERSON))
    assert len(compiled) == 82
