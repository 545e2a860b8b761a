from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
from numpy.typing import NDArray

from yapit import Model
from yapit_plugin_espeak.listing import _canonical

Samples = Callable[..., NDArray[np.int16]]
MALE = {"ash", "ballad", "echo", "fable", "onyx", "verse", "cedar"}
FEMALE = {"alloy", "coral", "nova", "sage", "shimmer", "marin"}


def test_the_catalog_is_what_the_installed_library_lists(run_script: Callable[..., str]) -> None:
    shipped = (files("yapit_plugin_espeak") / "models.yaml").read_text(encoding="utf-8")
    assert run_script("print_listing.py") == shipped.strip()


def test_ids_and_variants_are_unique_in_any_case(model: Model) -> None:
    ids = [voice.id for voice in model.voices]
    assert len(ids) == len(set(ids)) == 138
    assert all(name == name.lower() for name in ids)
    assert len({variant.casefold() for variant in model.voice_variants}) == len(model.voice_variants) == 104


def test_every_voice_speaks(model: Model, samples: Samples) -> None:
    silent = [voice.id for voice in model.voices if not _is_speech(samples("Hello 123.", voice=voice.id))]
    assert silent == []


def test_every_variant_speaks(model: Model, samples: Samples) -> None:
    variants = [f"en-us+{variant}" for variant in model.voice_variants]
    assert [name for name in variants if not _is_speech(samples("Hello 123.", voice=name))] == []


def test_every_variant_is_spelled_as_its_file_because_others_are_ignored_without_a_word(model: Model) -> None:
    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    assert {path.name for path in folder.iterdir()} == set(model.voice_variants)
    assert model.voice("EN-US+MR SERIOUS") == "en-us+Mr serious"


def test_openai_names_stand_for_distinct_voices_of_their_gender(model: Model, samples: Samples) -> None:
    voices = {name: model.voice(name) for name in MALE | FEMALE}
    assert len(set(voices.values())) == 13
    for name, voice in voices.items():
        assert voice is not None
        assert (voice.partition("+")[2][0] == "f") == (name in FEMALE)


def test_female_names_sound_higher_than_male_ones(model: Model, samples: Samples) -> None:
    pitches = {name: _pitch_hz(samples("ah", voice=model.voice(name))) for name in ("nova", "coral", "onyx", "cedar")}
    assert min(pitches["nova"], pitches["coral"]) > 1.2 * max(pitches["onyx"], pitches["cedar"])


def test_names_that_the_library_lists_but_does_not_take_are_aliases(model: Model) -> None:
    assert (model.voice("en-GB"), model.voice("fr-FR")) == ("en", "fr")


@pytest.mark.parametrize(
    ("listed", "tag"),
    [
        ("en-us", "en-US"),
        ("cmn-latn-pinyin", "cmn-Latn-pinyin"),
        ("en-gb-x-rp", "en-GB-x-rp"),
        ("es-419", "es-419"),
        ("chr-US-Qaaa-x-west", "chr-Qaaa-US-x-west"),
        ("de", "de"),
    ],
)
def test_language_tags_are_written_as_bcp_47(listed: str, tag: str) -> None:
    assert _canonical(listed) == tag


def _is_speech(audio: NDArray[np.int16]) -> bool:
    return len(audio) > 0.2 * 22050 and int(np.abs(audio.astype(int)).max()) > 3000


def _pitch_hz(audio: NDArray[np.int16]) -> float:
    middle = audio[len(audio) // 4 : 3 * len(audio) // 4].astype(float)
    autocorrelation = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    shortest, longest = 22050 // 400, 22050 // 60
    return 22050 / (shortest + int(np.argmax(autocorrelation[shortest:longest])))
