"""What a model needs is fetched before it is loaded, and nothing is asked for while it is."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants

import yapit_plugin_hf_generic as plugin
from hub import Hub, Repo, files_of, serve_hub
from loops import run
from models import speech
from yapit import Context, Model
from yapit.plugins import Plugins
from yapit.provisioning import LocalProvisioner, provisioner_of
from yapit.schemas import ProvisionRequest
from yapit.settings import Settings
from yapit.weights import Weights
from yapit_plugin_hf_generic import needs
from yapit_plugin_hf_generic.needs import VOCODERS, codec_of, vocoder_of


def config(kind: str) -> dict[str, bytes]:
    return {"config.json": json.dumps({"model_type": kind}).encode(), "model.safetensors": b"s"}


def codec(name: str) -> bytes:
    return json.dumps({"audio_tokenizer": {"audio_tokenizer_name_or_path": name}}).encode()


REPOS = {
    "org/t5": Repo(config("speecht5")),
    "org/vits": Repo(config("vits")),
    "org/dia": Repo({**config("dia"), "processor_config.json": codec("org/codec")}),
    "org/csm": Repo({**config("csm"), "audio_tokenizer_config.json": b'{"audio_tokenizer_name_or_path": "org/mimi"}'}),
    "org/broken": Repo({**config("vits"), "processor_config.json": b"[", "config.json": b"3"}),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    needs._asked.cache_clear()
    with serve_hub(REPOS) as serving:
        monkeypatch.setattr(constants, "ENDPOINT", serving.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield serving
        close_session()
    needs._asked.cache_clear()


def entry(source: str | None, *tasks: str, options: dict[str, Any] | None = None, **fields: Any) -> Model:
    return Model(
        id="mine", backend="hf-generic", tasks=tasks or ("synthesize",), source=source, options=options or {}, **fields
    )


def needed(model: Model) -> list[tuple[str, str]]:
    found = plugin.weights(model)
    assert found is not None
    return [(each.kind, each.source) for each in found]


# ── what is needed ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_of_another_backend_nothing_is_known() -> None:
    assert plugin.weights(Model(id="x", backend="whisper", tasks=("transcribe",), source="org/x")) is None


@pytest.mark.parametrize("task", ["embed", "generate", "rerank", "classify", "transcribe"])
def test_most_models_need_their_repository_and_nobody_is_asked(hub: Hub, task: str) -> None:
    [found] = plugin.weights(entry("org/any", task, revision="v1")) or []
    assert (found.kind, found.source, found.revision) == ("model", "org/any", "v1")
    assert found.choose is not None
    assert list(found.choose(["model.safetensors", "pytorch_model.bin"])) == ["model.safetensors"]
    assert hub.asked == []


def test_the_options_name_more(hub: Hub, tmp_path: Path) -> None:
    named = {"vocoder": "org/vocoder", "speaker_embeddings": "org/voices"}
    assert needed(entry("org/t5", options=named)) == [
        ("model", "org/t5"),
        ("model", "org/vocoder"),
        ("dataset", "org/voices"),
    ]
    (tmp_path / "voices.zip").touch()
    here = {"vocoder": str(tmp_path), "speaker_embeddings": str(tmp_path / "voices.zip")}
    assert needed(entry("org/t5", options=here)) == [("model", "org/t5")]
    (found,) = [each for each in plugin.weights(entry("org/vits", options=named)) or () if each.kind == "dataset"]
    assert found.choose is not None
    assert list(found.choose(["a.safetensors", "a.pt", "a.onnx"])) == ["a.safetensors", "a.pt"]


def test_its_small_files_say_what_a_family_needs_besides(hub: Hub) -> None:
    assert needed(entry("org/t5")) == [("model", "org/t5"), ("model", VOCODERS["speecht5"])]
    assert needed(entry("org/dia")) == [("model", "org/dia"), ("model", "org/codec")]
    assert needed(entry("org/csm")) == [("model", "org/csm"), ("model", "org/mimi")]
    assert needed(entry("org/vits")) == [("model", "org/vits")]
    assert needed(entry("org/broken")) == [("model", "org/broken")]
    assert {name.rpartition(".")[2] for name in hub.fetched} == {"json"}
    hub.asked.clear()
    assert needed(entry("org/dia")) == [("model", "org/dia"), ("model", "org/codec")]
    assert hub.asked == [], "it is asked by every request while the model is fetched"


def test_a_hub_that_cannot_be_reached_is_left_to_whoever_fetches(hub: Hub) -> None:
    hub.ill = True
    assert needed(entry("org/t5")) == [("model", "org/t5")]
    hub.ill = False
    assert len(needed(entry("org/t5"))) == 2


def test_a_folder_is_here_and_may_need_others(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(config("speecht5")["config.json"])
    assert needed(entry(str(tmp_path))) == [("model", VOCODERS["speecht5"])]
    assert needed(entry(str(tmp_path), "embed")) == []


def test_what_must_not_be_fetched_is_not_asked_for() -> None:
    assert needed(entry("org/t5", options={"skip_download": True, "vocoder": "org/vocoder"})) == []


def test_the_file_of_a_url_is_a_file() -> None:
    found = plugin.weights(entry("https://example.org/a.pth", "classify", options={"sha256": "ab" * 32}))
    assert found == [Weights(source="https://example.org/a.pth", kind="file", sha256="ab" * 32)]


def test_without_a_source_the_id_is_one(hub: Hub) -> None:
    assert needed(entry(None, "embed")) == [("model", "mine")]


@pytest.mark.parametrize(
    ("kind", "option", "found"),
    [
        ("speecht5", None, VOCODERS["speecht5"]),
        ("speecht5", "org/other", "org/other"),
        ("vits", None, None),
        ("vits", "org/other", None),
        (None, None, None),
    ],
)
def test_the_vocoder(kind: str | None, option: str | None, found: str | None) -> None:
    assert vocoder_of(kind, option) == found


@pytest.mark.parametrize(
    "said", [{}, {"audio_tokenizer": None}, {"audio_tokenizer": {}}, {"audio_tokenizer": {"other": "x"}}]
)
def test_most_processors_need_no_codec(said: dict[str, Any]) -> None:
    assert codec_of({"processor_config.json": said}) is None


def test_asking_imports_no_torch() -> None:
    program = (
        "import sys, yapit_plugin_hf_generic as p, yapit; p.weights(yapit.Model(id='org/a', backend='hf-generic', "
        "tasks=('embed',))); print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


# ── what is fetched is enough ─────────────────────────────────────────────────────────────────────────────────────────
def provision(provisioner: LocalProvisioner) -> None:
    async def apply() -> None:
        async with aclosing(provisioner.provision(ProvisionRequest())) as states:
            async for _ in states:
                pass

    run(apply())


def test_after_it_was_provisioned_a_model_loads_without_the_network(hub: Hub, tmp_path: Path) -> None:
    pickles = {f"pickle/{name}.bin": b"p" for name in "ab"}
    hub.repos["models"] = {
        **hub.repos["models"],
        "org/t5": Repo(files_of(speech.save_speecht5(tmp_path / "t5")) | {"pytorch_model.bin": b"copy"}),
        VOCODERS["speecht5"]: Repo(files_of(speech.save_hifigan(tmp_path / "hifigan"))),
    }
    hub.repos["datasets"] = {
        **hub.repos["datasets"],
        "org/voices": Repo(files_of(speech.save_speakers(tmp_path / "voices")) | pickles),
    }
    model = entry("org/t5", options={"speaker_embeddings": "org/voices"})
    plugins = Plugins()
    plugins.register("hf-generic", plugin)
    provisioner = provisioner_of(model, plugins, Settings(data_dir=str(tmp_path / "data")))
    assert not provisioner.here()
    provision(provisioner)
    assert provisioner_of(model, plugins, Settings(data_dir=str(tmp_path / "data"))).here()
    assert "pytorch_model.bin" not in hub.fetched
    hub.asked.clear()
    adapter = plugin.synthesize(model, Context(device="cpu"))
    assert adapter is not None
    adapter.close()
    assert hub.asked == []


def test_a_processor_takes_its_codec_from_here(hub: Hub, tmp_path: Path) -> None:
    folder = speech.save_pocket(tmp_path / "pocket")
    files = files_of(folder)
    said = json.loads(files["processor_config.json"])  # type: ignore[arg-type]  # not one that is generated
    said["audio_tokenizer"]["audio_tokenizer_name_or_path"] = "org/codec"
    own = {name: body for name, body in files.items() if not name.startswith("audio_tokenizer/")}
    parts = {name.partition("/")[2]: body for name, body in files.items() if name.startswith("audio_tokenizer/")}
    own["processor_config.json"] = json.dumps(said).encode()
    hub.repos["models"] = {**hub.repos["models"], "org/pocket": Repo(own), "org/codec": Repo(parts)}
    model = entry("org/pocket")
    assert needed(model) == [("model", "org/pocket"), ("model", "org/codec")]
    plugins = Plugins()
    plugins.register("hf-generic", plugin)
    provision(provisioner_of(model, plugins, Settings(data_dir=str(tmp_path / "data"))))
    hub.asked.clear()
    adapter = plugin.synthesize(model, Context(device="cpu"))
    assert adapter is not None
    adapter.close()
    assert hub.asked == []
