"""Grammars of calls, in each format that models write them in."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yapit_plugin_hf_generic.generating.parsing.styles import DeepSeek

# As models write JSON. With any white space allowed, a weak model would write it without end.
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}

Mark = Callable[[str], str]


def literal(text: str) -> str:
    """Return a text in a grammar."""
    return json.dumps(text, ensure_ascii=False)


def json_rule(schema: Any) -> str:
    """Return JSON of a schema in a grammar."""
    if isinstance(schema, Mapping):
        schema = {**schema, "x-guidance": {**LAYOUT, **(schema.get("x-guidance") or {})}}
    return f"%json {json.dumps(schema)}"


def call_rules(kind: str, tools: Sequence[Mapping[str, Any]], mark: Mark, *, parallel: bool) -> str:
    """Return the rules of `calls`: one or more calls of these functions.

    Args:
        kind: the format of calls.
        tools: the functions, in OpenAI's shape.
        mark: gives a mark in a grammar.
        parallel: there may be more than one.
    """
    functions = [tool["function"] for tool in tools]
    alternatives = " | ".join(f"call{index}" for index in range(len(functions)))
    rules = [f"calls: {_around(kind, mark, parallel=parallel)}", f"call: {alternatives}"]
    for index, function in enumerate(functions):
        schema = function.get("parameters")
        rules += _CALLS[kind](f"call{index}", function["name"], _NOTHING if schema is None else schema, mark)
    return "\n".join(rules) + "\n"


def _around(kind: str, mark: Mark, *, parallel: bool) -> str:
    """Return what is around all calls, and between them."""
    if kind == "mistral":
        return f'{mark("[TOOL_CALLS]")} "[" call' + (' (", " call)* "]"' if parallel else ' "]"')
    if kind == "granite":
        return f'{mark("<|tool_call|>")} "[" call' + (' (", " call)* "]"' if parallel else ' "]"')
    calls = "call+" if parallel else "call"
    if kind in {"deepseek", "deepseek-v31"}:
        return f"{mark(DeepSeek.ALL_BEGIN)} {calls} {mark(DeepSeek.ALL_END)}"
    if kind == "kimi":
        return f"{mark('<|tool_calls_section_begin|>')} {calls} {mark('<|tool_calls_section_end|>')}"
    if kind in {"llama3", "json", "harmony"}:
        return "call"  # these write one, or nothing marks the next
    return 'call ("\\n" call)*' if parallel and kind != "mistral-args" else calls


def _wrapped(rule: str, name: str, schema: Any, key: str, *, begin: str = "", end: str = "") -> list[str]:
    """Return the rules of a call that is one object."""
    head = f'{{"name": {json.dumps(name)}, "{key}": '
    return [f'{rule}: {begin} {literal(head)} {rule}args "}}" {end}', f"{rule}args: {json_rule(schema)}"]


def _plain(rule: str, head: str, schema: Any, tail: str = "") -> list[str]:
    """Return the rules of a call whose arguments follow its name."""
    return [f"{rule}: {head} {rule}args {tail}", f"{rule}args: {json_rule(schema)}"]


def _hermes(rule: str, name: str, schema: Any, mark: Mark) -> list[str]:
    begin, end = f'{mark("<tool_call>")} "\\n"', f'"\\n" {mark("</tool_call>")}'
    return _wrapped(rule, name, schema, "arguments", begin=begin, end=end)


def _deepseek(rule: str, name: str, schema: Any, mark: Mark) -> list[str]:
    begin, between = mark(DeepSeek.BEGIN), mark(DeepSeek.BETWEEN)
    head = f'{begin} "function" {between} {literal(name)} "\\n```json\\n"'
    return _plain(rule, head, schema, f'"\\n```" {mark(DeepSeek.END)}')


def _deepseek_v31(rule: str, name: str, schema: Any, mark: Mark) -> list[str]:
    head = f"{mark(DeepSeek.BEGIN)} {literal(name)} {mark(DeepSeek.BETWEEN)}"
    return _plain(rule, head, schema, mark(DeepSeek.END))


def _kimi(rule: str, name: str, schema: Any, mark: Mark) -> list[str]:
    head = f"{mark('<|tool_call_begin|>')} {literal(f'functions.{name}:')} /[0-9]{{1,2}}/"
    return _plain(rule, f"{head} {mark('<|tool_call_argument_begin|>')}", schema, mark("<|tool_call_end|>"))


def _mistral_args(rule: str, name: str, schema: Any, mark: Mark) -> list[str]:
    return _plain(rule, f"{mark('[TOOL_CALLS]')} {literal(name)} {mark('[ARGS]')}", schema)


def _harmony(rule: str, name: str, schema: Any, mark: Mark) -> list[str]:
    to = f"{mark('<|channel|>')} {literal(f'commentary to=functions.{name} ')}"
    return _plain(rule, f'{to} {mark("<|constrain|>")} "json" {mark("<|message|>")}', schema)


def _xml(rule: str, name: str, schema: Any, mark: Mark) -> list[str]:
    begin = literal(f"\n<function={name}>\n")
    call = " ".join([mark("<tool_call>"), begin, f"{rule}args", literal("</function>\n"), mark("</tool_call>")])
    return _marked(rule, schema, call, ("<parameter={}>\n", "\n</parameter>\n"))


def _glm(rule: str, name: str, schema: Any, mark: Mark) -> list[str]:
    call = " ".join([mark("<tool_call>"), literal(f"{name}\n"), f"{rule}args", mark("</tool_call>")])
    return _marked(rule, schema, call, ("<arg_key>{}</arg_key>\n<arg_value>", "</arg_value>\n"))


def _marked(rule: str, schema: Any, call: str, shape: tuple[str, str]) -> list[str]:
    """Return the rules of a call whose parameters are marked by tags, in the order of the schema."""
    schema = schema if isinstance(schema, Mapping) else {}
    required = schema.get("required") or ()
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    rules, order = [f"{rule}: {call}"], []
    for index, (key, value) in enumerate((schema.get("properties") or {}).items()):
        parameter = f"{rule}p{index}"
        order.append(parameter if key in required else f"{parameter}?")
        given = {**value, **shared} if isinstance(value, Mapping) else value
        rules += _parameter(parameter, literal(shape[0].format(key)), given, shape[1])
    return [*rules, f"{rule}args: {' '.join(order) or literal('')}"]


def _parameter(rule: str, head: str, schema: Any, close: str) -> list[str]:
    """Return the rules of a parameter: text as it is, everything else as JSON."""
    said = schema if isinstance(schema, Mapping) else {}
    choices = said.get("enum")
    if choices and all(isinstance(choice, str) for choice in choices):
        return [f"{rule}: {head} ({' | '.join(map(literal, choices))}) {literal(close)}"]
    if said.get("type") == "string":
        until = close.rstrip("\n").replace("/", r"\/").replace("\n", r"\n")
        tail = '"\\n"' if close.endswith("\n") else ""
        return [f"{rule}: {head} {rule}text {tail}", rf"{rule}text[lazy]: /(.|\n)*{until}/"]
    return [f"{rule}: {head} {rule}json {literal(close)}", f"{rule}json: {json_rule(schema)}"]


_CALLS: dict[str, Callable[[str, str, Any, Mark], list[str]]] = {
    "hermes": _hermes,
    "xml": _xml,
    "glm": _glm,
    "llama3": lambda rule, name, schema, _: _wrapped(rule, name, schema, "parameters"),
    "mistral": lambda rule, name, schema, _: _wrapped(rule, name, schema, "arguments"),
    "mistral-args": _mistral_args,
    "deepseek": _deepseek,
    "deepseek-v31": _deepseek_v31,
    "kimi": _kimi,
    "granite": lambda rule, name, schema, _: _wrapped(rule, name, schema, "arguments"),
    "harmony": _harmony,
    "json": lambda rule, name, schema, _: _wrapped(rule, name, schema, "arguments"),
}
