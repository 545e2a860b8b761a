"""Labels of tiny models, compared with those of transformers' pipelines."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as hf
from PIL import Image

import yapit_plugin_hf_generic
from loops import run
from models import encoders
from yapit import Classification, Classifier, ClassifyRequest, Context, InvalidInputError, Model
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import CLASSIFY
from yapit_plugin_hf_generic import pictures
from yapit_plugin_hf_generic.classifying import classifier

Scores = dict[str, float]
TEXTS = ("the cat sleeps in the sun", "rain", "a dog runs on the bank and the cat is in the river")
MOODS = ("sad", "glad", "angry")
NLI = ("contradiction", "neutral", "entailment")


def load(folder: Path, *, batch_tokens: int | None = None, images: dict[str, Any] | None = None, **options: Any) -> Any:
    model = Model(
        id="m",
        backend="hf-generic",
        tasks=("classify",),
        source=str(folder),
        options=options,
        batch_tokens=batch_tokens,
    )
    adapter = classifier(model, Context(device="cpu", plugin_settings={"hf-generic": images or {}}))
    assert isinstance(adapter, Classifier)
    return adapter


def ask(adapter: Any, **request: Any) -> list[Classification]:
    found = list(adapter.classify(ClassifyRequest(**request)))
    assert [each.index for each in found] == list(range(len(found)))
    for each in found:
        scores = [score for _, score in each.scores]
        assert scores == sorted(scores, reverse=True)
    return found


def same(found: Sequence[Classification], right: Sequence[Scores]) -> None:
    assert len(found) == len(right)
    for each, scores in zip(found, right, strict=True):
        assert dict(each.scores) == pytest.approx(scores, abs=1e-4)


def pipeline(task: str, folder: Path, **parts: Any) -> Any:
    tokenizer = hf.AutoTokenizer.from_pretrained(folder) if "image_processor" not in parts else None
    return hf.pipeline(task, str(folder), tokenizer=tokenizer, device="cpu", **parts)


def listed(found: Sequence[dict[str, Any]]) -> Scores:
    return {each["label"]: each["score"] for each in found}


def oracle(folder: Path, **settings: Any) -> list[Scores]:
    """Return what transformers says, to one text at a time."""
    classify = pipeline("text-classification", folder, top_k=None)
    return [listed(classify([text], **settings)[0]) for text in TEXTS]


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_texts_are_labelled_as_by_transformers(tmp_path: Path) -> None:
    folder = encoders.save_classifier(tmp_path / "model", MOODS)
    found = ask(load(folder), texts=TEXTS)
    same(found, oracle(folder))
    assert sum(score for _, score in found[0].scores) == pytest.approx(1)
    assert found[0].scores != found[1].scores


@pytest.mark.parametrize(
    "config", [{"problem_type": "multi_label_classification"}, {"problem_type": "regression"}], ids=["many", "number"]
)
def test_what_the_scores_are_is_in_the_models_configuration(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = encoders.save_classifier(tmp_path / "model", MOODS, **config)
    same(ask(load(folder), texts=TEXTS), oracle(folder))


def test_a_model_with_one_label_gives_its_probability(tmp_path: Path) -> None:
    folder = encoders.save_classifier(tmp_path / "model", ["toxic"])
    same(ask(load(folder), texts=TEXTS), oracle(folder))


def test_a_request_may_ask_for_each_label_by_itself(tmp_path: Path) -> None:
    folder = encoders.save_classifier(tmp_path / "model", MOODS)
    same(ask(load(folder), texts=TEXTS, multi_label=True), oracle(folder, function_to_apply="sigmoid"))


def test_labels_belong_to_their_numbers_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    names = [f"label {number}" for number in range(12)]
    folder = encoders.save_classifier(tmp_path / "model", names)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = dict(sorted(config["id2label"].items(), reverse=True))
    (folder / "config.json").write_text(json.dumps(config))
    same(ask(load(folder), texts=TEXTS), oracle(folder))


def test_tokens_are_counted(tmp_path: Path) -> None:
    folder = encoders.save_classifier(tmp_path / "model", MOODS)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    assert [each.tokens for each in ask(load(folder), texts=TEXTS)] == [len(tokenizer(t).input_ids) for t in TEXTS]


def test_a_text_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    adapter = load(encoders.save_classifier(tmp_path / "model", MOODS))
    with pytest.raises(InvalidInputError, match=r"102 tokens.*at most 64") as caught:
        ask(adapter, texts=("rain", "cat " * 100))
    assert (caught.value.param, caught.value.code) == ("texts[1]", "context_length_exceeded")


def test_a_long_request_runs_in_pieces_and_is_answered_in_order(tmp_path: Path) -> None:
    folder = encoders.save_classifier(tmp_path / "model", MOODS)
    texts = tuple("dog " * (1 + number * 7 % 30) for number in range(20))
    alone = load(folder)
    right = [dict(ask(alone, texts=(text,))[0].scores) for text in texts]
    same(ask(load(folder, batch_tokens=64), texts=texts), right)


def test_a_model_with_labels_of_its_own_takes_no_others(tmp_path: Path) -> None:
    adapter = load(encoders.save_classifier(tmp_path / "model", MOODS))
    with pytest.raises(InvalidInputError) as caught:
        ask(adapter, texts=TEXTS, labels=("cats", "dogs"))
    assert caught.value.param == "labels"


def test_a_model_of_texts_takes_no_images(tmp_path: Path) -> None:
    adapter = load(encoders.save_classifier(tmp_path / "model", MOODS))
    with pytest.raises(InvalidInputError) as caught:
        ask(adapter, images=(b"",))
    assert caught.value.param == "images"


def test_one_among_32_concurrent_clients_gets_the_labels_of_its_text(tmp_path: Path) -> None:
    folder = encoders.save_classifier(tmp_path / "model", MOODS)
    texts = [f"{'the cat ' * (number % 5)} number {number}" for number in range(32)]
    adapter = load(folder)
    right = [dict(ask(adapter, texts=(text,))[0].scores) for text in texts]
    plugins = Plugins()
    plugins.register("hf-generic", yapit_plugin_hf_generic)
    model = Model(
        id="m", backend="hf-generic", tasks=("classify",), source=str(folder), executor="thread", deterministic=False
    )

    async def one(engine: Engine, text: str) -> list[Classification]:
        async with aclosing(engine.stream(CLASSIFY, model, ClassifyRequest(texts=(text,)))) as chunks:
            return [chunk async for chunk in chunks if isinstance(chunk, Classification)]

    async def main() -> None:
        engine = Engine(Settings(device="cpu", data_dir=str(tmp_path / "data")), plugins, Catalog([model]))
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(one(engine, text)) for text in texts]
        finally:
            await engine.close()
        same([each for task in asked for each in task.result()], right)

    run(main())


# ── texts, with any labels ────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="session")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.save_classifier(tmp_path_factory.mktemp("nli") / "model", NLI)


def zero_shot(folder: Path, labels: Sequence[str], **settings: Any) -> list[Scores]:
    classify = pipeline("zero-shot-classification", folder)
    found = [classify(text, candidate_labels=list(labels), **settings) for text in TEXTS]
    return [dict(zip(each["labels"], each["scores"], strict=True)) for each in found]


@pytest.mark.parametrize("labels", [("cat", "dog", "rain and sun"), ("money",)], ids=["three", "one"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_texts_are_given_any_labels_as_by_transformers(
    nli: Path, labels: tuple[str, ...], *, multi_label: bool
) -> None:
    found = ask(load(nli), texts=TEXTS, labels=labels, multi_label=multi_label)
    same(found, zero_shot(nli, labels, multi_label=multi_label))


def test_where_entailment_is_the_first_label_the_last_one_contradicts(tmp_path: Path) -> None:
    folder = encoders.save_classifier(tmp_path / "model", ["ENTAILMENT", "neutral", "no"])
    found = ask(load(folder), texts=TEXTS, labels=("cat", "dog"), multi_label=True)
    same(found, zero_shot(folder, ("cat", "dog"), multi_label=True))


def test_the_sentence_around_a_label_may_be_another(nli: Path) -> None:
    template = "the {} runs"
    right = zero_shot(nli, ("cat", "dog"), hypothesis_template=template)
    same(ask(load(nli), texts=TEXTS, labels=("cat", "dog"), hypothesis_template=template), right)
    same(ask(load(nli, hypothesis_template=template), texts=TEXTS, labels=("cat", "dog")), right)


def test_a_sentence_is_no_program(nli: Path) -> None:
    label, template = "{0.__class__}", "the {} of {0}"
    ((_, score),) = ask(load(nli), texts=TEXTS[:1], labels=(label,), hypothesis_template=template)[0].scores
    assert 0 < score < 1
    with pytest.raises(InvalidInputError) as caught:
        ask(load(nli), texts=TEXTS, labels=("cat",), hypothesis_template="no place")
    assert caught.value.param == "hypothesis_template"


def test_without_labels_such_a_model_says_what_it_was_trained_to(nli: Path) -> None:
    assert {label for label, _ in ask(load(nli), texts=TEXTS)[0].scores} == set(NLI)


def test_tokens_are_those_of_a_text_with_each_label(nli: Path) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(nli)
    found = ask(load(nli, batch_tokens=40), texts=TEXTS, labels=("cat", "dog"))
    for text, each in zip(TEXTS, found, strict=True):
        pairs = [tokenizer(text, f"This example is {label}.").input_ids for label in ("cat", "dog")]
        assert each.tokens == sum(map(len, pairs))


def test_a_text_that_is_too_long_with_a_label_is_an_error(nli: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ask(load(nli), texts=("rain", "cat " * 60), labels=("cat", "dog"))
    assert (caught.value.param, caught.value.code) == ("texts[1]", "context_length_exceeded")


# ── images ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def picture(seed: int, kind: str = "PNG", size: tuple[int, int] = (40, 30), **settings: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3)).astype("uint8")
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


PICTURES = tuple(picture(number) for number in range(10))


@pytest.fixture(scope="session", params=["vit", "resnet"])
def seer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save = {"vit": encoders.save_vit, "resnet": encoders.save_resnet}[request.param]
    return save(tmp_path_factory.mktemp("images") / "model", MOODS)


def test_images_are_labelled_as_by_transformers(seer: Path) -> None:
    processor = hf.AutoImageProcessor.from_pretrained(seer, backend="pil")
    classify = pipeline("image-classification", seer, image_processor=processor)
    found = ask(load(seer), images=PICTURES)
    same(found, [listed(classify(Image.open(BytesIO(data)))) for data in PICTURES])
    assert found[0].scores != found[1].scores


def test_a_model_of_images_takes_no_texts_and_no_labels(seer: Path) -> None:
    adapter = load(seer)
    with pytest.raises(InvalidInputError) as caught:
        ask(adapter, texts=TEXTS)
    assert caught.value.param == "texts"
    with pytest.raises(InvalidInputError) as caught:
        ask(adapter, images=PICTURES, labels=("cat",))
    assert caught.value.param == "labels"


def test_images_that_are_damaged_or_too_large_are_errors(seer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = load(seer, images={"max_image_bytes": 10_000})
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    for data, said in ((b"no image", "cannot be read"), (PICTURES[0][:500], "cannot be read"), (svg, "cannot be read")):
        with pytest.raises(InvalidInputError, match=said) as caught:
            ask(adapter, images=(PICTURES[0], data))
        assert caught.value.param == "images[1]"
    with pytest.raises(InvalidInputError, match="larger than 10000 bytes"):
        ask(adapter, images=(picture(1, size=(200, 200)),))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(InvalidInputError, match="more than 1000 pixels"):
        ask(adapter, images=(PICTURES[0],))


def test_a_bomb_is_not_unpacked(seer: Path) -> None:
    header = BytesIO()
    Image.new("1", (15_000, 15_000)).save(header, "PNG")
    with pytest.raises(InvalidInputError, match="pixels"):
        ask(load(seer), images=(header.getvalue(),))


def test_images_are_turned_upright_and_what_is_transparent_is_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    assert pictures.opened(picture(1, "JPEG", exif=exif), "images[0]", 100_000).size == (30, 40)
    file = BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(file, "PNG")
    assert pictures.opened(file.getvalue(), "images[0]", 1000).getpixel((0, 0)) == (255, 255, 255)


def test_images_are_given_any_labels_as_by_transformers(tmp_path: Path) -> None:
    folder = encoders.save_clip(tmp_path / "model")
    processor = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    labels = ["cat", "dog in rain"]
    classify = hf.pipeline(
        "zero-shot-image-classification", str(folder), tokenizer=tokenizer, image_processor=processor, device="cpu"
    )
    right = [listed(classify(Image.open(BytesIO(data)), candidate_labels=labels)) for data in PICTURES]
    adapter = load(folder)
    same(ask(adapter, images=PICTURES, labels=labels), right)
    with pytest.raises(InvalidInputError) as caught:
        ask(adapter, images=PICTURES)
    assert caught.value.param == "labels"
