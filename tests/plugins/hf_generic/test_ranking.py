"""Scores of tiny models, compared with those of sentence-transformers and of the model card's own code."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from sentence_transformers import CrossEncoder

import yapit_plugin_hf_generic
from loops import run
from models import encoders
from yapit import Context, InvalidInputError, LoadError, Model, Reranker, RerankRequest, Score, SettingsError
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import RERANK
from yapit_plugin_hf_generic.ranking import reranker

Ranker = Callable[..., Reranker]
PAIRS = (
    ("the cat", "a dog runs"),
    ("the cat", "the cat sleeps in the sun and on the bank of the river"),
    ("money in the bank", "rain"),
    ("dog", ""),
)


def load(folder: Path, *, batch_tokens: int | None = None, **options: Any) -> Reranker:
    return reranker(entry(folder, batch_tokens=batch_tokens, **options), Context(device="cpu"))


def entry(folder: Path, *, batch_tokens: int | None = None, **options: Any) -> Model:
    return Model(
        id="m",
        backend="hf-generic",
        tasks=("rerank",),
        source=str(folder),
        options=options,
        batch_tokens=batch_tokens,
        deterministic=False,
    )


def ask(adapter: Reranker, pairs: Sequence[tuple[str, str]], **settings: Any) -> list[Score]:
    found = adapter.rerank(RerankRequest(pairs=tuple(pairs), **settings))
    return [score for score in found if isinstance(score, Score)]  # type: ignore[union-attr] # it computes


def values(found: Sequence[Score]) -> list[float]:
    assert [score.index for score in found] == list(range(len(found)))
    return [score.relevance for score in found]


def oracle(folder: Path, pairs: Sequence[tuple[str, str]], **settings: Any) -> list[float]:
    """Return what sentence-transformers says, to one pair at a time."""
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    return [float(model.predict([pair], **settings)[0]) for pair in pairs]


@pytest.fixture(scope="session")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.save_classifier(tmp_path_factory.mktemp("ranking") / "cross", ["relevance"])


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.save_judge(tmp_path_factory.mktemp("ranking") / "judge")


# ── cross-encoders ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_pairs_are_scored_as_by_sentence_transformers(crossed: Path) -> None:
    found = values(ask(load(crossed), PAIRS))
    assert found == pytest.approx(oracle(crossed, PAIRS), abs=1e-4)
    assert max(found) - min(found) > 1e-3
    assert all(0 < relevance < 1 for relevance in found)


def test_raw_scores_are_logits(crossed: Path) -> None:
    logits = oracle(crossed, PAIRS, activation_fn=torch.nn.Identity())
    assert values(ask(load(crossed), PAIRS, raw_scores=True)) == pytest.approx(logits, abs=1e-4)


@pytest.mark.parametrize("place", ["sentence_transformers", "sbert", "config_sentence_transformers.json"])
def test_the_activation_is_the_repositorys(tmp_path: Path, place: str) -> None:
    folder = encoders.save_classifier(tmp_path / "model", ["relevance"])
    name = "torch.nn.modules.linear.Identity"
    config = json.loads((folder / "config.json").read_text())
    if place == "sbert":
        config["sbert_ce_default_activation_function"] = name
    elif place == "sentence_transformers":
        config["sentence_transformers"] = {"activation_fn": name, "version": "5.0.0"}
    else:
        (folder / place).write_text(json.dumps({"activation_fn": name}))
    (folder / "config.json").write_text(json.dumps(config))
    assert values(ask(load(folder), PAIRS)) == values(ask(load(folder), PAIRS, raw_scores=True))
    assert values(ask(load(folder, activation="sigmoid"), PAIRS)) != values(ask(load(folder), PAIRS))


def test_tokens_are_those_of_the_pair(crossed: Path) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(crossed)
    right = [len(ids) for ids in tokenizer(list(PAIRS))["input_ids"]]
    assert [score.tokens for score in ask(load(crossed), PAIRS)] == right


def test_a_document_that_is_too_long_is_cut_and_the_query_is_not(crossed: Path) -> None:
    pair = ("the cat sleeps", "dog " * 200)
    (found,) = ask(load(crossed), [pair])
    assert found.tokens == encoders.POSITIONS
    assert found.relevance == pytest.approx(oracle(crossed, [(pair[0], "dog " * (64 - 3 - 3))])[0], abs=1e-5)
    (longer,) = ask(load(crossed), [("cat " * 50, "dog " * 30)])
    assert longer.relevance == pytest.approx(oracle(crossed, [("cat " * 50, "dog " * 11)])[0], abs=1e-5)


def test_a_query_that_leaves_no_room_is_an_error(crossed: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"61 tokens.*at most 60") as caught:
        ask(load(crossed), [("cat", "dog"), ("cat " * 61, "dog")])
    assert (caught.value.param, caught.value.code) == ("pairs[1]", "context_length_exceeded")
    assert len(ask(load(crossed), [("cat " * 60, "dog")])) == 1


def test_documents_are_cut_to_as_many_tokens_as_the_request_says(crossed: Path) -> None:
    adapter = load(crossed)
    cut = ask(adapter, [("the cat", "dog runs in rain"), ("the cat", "dog")], max_document_tokens=2)
    assert values(cut) == pytest.approx(oracle(crossed, [("the cat", "dog runs"), ("the cat", "dog")]), abs=1e-5)
    with pytest.raises(InvalidInputError) as caught:
        ask(adapter, PAIRS, max_document_tokens=0)
    assert caught.value.param == "max_document_tokens"


def test_a_model_with_two_labels_says_how_much_likelier_the_second_is(tmp_path: Path) -> None:
    folder = encoders.save_classifier(tmp_path / "model", ["no", "yes"])
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    right = [model.predict([pair], apply_softmax=True)[0][1] for pair in PAIRS]
    assert values(ask(load(folder), PAIRS)) == pytest.approx(right, abs=1e-4)


def test_a_model_with_three_labels_does_not_rank(tmp_path: Path) -> None:
    folder = encoders.save_classifier(tmp_path / "model", ["a", "b", "c"])
    with pytest.raises(LoadError, match="3 labels"):
        load(folder)


def test_a_model_that_reads_forward_and_names_no_padding_ranks_in_batches(tmp_path: Path) -> None:
    folder = encoders.save_causal_classifier(tmp_path / "model", ["relevance"])
    adapter = load(folder)
    alone = [ask(adapter, [pair])[0].relevance for pair in PAIRS]
    assert values(ask(adapter, PAIRS)) == pytest.approx(alone, abs=1e-5)
    assert alone == pytest.approx(oracle(folder, PAIRS), abs=1e-4)


# ── chat models ───────────────────────────────────────────────────────────────────────────────────────────────────────
def as_on_the_card(folder: Path, pairs: Sequence[tuple[str, str]], task: str) -> list[float]:
    """Score pairs with the code of Qwen3-Reranker's model card, one at a time."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = hf.AutoModelForCausalLM.from_pretrained(folder).eval()
    false, true = (tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (prefix, suffix))
    scores = []
    for query, document in pairs:
        text = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}"
        ids = before + tokenizer(text, add_special_tokens=False)["input_ids"] + after
        with torch.no_grad():
            row = model(input_ids=torch.tensor([ids])).logits[0, -1]
        both = torch.nn.functional.log_softmax(torch.stack([row[false], row[true]]), dim=0)
        scores.append(both[1].exp().item())
    return scores


def test_a_chat_model_is_asked_as_on_its_card(judge: Path) -> None:
    right = as_on_the_card(judge, PAIRS, "Given a web search query, retrieve relevant passages that answer the query")
    found = values(ask(load(judge), PAIRS))
    assert found == pytest.approx(right, abs=1e-4)
    assert max(found) - min(found) > 1e-3


def test_a_chat_model_is_told_what_makes_a_document_relevant(judge: Path) -> None:
    found = values(ask(load(judge), PAIRS, instruction="Find cats."))
    assert found == pytest.approx(as_on_the_card(judge, PAIRS, "Find cats."), abs=1e-4)
    assert values(ask(load(judge, instruction="Find cats."), PAIRS)) == pytest.approx(found, abs=1e-6)
    assert values(ask(load(judge), PAIRS)) != pytest.approx(found, abs=1e-4)


def test_the_raw_score_of_a_chat_model_is_the_distance_of_its_logits(judge: Path) -> None:
    raw = np.array(values(ask(load(judge), PAIRS, raw_scores=True)))
    assert 1 / (1 + np.exp(-raw)) == pytest.approx(values(ask(load(judge), PAIRS)), abs=1e-6)


def test_a_chat_models_words_and_template_may_be_others(judge: Path) -> None:
    options: dict[str, Any] = {
        "prefix": "",
        "suffix": "?",
        "template": "{query} {document}",
        "yes_token": "1",
        "no_token": "0",
    }
    found = values(ask(load(judge, **options), PAIRS))
    tokenizer = hf.AutoTokenizer.from_pretrained(judge)
    model = hf.AutoModelForCausalLM.from_pretrained(judge).eval()
    for relevance, (query, document) in zip(found, PAIRS, strict=True):
        ids = [*tokenizer(f"{query} {document}").input_ids, *tokenizer("?").input_ids]
        with torch.no_grad():
            row = model(input_ids=torch.tensor([ids])).logits[0, -1]
        no, yes = (row[tokenizer.convert_tokens_to_ids(word)] for word in "01")
        assert relevance == pytest.approx(torch.sigmoid(yes - no).item(), abs=1e-5)


def test_a_template_without_a_place_for_the_document_is_refused(judge: Path) -> None:
    with pytest.raises(SettingsError, match="document"):
        load(judge, template="{query}")
    with pytest.raises(SettingsError, match="not one token"):
        load(judge, yes_token="surely")  # noqa: S106 - no password


def test_a_chat_models_document_is_cut_and_what_follows_it_is_not(judge: Path) -> None:
    (found,) = ask(load(judge, max_tokens=400), [("cat", "a" * 500)])
    assert found.tokens == 400
    room = 400 - ask(load(judge), [("cat", "")])[0].tokens
    assert found.relevance == pytest.approx(ask(load(judge), [("cat", "a" * room)])[0].relevance, abs=1e-5)
    (short,) = ask(load(judge), [("cat", "a" * 500)], max_document_tokens=3)
    assert short.relevance == pytest.approx(ask(load(judge), [("cat", "aaa")])[0].relevance, abs=1e-5)


def test_a_chat_models_query_that_leaves_no_room_is_an_error(judge: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ask(load(judge, max_tokens=400), [("cat", "dog"), ("c" * 400, "dog")])
    assert (caught.value.param, caught.value.code) == ("pairs[1]", "context_length_exceeded")


# ── many ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_long_request_runs_in_pieces_and_is_answered_in_order(crossed: Path) -> None:
    pairs = [("the cat", "dog " * (1 + number * 7 % 30)) for number in range(20)]
    found = values(ask(load(crossed, batch_tokens=64), pairs))
    assert found == pytest.approx(oracle(crossed, pairs), abs=1e-4)


@pytest.mark.parametrize("kind", ["crossed", "judge"])
def test_one_among_32_concurrent_clients_gets_the_scores_of_its_pairs(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(kind)
    pairs = [("the cat", f"{'dog ' * (number % 5)} number {number}") for number in range(32)]
    adapter = load(folder)
    right = [ask(adapter, [pair])[0].relevance for pair in pairs]
    plugins = Plugins()
    plugins.register("hf-generic", yapit_plugin_hf_generic)
    model = Model(
        id="m", backend="hf-generic", tasks=("rerank",), source=str(folder), executor="thread", deterministic=False
    )

    async def one(engine: Engine, pair: tuple[str, str]) -> float:
        async with aclosing(engine.stream(RERANK, model, RerankRequest(pairs=(pair,)))) as chunks:
            (score,) = [chunk async for chunk in chunks if isinstance(chunk, Score)]
            return score.relevance

    async def main() -> None:
        engine = Engine(Settings(device="cpu", data_dir=str(tmp_path)), plugins, Catalog([model]))
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(one(engine, pair)) for pair in pairs]
        finally:
            await engine.close()
        assert [task.result() for task in asked] == pytest.approx(right, abs=1e-4)

    run(main())


def test_nothing_is_computed_for_a_client_that_has_gone(crossed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = load(crossed, batch_tokens=64)
    calls: list[int] = []
    forward = adapter._scorer.model.forward  # type: ignore[attr-defined] # of this kind

    def seen(**given: Any) -> Any:
        calls.append(len(given["input_ids"]))
        return forward(**given)

    monkeypatch.setattr(adapter._scorer.model, "forward", seen)  # type: ignore[attr-defined] # likewise
    scores: Any = adapter.rerank(RerankRequest(pairs=tuple(("cat", "dog " * (n + 1)) for n in range(20))))
    assert next(scores).index == 0
    scores.close()
    assert len(calls) == 1
