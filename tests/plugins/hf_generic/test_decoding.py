"""Text as tokens come: whole characters, no special tokens, nothing past a stop."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.writers import tokenizer
from yapit_plugin_hf_generic.generating.decoding import Detokenizer, Stops
from yapit_plugin_hf_generic.generating.spelling import Spelling

WORDS = tokenizer()
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_the_pieces_are_the_text_and_no_character_comes_in_parts(text: str) -> None:
    found = Detokenizer(WORDS)
    pieces = [found.feed(token) for token in WORDS(text).input_ids]
    assert "".join(pieces) + found.end() == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_a_character_comes_with_its_last_byte() -> None:
    found = Detokenizer(WORDS)
    assert [found.feed(token) for token in WORDS("aé").input_ids] == ["a", "", "é"]


def test_a_character_that_is_not_completed_is_marked_at_the_end() -> None:
    found = Detokenizer(WORDS)
    first, *_ = WORDS("é").input_ids
    assert found.feed(first) == ""
    assert found.end() == "\ufffd"


def test_special_tokens_are_left_out_but_for_marks() -> None:
    begin, end = WORDS.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    ids = [begin, *WORDS("hi").input_ids, end]
    assert "".join(map(Detokenizer(WORDS).feed, ids)) == "hi"
    assert "".join(map(Detokenizer(WORDS, {"<|im_start|>"}).feed, ids)) == "<|im_start|>hi"


def test_each_token_has_its_bytes() -> None:
    assert [Spelling(WORDS).bytes_of(token) for token in WORDS("é \n").input_ids] == [b"\xc3", b"\xa9", b" ", b"\n"]
    assert Spelling(WORDS).bytes_of(WORDS.convert_tokens_to_ids("<think>")) == b"<think>"


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("abc\n", max_size=40),
    stops=st.lists(st.text("abc\n", min_size=1, max_size=4), max_size=4),
    cuts=st.lists(st.integers(0, 40), max_size=8),
)
def test_a_stop_is_found_however_the_text_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    found = Stops(stops)
    said = ""
    for piece in pieces:
        if not found.found:
            said += found.feed(piece)
    said += found.end()
    # The stop that is complete first ends the answer.
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert found.found == bool(ends)
    if not ends:
        assert said == text
    else:
        assert said in {text[:begin] for _, begin in ends}
        assert not any(stop in said for stop in stops)


@pytest.mark.parametrize(("pieces", "said"), [(["hel", "lo EN", "D x"], "hello "), (["END"], ""), (["EN", "E"], "ENE")])
def test_what_may_be_the_beginning_of_a_stop_waits(pieces: list[str], said: str) -> None:
    found = Stops(["END"])
    assert "".join(map(found.feed, pieces)) + found.end() == said
