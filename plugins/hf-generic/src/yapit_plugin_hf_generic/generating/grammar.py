"""Answers that must have a form: a schema, a regular expression, a grammar, a call of a function."""

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import llguidance.hf
import numpy as np
from llguidance import LLMatcher, LLTokenizer, regex_to_lark
from numpy.typing import NDArray

from yapit import BackendError, GenerateRequest, InvalidInputError
from yapit_plugin_hf_generic.generating.calling import LAYOUT, call_rules, literal
from yapit_plugin_hf_generic.generating.forms import RULES, brief, lark_of, wanted_form
from yapit_plugin_hf_generic.generating.parsing import AnswerStyle, Tags

_KEPT = 64  # compiled grammars; one takes 2 ms for 150,000 tokens, a copy of it 10 us
_ANSWER = "answer"


class Grammars:
    """Makes the constraints of one model's answers.

    Args:
        tokenizer: of the model.
        style: how it marks reasoning and calls.
        size: of the model's vocabulary, as its logits have it; the tokenizer's when None.
        ends: tokens that end an answer; the tokenizer's own when empty.
    """

    def __init__(
        self, tokenizer: Any, style: AnswerStyle, *, size: int | None = None, ends: Sequence[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._style = style
        self._size = size or len(tokenizer)
        self._ends = tuple(ends) or tuple(end for end in (tokenizer.eos_token_id,) if end is not None)
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = Lock()

    def of(self, request: GenerateRequest, prefix: str = "") -> "Constraint | None":
        """Return what the answer to `request` is bound to, None if to nothing.

        Args:
            request: whose answer it is.
            prefix: what the prompt has written of the answer: reasoning that it begins may go on first.

        Raises:
            InvalidInputError: a schema, expression or grammar is not valid, or more than is supported.
        """
        wanted = wanted_form(request)
        if wanted is None:
            return None
        kind, value, param = wanted
        key = json.dumps([kind, value, request.parallel_tool_calls, prefix], default=str)
        with self._lock:
            found = self._compiled.pop(key, None)
            if found is None:
                found = self._compile(kind, value, param, request, prefix)
            self._compiled[key] = found
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
            return Constraint(found.deep_copy(), self._size, self._ends)

    @cached_property
    def _words(self) -> LLTokenizer:
        """The tokenizer as llguidance reads it; that takes a second for a large vocabulary."""
        try:
            return llguidance.hf.from_tokenizer(self._tokenizer, eos_token=list(self._ends))
        except ValueError as error:
            message = f"This model's tokenizer cannot be used for structured output: {brief(error)}"
            raise InvalidInputError(message, param="response_format") from error

    def _compile(self, kind: str, value: Any, param: str, request: GenerateRequest, prefix: str) -> LLMatcher:
        lead = self._lead(request, prefix, calls=kind == "tools")
        if kind == "tools":
            rules = call_rules(self._style.tools, value, self._mark, parallel=request.parallel_tool_calls)
            grammar = f"start: {lead} calls\n{rules}{self._common()}"
        elif kind == "grammar":
            outer = {"lark_grammar": f"start: {lead} @{_ANSWER}\n{self._common()}"}
            grammar = json.dumps({"grammars": [outer, {"name": _ANSWER, "lark_grammar": lark_of(value, param)}]})
        else:
            grammar = f"start: {lead} {_ANSWER}\n{_ANSWER}: {RULES[kind](value, param)}\n{self._common()}"
        found = LLMatcher(self._words, grammar, log_level=0)
        if found.is_error():
            self._refuse(kind, value, param, found.get_error())
        return found

    def _refuse(self, kind: str, value: Any, param: str, said: str) -> None:
        """Raise what is wrong with what the client sent, not with the grammar around it."""
        if kind == "tools":
            for index, tool in enumerate(value):
                if why := self._problem(tool["function"].get("parameters") or {}):
                    where = f"tools[{index}].function.parameters"
                    raise InvalidInputError(f"The parameters of a function are refused: {why}", param=where)
        why = (self._problem(value) if kind == "json" else "") or brief(said)
        names = {"json": "JSON schema", "regex": "regular expression", "choice": "choice", "grammar": "grammar"}
        raise InvalidInputError(f"The {names.get(kind, 'form')} is refused: {why}", param=param)

    def _problem(self, schema: Any) -> str:
        """Return what is wrong with a schema; empty if nothing is."""
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=LAYOUT)
        except ValueError as error:
            return brief(error)
        wrong, said = LLMatcher.validate_grammar_with_warnings(grammar, self._words)
        return brief(said[0]) if wrong else ""

    def _lead(self, request: GenerateRequest, prefix: str, *, calls: bool) -> str:
        """Return the grammar of what may come before what has the form."""
        if request.prompt is not None:
            return ""
        if self._style.tools == "harmony":
            said = f'({self._mark("<|channel|>")} "analysis" {self._mark("<|message|>")} TEXT {self._mark("<|end|>")}'
            thought = f'{said} {self._mark("<|start|>")} "assistant")?'
            return thought if calls else f'{thought} {self._mark("<|channel|>")} "final" {self._mark("<|message|>")}'
        tags = self._style.reasoning
        if tags is None:
            return ""
        _, opened, thought = prefix.rpartition(tags.open)
        if opened and tags.close not in thought:
            return self._thought(tags)
        return "" if prefix.strip() else f"({self._mark(tags.open)} {self._thought(tags)})?"

    def _thought(self, tags: Tags) -> str:
        """Return the grammar of reasoning up to its end."""
        close = self._mark(tags.close)
        return f"TEXT {close} SPACE" if close.startswith("<") else "thought SPACE"

    def _common(self) -> str:
        """Return the rules that the others use."""
        rules = "TEXT: /(.|\\n)*/\nSPACE: /[ \\n]{0,3}/\n"
        if self._style.reasoning is not None:
            close = regex_to_lark(re.escape(self._style.reasoning.close))
            rules += f"thought[lazy]: /(.|\\n)*{close}/\n"
        return rules

    def _mark(self, text: str) -> str:
        """Return a mark in a grammar: as the tokens that text cannot contain, the rest as text."""
        tokens = {mark: token for mark, token in self._tokenizer.get_added_vocab().items() if mark in text}
        tokens = {mark: token for mark, token in tokens.items() if self._words.is_special_token(token)}
        if not tokens:
            return literal(text)
        longest_first = sorted(tokens, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        return " ".join(f"<[{tokens[piece]}]>" if piece in tokens else literal(piece) for piece in pieces if piece)


class Constraint:
    """What one answer is bound to; follows the answer token by token.

    Args:
        matcher: of the answer's own.
        size: of the vocabulary.
        ends: tokens that end an answer.
    """

    def __init__(self, matcher: LLMatcher, size: int, ends: Sequence[int]) -> None:
        self._matcher = matcher
        self._size = size
        self._ends = frozenset(ends)
        self._read = 0

    @property
    def done(self) -> bool:
        """Whether the answer is complete, and only its end may follow."""
        return bool(self._matcher.is_stopped())

    def mask(self, generated: Sequence[int]) -> NDArray[np.bool_]:
        """Return which tokens may come next, one truth value for each of the vocabulary.

        Args:
            generated: the whole answer so far; what was there at the last call is not read again.

        Raises:
            BackendError: the answer has left the form, or the form is too complex to be followed.
        """
        if len(generated) < self._read:
            self._matcher.reset()
            self._read = 0
        for token in generated[self._read :]:
            if token not in self._ends and not self._matcher.is_stopped():
                self._matcher.consume_token(token)
        self._read = len(generated)
        if self._matcher.is_error():
            raise BackendError(f"The answer cannot be kept in its form: {brief(self._matcher.get_error())}")
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=min(self._size, bits.size * 8), bitorder="little").view(np.bool_)
        return np.pad(allowed, (0, self._size - allowed.size)) if allowed.size < self._size else allowed
