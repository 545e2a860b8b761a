"""Of a model that speaks, the files of its repository say the backend, the vocoder and the voices."""

import json
from pathlib import Path
from typing import Any

import pytest

import yapit_plugin_hf_generic as plugin
from yapit import InvalidInputError
from yapit_plugin_hf_generic import describing_speech
from yapit_plugin_hf_generic.describing_speech import describe_speech


def folder(tmp_path: Path, config: dict[str, Any], **files: bytes) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, body in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_name(path.name.replace("_DOT_", ".")).write_bytes(body)
    return str(tmp_path)


def voices(entry: dict[str, Any]) -> list[str]:
    return [voice["id"] for voice in entry.get("voices", ())]


def test_a_kokoro_goes_to_its_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {"istftnet": {}, "plbert": {}, "vocab": {}}
    source = folder(tmp_path, config, voices__b_DOT_pt=b"", voices__a_DOT_pt=b"", voices__c_DOT_txt=b"")
    entry = describe_speech(source)
    assert (entry["backend"], entry["tasks"], voices(entry)) == ("kokoro", ["synthesize"], ["a", "b"])
    monkeypatch.setattr(describing_speech, "entry_points", lambda group: type("None_", (), {"names": set()}))
    with pytest.raises(InvalidInputError, match="pip install yapit-plugin-kokoro"):
        describe_speech(source)


def test_speecht5_gets_its_vocoder_and_the_published_voices(tmp_path: Path) -> None:
    config = {"model_type": "speecht5", "architectures": ["SpeechT5ForTextToSpeech"]}
    entry = describe_speech(folder(tmp_path, config))
    assert entry["backend"] == "hf-generic"
    assert entry["options"]["vocoder"] == "microsoft/speecht5_hifigan"
    assert "slt" in entry["options"]["speakers"]
    assert entry["defaults"] == {"voice": "slt"}
    narrow = describe_speech(folder(tmp_path, {**config, "speaker_embedding_dim": 8}))
    assert narrow["options"] == {"vocoder": "microsoft/speecht5_hifigan"}


def test_bark_has_the_presets_of_its_repository(tmp_path: Path) -> None:
    presets = {"repo_or_path": "org/bark", "v2/de_speaker_1": {}, "announcer": {}}
    said = json.dumps(presets).encode()
    config = {"model_type": "bark", "architectures": ["BarkModel"]}
    entry = describe_speech(folder(tmp_path, config, speaker_embeddings_path_DOT_json=said))
    assert entry["voices"] == [{"id": "v2/de_speaker_1", "languages": ["de"]}]
    assert describe_speech(folder(tmp_path, config, speaker_embeddings_path_DOT_json=b"[")).get("voices") is None


def test_the_speakers_of_vits_are_numbers_and_those_of_pocket_tts_files(tmp_path: Path) -> None:
    vits = {"model_type": "vits", "architectures": ["VitsModel"], "num_speakers": 3}
    assert voices(describe_speech(folder(tmp_path, vits))) == ["0", "1", "2"]
    assert voices(describe_speech(folder(tmp_path, {**vits, "num_speakers": 1}))) == []
    source = folder(tmp_path, {"model_type": "pocket_tts"}, voices__ada_DOT_wav=b"", voices__ben_DOT_safetensors=b"")
    assert voices(describe_speech(source)) == ["ada", "ben"]


@pytest.mark.parametrize("config", [{"model_type": "bart", "architectures": ["BartModel"], "vocab_size": 3}, {}])
def test_what_does_not_speak_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="does not speak"):
        describe_speech(folder(tmp_path, config))
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        describe_speech(str(tmp_path))


def test_an_entry_that_says_nothing_is_completed_with_them(tmp_path: Path) -> None:
    source = folder(tmp_path, {"model_type": "vits", "architectures": ["VitsModel"], "num_speakers": 2})
    found = plugin.complete_model({"source": source})
    assert found is not None
    assert (found["backend"], found["tasks"], voices(found)) == ("hf-generic", ["synthesize"], ["0", "1"])
    said = plugin.complete_model({"source": source, "backend": "hf-generic"})
    assert said is not None
    assert "voices" not in said, "who knows the backend is left to say the rest"
    kokoro = folder(tmp_path, {"istftnet": {}, "plbert": {}, "vocab": {}}, voices__a_DOT_pt=b"")
    found = plugin.complete_model({"source": kokoro})
    assert found is not None
    assert found["backend"] == "kokoro"
