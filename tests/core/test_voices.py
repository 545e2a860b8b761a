from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from yapit import InvalidInputError, Model, SettingsError, Voice
from yapit.voices import VoiceMap


def model(*voices: str, **fields: Any) -> Model:
    return Model(id="m", backend="b", tasks=("synthesize",), voices=tuple(Voice(id=v) for v in voices), **fields)


MODEL = model("heart", "george", "alloy")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "voices.yaml"
    path.write_text("Nova: george", encoding="utf-8")
    return path


def rewrite(file: Path, text: str | bytes) -> None:
    """Write a map of another size than before, so that it differs also within one tick of the file system's clock."""
    data = text.encode() if isinstance(text, str) else text
    assert len(data) != file.stat().st_size
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("wanted", "voice"),
    [
        ("sky", "heart"),
        ("SKY", "heart"),
        ("Echo", "george"),
        ("alloy", "heart"),
        ("george", "george"),
        ("GEORGE", "george"),
        (None, "heart"),
        ("", "heart"),
    ],
)
def test_a_name_is_mapped_in_any_case(wanted: str | None, voice: str) -> None:
    assert VoiceMap({"Sky": "heart", "ECHO": "George", "alloy": "heart"}).resolve(MODEL, wanted) == voice


def test_the_file_wins_over_the_settings(file: Path) -> None:
    voices = VoiceMap({"nova": "heart", "sky": "heart"}, file)
    assert (voices.resolve(MODEL, "nova"), voices.resolve(MODEL, "sky")) == ("george", "heart")


@pytest.mark.parametrize("text", ['{"nova": "heart"}', "nova: heart  # yaml"])
def test_the_file_is_yaml_or_json(file: Path, text: str) -> None:
    rewrite(file, text)
    assert VoiceMap({}, file).resolve(MODEL, "nova") == "heart"


def test_a_mapped_voice_that_this_model_lacks_leaves_the_model_its_own() -> None:
    voices = VoiceMap({"alloy": "of_another_model"})
    assert voices.resolve(MODEL, "alloy") == "alloy"
    assert voices.resolve(model("heart", voice_aliases={"alloy": "heart"}), "ALLOY") == "heart"


def test_the_error_is_about_the_name_the_client_sent() -> None:
    with pytest.raises(InvalidInputError, match="no voice 'shimmer'"):
        VoiceMap({"shimmer": "of_another_model"}).resolve(MODEL, "shimmer")


def test_a_model_without_a_list_gets_the_mapped_name() -> None:
    voices = VoiceMap({"alloy": "af_heart"})
    assert (voices.resolve(model(), "alloy"), voices.resolve(model(), "other")) == ("af_heart", "other")


def test_a_changed_file_is_read_again(file: Path) -> None:
    voices = VoiceMap({"echo": "heart"}, file)
    rewrite(file, "sky: heart")
    with capture_logs() as lines:
        assert voices.resolve(MODEL, "sky") == "heart"
        assert voices.resolve(MODEL, "echo") == "heart"
        with pytest.raises(InvalidInputError):
            voices.resolve(MODEL, "nova")
    assert lines == []


@pytest.mark.parametrize("damage", ["nova: [", "- nova", "nova: {a: bc}", "", b"\xff\xfe\xff", None])
def test_a_damaged_file_leaves_the_last_good_map_and_is_reported_once(file: Path, damage: str | bytes | None) -> None:
    voices = VoiceMap({}, file)
    if damage is None:
        file.unlink()
    else:
        rewrite(file, damage)
    with capture_logs() as lines:
        assert [voices.resolve(MODEL, "nova") for _ in range(3)] == ["george"] * 3
    assert [line["event"] for line in lines] == ["voice_map_kept"]
    assert str(file) in lines[0]["reason"]
    file.write_text("nova: heart # well again", encoding="utf-8")
    assert voices.resolve(MODEL, "nova") == "heart"


@pytest.mark.parametrize("text", ["nova: [", "- nova", "nova: 1", ""])
def test_a_wrong_file_stops_the_start(file: Path, text: str) -> None:
    rewrite(file, text)
    with pytest.raises(SettingsError, match=r"^speech\.voice_map_file '.*voices\.yaml': "):
        VoiceMap({}, file)


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml.*No such file"):
        VoiceMap({}, tmp_path / "absent.yaml")


def test_a_language_alone_leaves_the_voice_to_the_model() -> None:
    names = VoiceMap({})
    assert names.resolve(MODEL, None, "fr") is None
    assert names.resolve(MODEL, None) == names.resolve(MODEL, None, "") == "heart"
    assert names.resolve(MODEL, "george", "fr") == "george"
