"""Entries of what a person names: each field is checked before anybody is asked."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from yapit import Model
from yapit.catalog import model_of
from yapit.errors import InvalidInputError, SettingsError
from yapit.plugins import Plugins
from yapit.provisioning.sources import KINDS, check_complete, entry_of, task_of

URL = "https://example.org/nets/resnet50.pth"


@pytest.mark.parametrize(
    ("kind", "model_id", "wishes", "entry"),
    [
        ("huggingface", "org/a", {}, {"source": "org/a"}),
        ("huggingface", " gpt2 ", {"revision": "v1"}, {"source": "gpt2", "revision": "v1"}),
        (
            "huggingface",
            "microsoft/speecht5_tts",
            {"task": "text-to-speech", "vocoder": "microsoft/speecht5_hifigan"},
            {
                "source": "microsoft/speecht5_tts",
                "tasks": ["synthesize"],
                "options": {"vocoder": "microsoft/speecht5_hifigan"},
            },
        ),
        ("huggingface", "org/a", {"backend": "whisper"}, {"source": "org/a", "backend": "whisper"}),
        ("url", URL, {"architecture": "resnet50"}, {"source": URL, "options": {"architecture": "resnet50"}}),
        (
            "url",
            URL,
            {"options": {"architecture": "net"}, "sha256": "Ab" * 32},
            {"source": URL, "options": {"architecture": "net", "sha256": "Ab" * 32}},
        ),
        ("url", URL, {"backend": "own"}, {"source": URL, "backend": "own"}),
        ("torchvision", "resnet50", {}, {"options": {"architecture": "resnet50"}}),
        ("pytorch_hub", "resnet50", {}, {"options": {"architecture": "resnet50"}}),
        (
            "pytorch_hub",
            "pytorch/vision:v0.28.0:resnet50",
            {},
            {
                "backend": "hf-generic",
                "tasks": ["classify"],
                "options": {"hub_code": "pytorch/vision:v0.28.0", "architecture": "resnet50"},
            },
        ),
        ("tts_auto", "org/voice", {"task": "tts"}, {"source": "org/voice", "tasks": ["synthesize"]}),
        ("tts_auto", "org/voice", {}, {"source": "org/voice"}),
    ],
)
def test_an_entry(kind: str, model_id: str, wishes: dict[str, Any], entry: dict[str, Any]) -> None:
    assert entry_of(kind, model_id, "mine", **wishes) == {"id": "mine", **entry}


@pytest.mark.parametrize(
    ("kind", "model_id", "name", "wishes", "param"),
    [
        ("invalid_source", "org/a", "mine", {}, "source"),
        ("huggingface", "org/a", "../mine", {}, "name"),
        ("huggingface", "", "mine", {}, "model_id"),
        ("huggingface", "a/b/c", "mine", {}, "model_id"),
        ("huggingface", "https://example.org", "mine", {}, "model_id"),
        ("huggingface", "org/a", "mine", {"task": "dancing"}, "task"),
        ("tts_auto", "./folder", "mine", {}, "model_id"),
        ("tts_auto", "org/a", "mine", {"task": "text-generation"}, "task"),
        ("url", URL, "mine", {}, "architecture"),
        ("url", URL, "mine", {"architecture": "net", "sha256": "12"}, "sha256"),
        ("url", URL, "mine", {"architecture": "net", "revision": "v1"}, "revision"),
        ("url", "https://example.org/a.zip", "mine", {"architecture": "net"}, "model_id"),
        ("url", "https://a:b@example.org/a.bin", "mine", {"architecture": "net"}, "model_id"),
        ("url", "org/a", "mine", {"architecture": "net"}, "model_id"),
        ("torchvision", "../resnet", "mine", {}, "model_id"),
        ("pytorch_hub", "pytorch/vision", "mine", {}, "model_id"),
        ("pytorch_hub", "pytorch/vision:resnet50", "mine", {}, "model_id"),
        ("local", "relative/folder", "mine", {}, "model_id"),
        ("local", "/no/such/folder", "mine", {}, "model_id"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(
    kind: str, model_id: str, name: str, wishes: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        entry_of(kind, model_id, name, **wishes)
    assert caught.value.param == param


def test_the_kinds_are_listed_in_the_refusal() -> None:
    with pytest.raises(InvalidInputError) as caught:
        entry_of("invalid_source", "org/a", "mine")
    assert all(kind in caught.value.message for kind in KINDS)


@pytest.mark.parametrize(
    ("word", "task"),
    [
        ("text-to-speech", "synthesize"),
        ("Text_Generation", "generate"),
        ("automatic-speech-recognition", "transcribe"),
        ("text-classification", "classify"),
        ("image-classification", "classify"),
        ("feature-extraction", "embed"),
        ("rerank", "rerank"),
    ],
)
def test_a_task_has_many_names(word: str, task: str) -> None:
    assert task_of(word) == task


def test_a_folder_of_this_machine_is_taken_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert entry_of("local", str(tmp_path / "model"), "mine") == {"id": "mine", "source": str(tmp_path / "model")}
    file = tmp_path / "net.pth"
    file.touch()
    with pytest.raises(InvalidInputError, match="name the 'architecture'"):
        entry_of("local", str(file), "mine")
    found = entry_of("local", str(file), "mine", architecture="resnet18", task="image-classification")
    assert found == {
        "id": "mine",
        "source": str(file),
        "tasks": ["classify"],
        "options": {"architecture": "resnet18"},
    }


def test_what_yapit_and_the_cache_keep_is_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for inside in ("data/files/0123", "cache/models--org--a/snapshots/1"):
        (tmp_path / inside).mkdir(parents=True)
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / inside)
        for path in (tmp_path / inside, tmp_path / "link", tmp_path / "data/../" / inside):
            with pytest.raises(InvalidInputError, match="is no source"):
                entry_of("local", str(path), "mine", data_dir=tmp_path / "data")


def test_what_was_found_out_is_compared_with_what_was_wanted() -> None:
    speaks, writes = (Model(id="m", backend="b", tasks=(task,), source="org/m") for task in ("synthesize", "generate"))
    check_complete("tts_auto", speaks)
    check_complete("huggingface", writes)
    with pytest.raises(InvalidInputError, match="does not speak") as caught:
        check_complete("tts_auto", writes)
    assert caught.value.param == "model_id"
    with pytest.raises(InvalidInputError, match="name its task"):
        check_complete("huggingface", Model(id="m", backend="b", tasks=(), source="org/m"))


def test_with_the_plugin_an_architecture_becomes_a_model() -> None:
    plugins = Plugins.load(["hf-generic"])
    model = model_of(entry_of("torchvision", "resnet50", "mine"), plugins.complete)
    assert (model.backend, model.tasks, model.options["architecture"]) == ("hf-generic", ("classify",), "resnet50")
    (needed,) = plugins.weights(model)
    assert (needed.kind, needed.source, needed.sha256) == ("file", model.source, "11ad3fa6")
    with pytest.raises(SettingsError, match="names no backend"):
        model_of(entry_of("torchvision", "resnet51", "mine"), plugins.complete)
