"""Chunks of an answer's tokens: what is text, what is reasoning, what each token's share is."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from models.writers import tokenizer
from yapit import GenerateRequest, TextChunk, Usage
from yapit_plugin_hf_generic.generating.answering import Answer
from yapit_plugin_hf_generic.generating.chat import ChatOptions
from yapit_plugin_hf_generic.generating.decoding import Detokenizer, Stops
from yapit_plugin_hf_generic.generating.parsing import AnswerParser, AnswerStyle
from yapit_plugin_hf_generic.generating.picking import Picker, Sampling
from yapit_plugin_hf_generic.generating.spelling import Spelling

WORDS = tokenizer()
STYLE = AnswerStyle.of(WORDS, WORDS.chat_template, ChatOptions())
END = WORDS.eos_token_id
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def answered(
    text: str,
    *,
    at_once: int = 1,
    stop: Sequence[str] = (),
    tools: tuple[dict[str, Any], ...] = (),
    logprobs: bool = False,
) -> tuple[Answer, list[TextChunk]]:
    asked = GenerateRequest(messages=({"role": "user", "content": "x"},), tools=tools)
    picker = Picker(Sampling(temperature=0), [], logprobs=1 if logprobs else None)
    answer = Answer(
        Spelling(WORDS), Detokenizer(WORDS, STYLE.marks), Stops(stop), AnswerParser(STYLE, asked, ""), picker
    )
    ids = [*WORDS(text).input_ids, END]
    found: list[TextChunk] = []
    for place in range(0, len(ids), at_once):
        some = ids[place : place + at_once]
        for token in some:
            picker.note(torch.nn.functional.one_hot(torch.tensor(token), len(WORDS)).float() * 9, token)
        found += answer.feed(some, [END])
        if answer.stopped:
            break
    return answer, [*found, *answer.end("stop", read=7)]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_reasoning_is_apart_and_counted(at_once: int) -> None:
    _, found = answered("<think>\nwell then</think>\n\nHello", at_once=at_once)
    assert "".join(chunk.reasoning for chunk in found).strip() == "well then"
    assert "".join(chunk.text for chunk in found) == "Hello"
    assert found[-1].finish_reason == "stop"
    usage = found[-1].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (
        7,
        len(WORDS("<think>\nwell then</think>\n\nHello").input_ids) + 1,
    )
    if at_once == 1:
        assert 5 <= usage.reasoning_tokens <= 10


def test_a_call_is_why_the_answer_ended() -> None:
    _, found = answered(CALL, tools=(TOOL,))
    assert found[-1].finish_reason == "tool_calls"
    assert "".join(part.arguments for chunk in found for part in chunk.tool_calls) == '{"a": 1}'
    _, found = answered(CALL)
    assert found[-1].finish_reason == "stop"
    assert "".join(chunk.text for chunk in found) == CALL


def test_nothing_is_read_past_a_stop() -> None:
    answer, found = answered("one two three", stop=["two"])
    assert "".join(chunk.text for chunk in found) == "one "
    assert found[-1] == TextChunk(
        finish_reason="stop", usage=Usage(input_tokens=7, output_tokens=len("one two"), reasoning_tokens=0)
    )
    assert answer.stopped


def test_each_token_of_the_text_has_its_logprob_and_no_other() -> None:
    _, found = answered("<think>hm</think>é!?", logprobs=True)
    listed = [token for chunk in found for token in chunk.logprobs]
    assert b"".join(token.data for token in listed) == "é!?".encode()
    assert [token.data for token in listed] == [b"\xc3", b"\xa9", b"!", b"?"]
    assert all(token.top[0].data == token.data for token in listed)


def test_long_reasoning_leaves_nothing_among_the_logprobs_of_the_text() -> None:
    _, found = answered(f"<think>{'hm, ' * 40}</think>Yes", logprobs=True)
    assert b"".join(token.data for chunk in found for token in chunk.logprobs) == b"Yes"
