"""What the plugin brings, whom it answers, and where weights come from: nothing is ever fetched unasked."""

import json
import os
import shutil
import socket
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ctranslate2.converters import TransformersConverter

import yapit_plugin_whisper as plugin
from conftest import Python
from models.whisperers import Load, Say, chirps, hear
from yapit import Context, LoadError, Model
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit_plugin_whisper.engines.converted import ConvertedWhisper
from yapit_plugin_whisper.engines.native import TorchWhisper
from yapit_plugin_whisper.languages import code_of
from yapit_plugin_whisper.options import Knobs, Options, options_of

MODELS = {model.id: model for model in plugin.register_models()}
# What deployments of today name, and what their makers call them.
WANTED = [
    *(f"openai/whisper-{size}{only}" for size in ("tiny", "base", "small", "medium") for only in ("", ".en")),
    *(f"openai/whisper-large{version}" for version in ("", "-v2", "-v3", "-v3-turbo")),
    *(f"distil-whisper/distil-{size}" for size in ("small.en", "medium.en", "large-v2", "large-v3")),
    *(f"Systran/faster-whisper-{size}" for size in ("tiny", "base.en", "large-v1", "large-v2", "large-v3")),
    *(f"Systran/faster-distil-whisper-{size}" for size in ("small.en", "large-v3")),
    "jethrowang/whisper-tiny-chinese",
    "Ivydata/whisper-small-japanese",
    "BELLE-2/Belle-whisper-large-v3-zh",
]
HEAVY = ("torch", "transformers", "faster_whisper", "ctranslate2", "huggingface_hub", "tokenizers", "onnxruntime")


# ── what it brings ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_entry_point_names_the_package() -> None:
    (entry,) = entry_points(group="yapit.plugins", name="whisper")
    assert entry.value == "yapit_plugin_whisper"
    (backend,) = plugin.register_backends()
    assert (backend.name, backend.heavy) == ("whisper", True)


def test_the_models_of_today_are_there_once() -> None:
    assert [name for name in WANTED if name not in MODELS] == []
    assert len(MODELS) == len(plugin.register_models())
    plugins = Plugins.load(["hf-generic", "whisper"])
    assert plugins.catalog(Settings())["openai/whisper-tiny"].backend == "whisper"
    assert plugins.failed == {}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_an_entry_says_what_a_person_wants_to_know(model: Model) -> None:
    assert (model.backend, model.source, model.tasks) == ("whisper", model.id, ("transcribe",))
    assert model.licence in ("MIT", "Apache-2.0")
    assert model.description
    assert 100_000_000 < (model.memory_bytes or 0) < 10_000_000_000
    known = ["en", "zh", "ja", "jw", "no", "yue"]
    assert len(model.languages) in (1, 99, 100)
    assert code_of(model.languages[0], known)
    options = options_of(model)
    assert options.translates is (len(model.languages) > 1 and "turbo" not in model.id) or ".en" in model.id


def test_nothing_heavy_is_imported_before_a_model_is_loaded(python: Python) -> None:
    program = f"""
import json, sys
import yapit_plugin_whisper as plugin
from yapit import Context, Model

other = Model(id="m", backend="other", tasks=("transcribe",), source="org/m")
answers = [plugin.transcribe(other, Context()), plugin.complete_model({{"source": "org/m", "backend": "other"}})]
plugin.register_models(), plugin.register_backends()
print(json.dumps([answers, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    assert json.loads(python(program).stdout) == [[None, None], []]


# ── entries that have only a source ───────────────────────────────────────────────────────────────────────────────────
def test_a_whisper_is_this_plugins_and_others_are_not(trained: Path, converted: Path, tmp_path: Path) -> None:
    ours = {"backend": "whisper", "tasks": ["transcribe"]}
    assert plugin.complete_model({"source": str(trained)}) == ours
    assert plugin.complete_model({"source": str(converted)}) == ours
    assert plugin.complete_model({"source": str(trained), "backend": "hf-generic"}) is None
    for config in ("{}", "[]", '{"model_type": "bert"}', "no JSON"):
        (tmp_path / "config.json").write_text(config)
        assert plugin.complete_model({"source": str(tmp_path)}) is None
    tells_sounds = {"model_type": "whisper", "architectures": ["WhisperForAudioClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(tells_sounds))
    assert plugin.complete_model({"source": str(tmp_path)}) is None
    assert [plugin.complete_model({"source": source}) for source in ("org/whisper-x", "org/m", "https://x.y/z", 5)] == [
        None
    ] * 4


def test_the_plugin_for_any_model_leaves_a_whisper_to_this_one(trained: Path, tmp_path: Path) -> None:
    named = tmp_path / "models.yaml"
    named.write_text(f"- {{id: mine, source: {trained}}}")
    catalog = Plugins.load(["hf-generic", "whisper"]).catalog(Settings(models_config=str(named)))
    assert (catalog["mine"].backend, catalog["mine"].tasks) == ("whisper", ("transcribe",))


# ── engines and conversion ────────────────────────────────────────────────────────────────────────────────────────────
def test_on_a_cpu_weights_are_converted_once(
    trained: Path, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(device="cpu", data_dir=tmp_path)

    def loaded(**options: Any) -> Any:
        model = Model(id="w", backend="whisper", tasks=("transcribe",), source=str(trained), options=options)
        return closing(plugin.transcribe(model, context))

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError

    with loaded() as ear:
        assert isinstance(ear.engine, ConvertedWhisper)
    (kept,) = (tmp_path / "whisper").iterdir()
    monkeypatch.setattr(TransformersConverter, "convert", refuse)
    pcm, rate = say("hello world")
    with loaded() as ear:
        assert hear(ear, pcm, rate)[0].text == " hello world"
    # Without the converter and the kept weights, transformers does it.
    shutil.rmtree(kept)
    with loaded() as ear:
        assert isinstance(ear.engine, TorchWhisper)
        assert hear(ear, pcm, rate)[0].text == " hello world"
    with pytest.raises(LoadError, match="cannot be loaded"):
        loaded(engine="ctranslate2")


def test_damaged_weights_are_converted_again(trained: Path, load: Load, say: Say, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(trained, own)
    entry = Model(id="w", backend="whisper", tasks=("transcribe",), source=str(own))
    context = Context(device="cpu", data_dir=tmp_path)
    plugin.transcribe(entry, context).close()  # type: ignore[union-attr]
    (kept,) = (tmp_path / "whisper").iterdir()
    whole = (kept / "model.bin").read_bytes()
    (kept / "model.bin").write_bytes(whole[: len(whole) // 2])
    adapter: Any = plugin.transcribe(entry, context)
    assert isinstance(adapter.engine, ConvertedWhisper)
    assert (kept / "model.bin").read_bytes() == whole
    pcm, rate = say("hello world")
    assert hear(adapter, pcm, rate)[0].text == " hello world"
    adapter.close()
    # Other weights at the same place are other weights.
    os.utime(own / "model.safetensors", (1, 1))
    plugin.transcribe(entry, context).close()  # type: ignore[union-attr]
    assert len(list((tmp_path / "whisper").iterdir())) == 2


def test_an_entry_may_say_which_engine_computes(trained: Path, converted: Path, load: Load) -> None:
    assert isinstance(load(trained, engine="transformers").engine, TorchWhisper)
    assert isinstance(load(trained, dtype="bfloat16").engine, TorchWhisper)
    assert isinstance(load(trained, attn_implementation="eager").engine, TorchWhisper)
    assert load(trained, compute_type="int8").engine._model.compute_type.startswith("int8")
    assert load(trained).engine._model.compute_type == "float32"
    with pytest.raises(LoadError, match="CTranslate2's; transformers cannot"):
        load(converted, engine="transformers")
    with pytest.raises(LoadError, match="cannot be loaded"):
        load(trained, engine="ctranslate2", compute_type="int3")


def test_there_must_be_such_a_device(trained: Path) -> None:
    model = Model(id="w", backend="whisper", tasks=("transcribe",), source=str(trained))
    for device in ("cuda:99", "abacus", "meta"):
        with pytest.raises(LoadError, match="There is no device"):
            plugin.transcribe(model, Context(device=device))


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing reach a network."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("something asked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("cut_off")
def test_a_tokenizer_is_made_of_its_older_files(random: Path, load: Load, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(random, own)
    whole = json.loads((own / "tokenizer.json").read_bytes())
    (own / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (own / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in whole["model"]["merges"]))
    added = {token["content"]: token["id"] for token in whole["added_tokens"]}
    (own / "added_tokens.json").write_text(json.dumps(added))
    (own / "tokenizer.json").unlink()
    expected, found = load(random).algorithm.hf_tokenizer, load(own).algorithm.hf_tokenizer
    for text in (" hello world", "the speech, is this?"):
        assert found.encode(text, add_special_tokens=False).ids == expected.encode(text, add_special_tokens=False).ids


@pytest.mark.usefixtures("cut_off")
def test_what_is_missing_is_named_and_never_fetched(trained: Path, converted: Path, load: Load, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="'org/whisper-mine' are not on this machine, and offline mode"):
        load("org/whisper-mine")
    with pytest.raises(LoadError, match=r"must not be fetched|offline mode"):
        load("org/whisper-mine", skip_download=True)
    with pytest.raises(LoadError, match="neither a folder nor the id"):
        load("./no/such/folder")
    with pytest.raises(LoadError, match="has no weights of a Whisper"):
        load(tmp_path)
    own = tmp_path / "own"
    shutil.copytree(converted, own)
    (own / "tokenizer.json").unlink()
    with pytest.raises(LoadError, match=r"has no tokenizer.json; the option 'tokenizer'"):
        load(own)
    assert hear(load(own, tokenizer=str(converted)), chirps(2)) == []
    (own / "config.json").write_text("{")
    with pytest.raises(LoadError, match=r"The file 'config.json' of '.*' cannot be read"):
        load(own, tokenizer=str(converted))


# ── real weights ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _real() -> list[Path]:
    folder = Path(os.environ.get("YAPIT_TEST_WEIGHTS", "/nonexistent"))
    return sorted(
        path.parent for path in folder.glob("**/config.json") if plugin.complete_model({"source": str(path.parent)})
    )


@pytest.mark.skipif("YAPIT_TEST_WEIGHTS" not in os.environ, reason="YAPIT_TEST_WEIGHTS names no folder of weights")
def test_real_weights_understand_a_voice(load: Load, say: Say) -> None:
    found = _real()
    assert found
    pcm, rate = say("Hello world, this is a test. Good morning, what time is it?", "en-us", 0.9)
    for folder in found:
        segments = hear(load(folder), pcm, rate, language="en", word_times=True)
        text = "".join(segment.text for segment in segments).casefold()
        assert "test" in text
        assert "morning" in text
        assert any(segment.words for segment in segments)


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────────
PAGE = (Path(__file__).parents[3] / "docs" / "whisper.md").read_text("utf-8")


def test_the_page_names_every_option_and_default() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")
    ]
    tables = {row[0].strip("`"): row[1:] for row in rows}
    assert set(tables) - {"auto", "ctranslate2", "transformers"} == {
        *Options.__struct_fields__,
        *Knobs.__struct_fields__,
    }
    knobs = Knobs()
    for name in Knobs.__struct_fields__:
        default = getattr(knobs, name)
        said = {"none": None, "true": True, "false": False}.get(tables[name][0], tables[name][0])
        assert said == default or float(tables[name][0]) == default
