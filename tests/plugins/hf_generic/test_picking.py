"""A picked token is what transformers' own processors would leave over, drawn by the request's own chance."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from yapit import GenerateRequest
from yapit_plugin_hf_generic.generating import picking
from yapit_plugin_hf_generic.generating.picking import Picker, Sampling, pick

SIZE = 300


def row(seed: int = 0, size: int = SIZE) -> torch.Tensor:
    return 3 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def chosen(scores: torch.Tensor, *pickers: Picker, generated: tuple[int, ...] = ()) -> list[int]:
    wanted = [(place, picker, list(generated)) for place, picker in enumerate(pickers)]
    found: list[int] = pick(scores, wanted).argmax(-1).tolist()
    return found


def left_over(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return the probabilities that transformers would sample from."""
    chain = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        chain.append(MinPLogitsWarper(sampling.min_p))
    return torch.softmax(chain(torch.zeros(1, 1, dtype=torch.long), logits[None].clone())[0], -1)


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.8]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 50, 10_000]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.3]),
)


@settings(max_examples=60, deadline=None)
@given(sampling=samplings, seed=st.integers(0, 100), width=st.sampled_from([8, 64, 1024]))
def test_every_token_is_drawn_as_often_as_it_should_be(sampling: Sampling, seed: int, width: int) -> None:
    logits = row(seed)
    expected = left_over(logits, sampling)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picking, "_HEAD", width)
        # All chances in even steps: how many fall on a token is its probability.
        steps = 2000

        class Even(Picker):
            def __init__(self, place: int) -> None:
                super().__init__(sampling, [])
                self.place = place

            def draw(self) -> float:
                return (self.place + 0.5) / steps

        pickers = [Even(place) for place in range(steps)]
        found = chosen(logits.expand(steps, SIZE), *pickers)
    counts = Counter(found)
    assert all(expected[token] > 0 for token in counts)
    assert all(abs(counts[token] / steps - float(expected[token])) < 2 / steps for token in range(SIZE))


def test_rows_of_others_stay_as_they_are() -> None:
    scores = torch.stack([row(1), row(2), row(3)])
    result = pick(scores, [(1, Picker(Sampling(temperature=0, presence_penalty=1.0), []), [])])
    assert torch.equal(result[0], scores[0])
    assert torch.equal(result[2], scores[2])
    assert int(result[1].argmax()) == int(scores[1].argmax())


def test_each_row_is_chosen_in_its_own_way() -> None:
    scores = row(1).expand(4, SIZE).clone()
    best = int(row(1).argmax())
    pickers = [
        Picker(Sampling(temperature=0), [], logprobs=0),
        Picker(Sampling(temperature=1e-4), [], seed=1),
        Picker(Sampling(temperature=2.0, top_k=1), [], seed=2),
        Picker(Sampling(temperature=0), [], logit_bias={7: 1000.0}),
    ]
    assert chosen(scores, *pickers) == [best, best, best, 7]


def test_a_repetition_penalty_is_that_of_transformers() -> None:
    prompt, generated = [1, 2, 3, 3], [4, 5, 4]
    logits = row(4)
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([prompt + generated]), logits[None].clone())[0]
    changed = Picker(Sampling(repetition_penalty=1.7), prompt).changed(logits, generated)
    assert torch.allclose(changed, expected)


def test_frequency_and_presence_penalties_are_openai_s() -> None:
    logits = row(5)
    changed = Picker(Sampling(frequency_penalty=0.5, presence_penalty=0.25), [9, 9]).changed(logits, [4, 4, 7])
    difference = logits - changed
    assert difference[4].item() == pytest.approx(2 * 0.5 + 0.25)
    assert difference[7].item() == pytest.approx(0.5 + 0.25)
    assert difference[9] == 0, "what was read is not what was written"


class Only:
    def __init__(self, *tokens: int) -> None:
        self.tokens = tokens
        self.seen: list[list[int]] = []

    def mask(self, generated: Any) -> torch.Tensor:
        self.seen.append(list(generated))
        allowed = torch.zeros(SIZE - 20, dtype=torch.bool)
        allowed[list(self.tokens)] = True
        return allowed


def test_a_constraint_allows_only_what_it_allows_also_against_a_bias() -> None:
    constraint = Only(3, 5)
    picker = Picker(Sampling(temperature=5.0), [], constraint=constraint, logit_bias={8: 500.0, 290: 500.0}, seed=3)
    found = {chosen(row(seed)[None], picker, generated=(1, 2))[0] for seed in range(40)}
    assert found == {3, 5}
    assert constraint.seen[0] == [1, 2]


def test_logprobs_are_the_model_s_own() -> None:
    logits = row(6)
    expected = torch.log_softmax(logits, -1)
    picker = Picker(Sampling(temperature=0.5, presence_penalty=1.0), [], logprobs=3, seed=1)
    (token,) = chosen(logits[None], picker, generated=(1,))
    (noted,) = picker.noted
    assert noted.logprob == pytest.approx(float(expected[token]), abs=1e-5)
    values, ids = expected.topk(3)
    assert [token for token, _ in noted.top] == ids.tolist()
    assert [value for _, value in noted.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_a_seed_decides_everything() -> None:
    def some(seed: int | None) -> list[int]:
        picker = Picker(Sampling(), [], seed=seed)
        return [chosen(row(place)[None], picker)[0] for place in range(20)]

    assert some(11) == some(11)
    assert some(11) != some(12)
    assert some(None) != some(None)


def test_a_copy_is_the_same_picker() -> None:
    picker = Picker(Sampling(), [])
    assert copy.deepcopy({"picker": picker})["picker"] is picker


def test_only_a_greedy_picker_that_changes_nothing_is_idle() -> None:
    assert Picker(Sampling(temperature=0), []).idle
    assert not Picker(Sampling(temperature=1), []).idle
    assert not Picker(Sampling(temperature=0), [], logprobs=0).idle
    assert not Picker(Sampling(temperature=0, frequency_penalty=0.1), []).idle
    assert not Picker(Sampling(temperature=0), [], logit_bias={1: 1.0}).idle


def test_the_request_wins_over_the_generation_config() -> None:
    class Config:
        temperature = 0.6
        top_p = 0.95
        top_k = 20
        min_p = None
        repetition_penalty = 1.05

    asked = GenerateRequest(prompt="x", temperature=0.0, top_k=0, frequency_penalty=1.0)
    found = Sampling.of(asked, Config())
    assert found == Sampling(temperature=0.0, top_p=0.95, top_k=0, repetition_penalty=1.05, frequency_penalty=1.0)
    assert Sampling.of(GenerateRequest(prompt="x"), object()) == Sampling()
