import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from loops import run
from yapit.engine.batching import joining
from yapit.engine.batching.joining import Budget, cost, is_token_list, nearest, tokens


class Piece(Struct, frozen=True, eq=False):
    tokens: int


def lengths(pieces: list[Piece]) -> list[int]:
    return [piece.tokens for piece in pieces]


def chosen(head: int, *others: int, limit: int) -> list[int]:
    """Return the lengths of what is joined to the first one."""
    pieces = [Piece(length) for length in (head, *others)]
    return lengths(nearest(pieces[0], pieces, limit))


# ── what an item costs ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("", 1),
        ("word", 2),
        ("a" * 39, 10),
        ("ü" * 20, 11),
        ("\ud800", 1),
        ((), 1),
        ((5,), 1),
        ((7, 8, 9), 3),
        (("query", "document"), 2 + 3),
        (bytes(100_000), 256),
    ],
)
def test_what_an_item_costs(value: Any, count: int) -> None:
    assert tokens(value) == count


@pytest.mark.parametrize(("value", "exact"), [((1, 2), True), ("1 2", False), (("a", "b"), False), (b"12", False)])
def test_only_of_a_list_of_tokens_the_number_is_known(value: Any, *, exact: bool) -> None:
    assert is_token_list(value) is exact


def test_a_batch_costs_its_items_times_the_longest() -> None:
    assert cost([Piece(3), Piece(10), Piece(1)]) == 30


# ── what is joined ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_padding_counts_against_the_limit() -> None:
    assert chosen(10, 10, 10, 10, limit=30) == [10, 10, 10]
    assert chosen(10, 1, 1, 1, 1, limit=30) == [1, 1, 10], "each is as long as the longest"
    assert chosen(1, 10, 1, 1, 1, limit=10) == [1, 1, 1, 1], "a long one would lengthen all the others"


def test_the_nearest_in_length_are_joined() -> None:
    assert chosen(50, 49, 10, 51, 90, 48, 52, limit=156) == [49, 50, 51]
    assert chosen(50, 10, 20, 30, limit=150) == [20, 30, 50]


def test_one_over_the_limit_runs_by_itself() -> None:
    assert chosen(100, 1, 99, 101, limit=30) == [100]


def test_much_padding_is_dearer_than_another_batch() -> None:
    assert chosen(1000, 10, 900, 950, 20, limit=1_000_000) == [900, 950, 1000]
    assert chosen(10, 1000, 20, 900, 950, limit=1_000_000) == [10, 20]


def test_a_little_padding_is_cheaper_than_another_batch() -> None:
    assert chosen(1000, 850, 860, limit=1_000_000) == [850, 860, 1000]
    assert chosen(60, 1, 2, 3, 4, limit=1_000_000) == [1, 2, 3, 4, 60]


POOLS = st.lists(st.integers(1, 2000), min_size=1, max_size=60)


@given(POOLS, st.integers(0, 59), st.integers(1, 20_000))
def test_a_batch_has_the_head_and_keeps_to_the_limits_and_nothing_more_would_fit(
    pool: list[int], place: int, limit: int
) -> None:
    pieces = [Piece(length) for length in pool]
    head = pieces[place % len(pieces)]
    batch = nearest(head, pieces, limit)
    assert head in batch
    assert lengths(batch) == sorted(lengths(batch))
    assert len(set(batch)) == len(batch)

    def fits(some: list[Piece]) -> bool:
        whole = cost(some)
        return whole <= limit and whole - sum(lengths(some)) <= max(256, whole / 8)

    assert len(batch) == 1 or fits(batch)
    line = sorted(pieces, key=lambda piece: piece.tokens)
    first = line.index(batch[0])
    assert line[first : first + len(batch)] == batch, "there is no gap"
    assert first == 0 or not fits([line[first - 1], *batch])
    assert first + len(batch) == len(line) or not fits([*batch, line[first + len(batch)]])


@given(POOLS, st.integers(1, 20_000))
def test_the_same_pool_in_any_order_gives_the_same_lengths(pool: list[int], limit: int) -> None:
    pieces = [Piece(length) for length in pool]
    there = lengths(nearest(pieces[0], pieces, limit))
    assert lengths(nearest(pieces[0], pieces[::-1], limit)) == there


# ── what a batch may cost now ─────────────────────────────────────────────────────────────────────────────────────────
class Clock:
    """The loop's time, which a test sets forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        loop = asyncio.get_running_loop()
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + self.ahead_s)


def test_the_budget_halves_and_comes_back_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        clock, budget, seen = Clock(monkeypatch), Budget(1000), []
        assert budget.now() == 1000
        budget.halve(800)
        assert budget.now() == 400, "it was a batch of 800 that was too large"
        budget.halve(390)
        assert budget.now() == 195
        for _ in range(4):
            clock.ahead_s += joining._COOL_DOWN_S
            seen.append(budget.now())
        assert seen == [390, 780, 1000, 1000]

    run(main())


def test_the_budget_does_not_come_back_before_the_memory_had_time_to_cool_down(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        clock, budget = Clock(monkeypatch), Budget(1000)
        budget.halve(1000)
        clock.ahead_s += joining._COOL_DOWN_S - 5
        assert budget.now() == 500
        budget.halve(500)
        clock.ahead_s += 10
        assert budget.now() == 250, "the time begins anew"
        clock.ahead_s += joining._COOL_DOWN_S
        assert budget.now() == 500

    run(main())


def test_a_budget_that_nobody_asked_for_hours_is_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        clock, budget = Clock(monkeypatch), Budget(1000)
        for _ in range(20):
            budget.halve(1000)
        assert budget.now() == 1
        clock.ahead_s += 3600
        assert budget.now() == 1000
        budget.halve(1000)
        assert budget.now() == 500, "the hours do not count twice"

    run(main())


@given(st.lists(st.integers(1, 5000), max_size=20))
def test_a_budget_only_shrinks_while_the_memory_does_not_suffice(spent: list[int]) -> None:
    async def main() -> None:
        budget = Budget(4096)
        found = [budget.now()]
        for batch in spent:
            budget.halve(batch)
            found.append(budget.now())
            assert found[-1] <= max(1, batch // 2)
        assert all(1 <= later <= earlier for earlier, later in pairwise(found))

    run(main())
