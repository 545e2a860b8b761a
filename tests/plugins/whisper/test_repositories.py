"""What of a Whisper's repository is fetched."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants

from hub import Hub, Repo, serve_hub
from yapit import LoadError, Model
from yapit.provisioning.transfers import HubTransfer
from yapit.settings import ProvisioningSettings
from yapit_plugin_whisper import weights
from yapit_plugin_whisper.repositories import config_of, fetched

TEXTS = {"config.json": b'{"model_type": "whisper"}', "vocab.json": b"{}", "merges.txt": b""}
OTHERS = dict.fromkeys(("flax_model.msgpack", "model.fp32.safetensors", "onnx/model.onnx", "README.md"), b"other")
SAFE, PICKLE, CONVERTED = {"model.safetensors": b"s"}, {"pytorch_model.bin": b"p"}, {"model.bin": b"c"}
REPOS = {
    "org/whisper-safe": Repo(TEXTS | OTHERS | SAFE | PICKLE),
    "org/whisper-pickled": Repo(TEXTS | OTHERS | PICKLE),
    "org/whisper-converted": Repo(TEXTS | OTHERS | CONVERTED | SAFE),
    "org/whisper-bare": Repo(TEXTS),
    "org/whisper-gated": Repo(TEXTS | SAFE, gated=True),
    "org/whisper-empty": Repo(SAFE),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub(REPOS) as serving:
        monkeypatch.setattr(constants, "ENDPOINT", serving.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield serving
        close_session()


@pytest.mark.parametrize(
    ("name", "weights"), [("safe", "model.safetensors"), ("pickled", "pytorch_model.bin"), ("converted", "model.bin")]
)
def test_the_weights_are_fetched_once_in_the_best_form(hub: Hub, name: str, weights: str) -> None:
    folder = fetched(f"org/whisper-{name}", None)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*TEXTS, weights])
    hub.ill = True
    assert fetched(f"org/whisper-{name}", None) == folder, "what is here needs no hub"
    assert fetched(f"org/whisper-{name}", None, fetch=False) == folder


@pytest.mark.parametrize(
    ("name", "says"),
    [("bare", "has no weights of a Whisper"), ("gated", "accept its terms"), ("none", "no repository")],
)
def test_what_cannot_be_had_is_said(hub: Hub, name: str, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        fetched(f"org/whisper-{name}", None)


def test_the_configuration_alone_says_what_it_is(hub: Hub) -> None:
    assert config_of("org/whisper-safe", None) == {"model_type": "whisper"}
    assert hub.fetched == ["config.json"]
    with pytest.raises(OSError, match=r"has no config\.json"):
        config_of("org/whisper-empty", None)
    with pytest.raises(OSError, match="no repository"):
        config_of("org/whisper-none", None)


def entry(**fields: Any) -> Model:
    return Model(**{"id": "mine", "backend": "whisper", "tasks": ("transcribe",), **fields})


@pytest.mark.parametrize("name", ["safe", "pickled", "converted"])
def test_what_is_needed_is_what_is_fetched(hub: Hub, name: str) -> None:
    [needed] = weights(entry(source=f"org/whisper-{name}", revision="main")) or []
    assert (needed.kind, needed.source, needed.revision) == ("model", f"org/whisper-{name}", "main")
    transfer = HubTransfer(needed, ProvisioningSettings())
    transfer.plan()
    transfer.fetch(lambda _: None, lambda: False)
    hub.asked.clear()
    assert fetched(f"org/whisper-{name}", "main") == transfer.here()
    assert hub.asked == []


def test_the_tokenizer_of_another_repository_is_needed_too(tmp_path: Path) -> None:
    model = entry(source="org/a", options={"tokenizer": "org/b"})
    assert [(each.source, each.revision) for each in weights(model) or ()] == [("org/a", None), ("org/b", None)]
    assert [each.source for each in weights(entry(options={"tokenizer": str(tmp_path)})) or ()] == ["mine"]


def test_a_folder_needs_nothing_and_neither_does_what_must_not_be_fetched(tmp_path: Path) -> None:
    assert weights(entry(source=str(tmp_path))) == []
    assert weights(entry(source="org/a", options={"skip_download": True})) == []
    assert weights(entry(backend="other")) is None
