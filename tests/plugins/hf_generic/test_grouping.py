"""Long requests in pieces: each input once, no piece too large, little padding, answers in order."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from yapit_plugin_hf_generic.grouping import Piece, groups, in_order, piece

lengths = st.lists(st.integers(1, 300), max_size=60)


@given(lengths=lengths, most=st.builds(Piece, st.integers(1, 2000), st.integers(0, 300)))
def test_pieces_have_each_input_once_the_shortest_first_and_keep_the_limits(lengths: list[int], most: Piece) -> None:
    found = list(groups(lengths, most))
    flat = [place for group in found for place in group]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[place] for place in flat] == sorted(lengths)
    for group in found:
        whole = len(group) * max(lengths[place] for place in group)
        padding = whole - sum(lengths[place] for place in group)
        assert len(group) == 1 or whole <= most.tokens
        assert padding <= max(most.padding, whole / 8)


def test_texts_of_one_length_run_together_and_others_where_padding_is_cheap() -> None:
    assert list(groups([5, 9, 5, 5], Piece(100, 0))) == [[0, 2, 3], [1]]
    assert list(groups([5, 9, 5, 5], Piece(100, 12))) == [[0, 2, 3, 1]]
    assert list(groups([5, 5, 5], Piece(10, 0))) == [[0, 1], [2]]


def test_a_cpu_has_smaller_pieces_and_pads_less_than_a_gpu() -> None:
    small, large = (piece(None, torch.device(name)) for name in ("cpu", "cuda"))
    assert small.tokens < large.tokens
    assert small.padding < large.padding
    assert piece(100, torch.device("cpu")).tokens == piece(100, torch.device("cuda")).tokens == 100


@given(st.permutations(range(8)))
def test_answers_come_by_their_places(order: list[int]) -> None:
    assert list(in_order((place, str(place)) for place in order)) == list("01234567")
