"""Speech of tiny models, compared with what transformers itself makes of the same weights."""

import asyncio
import gc
import os
import threading
import zipfile
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from huggingface_hub import constants
from numpy.typing import NDArray
from safetensors.numpy import load_file
from structlog.testing import capture_logs

import yapit_plugin_hf_generic
from loops import PATIENCE_S, run
from models import speech
from yapit import (
    AudioChunk,
    BackendError,
    Context,
    InvalidInputError,
    LoadError,
    Model,
    Synthesizer,
    SynthesizeRequest,
)
from yapit.audio import encode
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import SYNTHESIZE
from yapit_plugin_hf_generic import synthesize
from yapit_plugin_hf_generic.speaking.speaker import Speaker

Sound = NDArray[np.float32]
TEXT = "Hello there, this is a test."
CPU = Context(device="cpu")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speaking")


@pytest.fixture(scope="session")
def hifigan(folder: Path) -> Path:
    return speech.save_hifigan(folder / "hifigan")


@pytest.fixture(scope="session")
def speakers(folder: Path) -> Path:
    return speech.save_speakers(folder / "speakers")


@pytest.fixture(scope="session")
def speecht5(folder: Path) -> Path:
    return speech.save_speecht5(folder / "speecht5")


@pytest.fixture(scope="session")
def bark(folder: Path) -> Path:
    return speech.save_bark(folder / "bark")


@pytest.fixture(scope="session")
def vits(folder: Path) -> Path:
    return speech.save_vits(folder / "vits")


@pytest.fixture(scope="session")
def choir(folder: Path) -> Path:
    return speech.save_vits(folder / "choir", speakers=3)


def entry(source: Path, **fields: Any) -> Model:
    return Model(
        id=source.name, backend="hf-generic", tasks=("synthesize",), source=str(source), executor="thread", **fields
    )


def load(model: Model) -> Speaker:
    adapter = synthesize(model, CPU)
    assert isinstance(adapter, Speaker)
    return adapter


def chunks_of(adapter: Synthesizer, text: str = TEXT, **fields: Any) -> list[AudioChunk]:
    async def gather() -> list[AudioChunk]:
        chunks = adapter.synthesize(SynthesizeRequest(text=text, **fields))
        return [chunk async for chunk in chunks]  # type: ignore[union-attr]  # these adapters wait

    return asyncio.run(gather())


def spoken(adapter: Synthesizer, text: str = TEXT, **fields: Any) -> Sound:
    (chunk,) = chunks_of(adapter, text, **fields)
    return np.frombuffer(chunk.pcm, "<i2").astype(np.float32) / np.float32(32767)


def once(model: Model, text: str = TEXT, **fields: Any) -> Sound:
    """Load, speak, and close."""
    adapter = load(model)
    try:
        return spoken(adapter, text, **fields)
    finally:
        adapter.close()


def as_sent(sound: Any) -> Sound:
    """Return what a listener hears of the library's own output."""
    return np.clip(np.asarray(sound, np.float32).reshape(-1), -1, 1)


def assert_same(made: Sound, wanted: Sound) -> None:
    assert len(made) == len(wanted) > 200
    assert np.abs(wanted).max() > 0.01
    assert np.abs(made - wanted).max() < 1e-4


# ── SpeechT5 ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def reference_speecht5(source: Path, hifigan: Path, vector: Any, text: str = TEXT, **arguments: Any) -> Sound:
    model = hf.SpeechT5ForTextToSpeech.from_pretrained(source).eval()
    tokens = hf.SpeechT5Tokenizer.from_pretrained(source)(text, return_tensors="pt", **arguments)
    torch.manual_seed(7)
    speaker = torch.tensor(np.asarray(vector), dtype=torch.float32)[None]
    vocoder = hf.SpeechT5HifiGan.from_pretrained(hifigan).eval()
    return as_sent(model.generate_speech(tokens["input_ids"], speaker, vocoder=vocoder))


def with_voices(speecht5: Path, hifigan: Path, vectors: Path, **options: Any) -> Model:
    return entry(speecht5, options={"vocoder": str(hifigan), "speaker_embeddings": str(vectors), **options})


@pytest.mark.parametrize("voice", ["ada", "ben", "cleo"])
def test_speecht5_says_what_transformers_says(speecht5: Path, hifigan: Path, speakers: Path, voice: str) -> None:
    vectors = {
        "ada": np.load(speakers / "ada.npy"),
        "ben": torch.load(speakers / "ben.pt")[0],
        "cleo": load_file(speakers / "cleo.safetensors")["speaker"],
    }
    adapter = load(with_voices(speecht5, hifigan, speakers))
    (chunk,) = chunks_of(adapter, voice=voice, options={"seed": 7})
    made = spoken(adapter, voice=voice, options={"seed": 7})
    adapter.close()
    assert chunk.sample_rate == 16_000
    assert_same(made, reference_speecht5(speecht5, hifigan, vectors[voice]))


def test_speecht5_spells_numbers_out(speecht5: Path, hifigan: Path, speakers: Path) -> None:
    model = with_voices(speecht5, hifigan, speakers)
    vector = np.load(speakers / "ada.npy")
    made = once(model, "it costs 42", voice="ada", options={"seed": 7})
    assert_same(made, reference_speecht5(speecht5, hifigan, vector, "it costs forty two"))


def test_a_zip_file_of_embeddings_is_read_and_speakers_name_them(
    speecht5: Path, hifigan: Path, speakers: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "xvect.zip", "w") as archive:
        archive.write(speakers / "ada.npy", "spkrec/cmu_us_ada_arctic_a0001.npy")
        archive.write(speakers / "ben.pt", "spkrec/cmu_us_ben_arctic_a0001.pt")
    named = {"anna": "cmu_us_ada_arctic_a0001.npy", "benno": "cmu_us_ben"}
    model = with_voices(speecht5, hifigan, tmp_path, speakers=named)
    wanted = reference_speecht5(speecht5, hifigan, np.load(speakers / "ada.npy"))
    assert_same(once(model, voice="anna", options={"seed": 7}), wanted)
    assert_same(once(model, options={"seed": 7}), wanted)
    wanted = reference_speecht5(speecht5, hifigan, torch.load(speakers / "ben.pt")[0])
    assert_same(once(model, voice="benno", options={"seed": 7}), wanted)


def test_embeddings_come_from_a_data_set_of_the_hub(
    speecht5: Path, hifigan: Path, speakers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "datasets--someone--vectors"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    with zipfile.ZipFile(cached / "refs" / "made.zip", "w") as archive:
        archive.write(speakers / "ada.npy", "spkrec/ada.npy")
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (cached / "refs" / "made.zip").rename(cached / "snapshots" / ("0" * 40) / "vectors.zip")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    options = {"vocoder": str(hifigan), "speaker_embeddings": "someone/vectors"}
    made = once(entry(speecht5, options=options), options={"seed": 7})
    assert_same(made, reference_speecht5(speecht5, hifigan, np.load(speakers / "ada.npy")))


def test_without_embeddings_speecht5_has_a_neutral_voice_and_says_so(speecht5: Path, hifigan: Path) -> None:
    with capture_logs() as lines:
        made = once(entry(speecht5, options={"vocoder": str(hifigan)}), voice="any", options={"seed": 7})
    assert_same(made, reference_speecht5(speecht5, hifigan, np.zeros(speech.SPEAKER_WIDTH)))
    assert [line["event"] for line in lines] == ["no_speaker_embeddings"]


def test_an_unknown_voice_is_refused_with_the_ones_there_are(speecht5: Path, hifigan: Path, speakers: Path) -> None:
    adapter = load(with_voices(speecht5, hifigan, speakers))
    with pytest.raises(InvalidInputError, match=r"no voice 'zoe'. Known: ada, ben, cleo") as refused:
        chunks_of(adapter, voice="zoe")
    assert refused.value.param == "voice"
    adapter.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"speakers": {"anna": "nobody.npy"}}, "no speaker embedding 'nobody.npy'"),
        ({"speaker_embeddings": "{vits}"}, "no speaker embeddings"),
        ({"speaker_embeddings": "nobody/nothing"}, "not on this machine"),
        ({"vocoder": "nobody/nothing"}, "not on this machine"),
    ],
)
def test_what_is_missing_is_named(
    speecht5: Path, hifigan: Path, speakers: Path, vits: Path, options: dict[str, Any], says: str
) -> None:
    filled = {key: str(vits) if value == "{vits}" else value for key, value in options.items()}
    with pytest.raises(LoadError, match=says):
        load(with_voices(speecht5, hifigan, speakers, **filled))


def test_a_vector_of_another_width_is_refused(speecht5: Path, hifigan: Path, speakers: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros(512, np.float32))
    adapter = load(with_voices(speecht5, hifigan, tmp_path))
    with pytest.raises(LoadError, match="has 512 numbers; the model takes 8"):
        chunks_of(adapter)
    adapter.close()


class Mischief:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("ending", ["npy", "pt"])
def test_a_pickle_in_an_embedding_is_not_run(speecht5: Path, hifigan: Path, tmp_path: Path, ending: str) -> None:
    mischief = Mischief(tmp_path / "made")
    if ending == "npy":
        np.save(tmp_path / "bad.npy", np.array([mischief], dtype=object), allow_pickle=True)
    else:
        torch.save(mischief, tmp_path / "bad.pt")
    adapter = load(with_voices(speecht5, hifigan, tmp_path))
    with pytest.raises(LoadError, match="cannot be read"):
        chunks_of(adapter)
    adapter.close()
    assert not mischief.path.exists()


# ── Bark ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def reference_bark(source: Path, voice: str | None, **arguments: Any) -> Sound:
    processor = hf.BarkProcessor.from_pretrained(source)
    processor.speaker_embeddings["repo_or_path"] = str(source)
    inputs = processor(TEXT, voice_preset=voice, max_length=16)
    model = hf.BarkModel.from_pretrained(source).eval()
    torch.manual_seed(7)
    return as_sent(model.generate(**inputs, **arguments))


@pytest.mark.parametrize("voice", [None, *speech.PRESETS])
def test_bark_says_what_transformers_says(bark: Path, voice: str | None) -> None:
    adapter = load(entry(bark))
    (chunk,) = chunks_of(adapter, voice=voice, options={"seed": 7})
    made = spoken(adapter, voice=voice, options={"seed": 7})
    adapter.close()
    assert chunk.sample_rate == 24_000
    assert_same(made, reference_bark(bark, voice))


def test_bark_s_voices_and_options_are_heard(bark: Path) -> None:
    adapter = load(entry(bark, defaults={"voice": speech.PRESETS[0], "seed": 7}))
    plain = spoken(adapter)
    made = {
        "again": spoken(adapter),
        "voice": spoken(adapter, voice=speech.PRESETS[1]),
        "semantic": spoken(adapter, options={"semantic_temperature": 0.1}),
        "coarse": spoken(adapter, options={"coarse_temperature": 0.1}),
        "fine": spoken(adapter, options={"fine_temperature": 0.1}),
        "seed": spoken(adapter, options={"seed": 8}),
    }
    adapter.close()
    assert [name for name, sound in made.items() if np.array_equal(sound, plain)] == ["again"]
    wanted = reference_bark(bark, speech.PRESETS[0], semantic_temperature=0.3, min_eos_p=0.2)
    options = {"semantic_temperature": 0.3, "min_eos_p": 0.2}
    assert_same(once(entry(bark, defaults={"voice": speech.PRESETS[0], "seed": 7}), options=options), wanted)


def test_bark_reads_no_file_that_a_voice_names(bark: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", semantic_prompt=np.zeros(3))
    adapter = load(entry(bark))
    with pytest.raises(InvalidInputError, match="has no voice") as refused:
        chunks_of(adapter, voice=str(tmp_path / "own"))
    assert refused.value.param == "voice"
    adapter.close()


def test_bark_makes_sound_when_it_has_nothing_to_say(bark: Path) -> None:
    adapter = load(entry(bark))
    (model,) = (part for part in vars(adapter).values() if isinstance(part, hf.BarkModel))
    with torch.no_grad():  # so that the end is the likeliest token from the first one on
        model.semantic.lm_head.weight[model.generation_config.semantic_config["eos_token_id"]] = 10
    assert len(spoken(adapter, "a")) > 0
    adapter.close()


# ── VITS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def reference_vits(source: Path, text: str = TEXT, **arguments: Any) -> Sound:
    model = hf.VitsModel.from_pretrained(source).eval()
    tokens = hf.VitsTokenizer.from_pretrained(source)(text, return_tensors="pt")
    torch.manual_seed(7)
    with torch.inference_mode():
        return as_sent(model(**tokens, **arguments).waveform)


def test_vits_says_what_the_pipeline_says(vits: Path) -> None:
    adapter = load(entry(vits))
    (chunk,) = chunks_of(adapter, options={"seed": 7})
    made = spoken(adapter, options={"seed": 7})
    adapter.close()
    pipeline = hf.pipeline("text-to-audio", model=str(vits))
    torch.manual_seed(7)
    wanted = pipeline(TEXT)
    assert chunk.sample_rate == wanted["sampling_rate"] == 16_000
    assert_same(made, as_sent(wanted["audio"]))
    assert_same(made, reference_vits(vits))


def test_vits_speaks_at_the_speed_asked_for(vits: Path) -> None:
    made = once(entry(vits), speed=2.0, options={"seed": 7})
    assert_same(made, reference_vits(vits, speaking_rate=2.0))
    assert len(made) < 0.7 * len(once(entry(vits), options={"seed": 7}))


def test_a_seed_makes_the_same_speech_and_leaves_others_their_numbers(vits: Path) -> None:
    adapter = load(entry(vits))
    torch.manual_seed(1)
    first = spoken(adapter, options={"seed": 5})
    drawn = torch.rand(1)
    second, other = spoken(adapter, options={"seed": 5}), spoken(adapter, options={"seed": 6})
    free = [spoken(adapter), spoken(adapter)]
    adapter.close()
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert not np.array_equal(free[0], free[1])


def test_vits_s_noise_is_chosen_for_one_request(vits: Path) -> None:
    adapter = load(entry(vits))
    plain = spoken(adapter, options={"seed": 7})
    still = [spoken(adapter, options={"noise_scale": 0, "noise_scale_duration": 0, "seed": n}) for n in (1, 2)]
    again = spoken(adapter, options={"seed": 7})
    adapter.close()
    assert np.array_equal(still[0], still[1])
    assert np.array_equal(plain, again)
    assert not np.array_equal(plain, still[0])


def test_each_speaker_of_a_model_is_a_voice(choir: Path) -> None:
    adapter = load(entry(choir))
    made = {voice: spoken(adapter, voice=voice, options={"seed": 7}) for voice in (None, "0", "1", "2")}
    for number in range(3):
        assert_same(made[str(number)], reference_vits(choir, speaker_id=number))
    assert np.array_equal(made[None], made["0"])
    with pytest.raises(InvalidInputError, match=r"no voice '3'. Known: 0, 1, 2"):
        chunks_of(adapter, voice="3")
    adapter.close()


def test_an_entry_names_the_speakers_of_a_model(choir: Path) -> None:
    made = once(entry(choir, options={"speakers": {"bass": 2, "alto": 1}}), voice="alto", options={"seed": 7})
    assert_same(made, reference_vits(choir, speaker_id=1))
    with pytest.raises(LoadError, match="'tenor' of 'choir' must be a number from 0 to 2"):
        load(entry(choir, options={"speakers": {"tenor": 3}}))


def test_what_has_one_voice_has_it_under_any_name(vits: Path) -> None:
    made = [once(entry(vits), voice=voice, options={"seed": 7}) for voice in (None, "alloy")]
    assert np.array_equal(made[0], made[1])


@pytest.mark.parametrize("text", ["", "  \n", "...", "!?", "\u2014 \u2026", "123", "\U0001f600"])
def test_text_without_a_word_for_the_model_is_silent(vits: Path, text: str) -> None:
    adapter = load(entry(vits))
    assert chunks_of(adapter, text) == []
    adapter.close()


def test_text_in_letters_the_model_has_not_is_refused(vits: Path) -> None:
    adapter = load(entry(vits))
    with pytest.raises(InvalidInputError, match="none of the letters of: '\u041f\u0440\u0438\u0432\u0435\u0442'") as no:
        chunks_of(adapter, "\u041f\u0440\u0438\u0432\u0435\u0442")
    assert no.value.param == "input"
    assert len(spoken(adapter, "\u041f\u0440\u0438\u0432\u0435\u0442 hello")) > 0
    adapter.close()


def test_other_scripts_are_romanized_where_the_model_wants_it(folder: Path) -> None:
    source = speech.save_vits(folder / "roman", roman=True)
    made = once(entry(source), "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", options={"seed": 7})
    # The library's own tokenizer romanizes too.
    assert_same(made, reference_vits(source, "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440"))
    assert_same(made, reference_vits(source, "privet, mir"))


@pytest.mark.parametrize(("package", "roman"), [("uroman", True), ("phonemizer", False)])
def test_a_package_that_is_missing_is_named_when_the_model_loads(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, *, roman: bool
) -> None:
    import json

    from yapit_plugin_hf_generic.speaking import vits as module

    source = speech.save_vits(folder / f"needs-{package}", roman=roman)
    if not roman:
        path = source / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "phonemize": True}))
    monkeypatch.setattr(module, f"is_{package}_available", lambda: False)
    with pytest.raises(LoadError, match=f"pip install {package}"):
        load(entry(source))


# ── Pocket TTS ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="session")
def pocket(folder: Path) -> Path:
    return speech.save_pocket(folder / "pocket")


def reference_pocket(source: Path, **voice: Any) -> Sound:
    model = hf.PocketTTSForConditionalGeneration.from_pretrained(source).eval()
    processor = hf.PocketTTSProcessor.from_pretrained(source)
    prompt = f"<voices><voice>{TEXT}<sound>" if voice else f"{TEXT}<sound>"
    inputs = processor(text=prompt, return_tensors="pt", **voice)
    torch.manual_seed(7)
    made = model.generate(**inputs)
    return as_sent(processor.decode(made.audio_latents, made.audio_latents_mask)[0])


def test_pocket_tts_says_what_transformers_says(pocket: Path) -> None:
    adapter = load(entry(pocket))
    (chunk,) = chunks_of(adapter)
    made = spoken(adapter, options={"seed": 7})
    assert np.array_equal(made, spoken(adapter, voice="alba", options={"seed": 7}))
    with pytest.raises(InvalidInputError, match=r"no voice 'marius'. Known: alba"):
        chunks_of(adapter, voice="marius")
    adapter.close()
    assert chunk.sample_rate == 24_000
    latents = torch.tensor(load_file(pocket / "voices" / "alba.safetensors")["latents"])
    assert_same(made, reference_pocket(pocket, audio_prompt_latents=[latents]))


def test_pocket_tts_speaks_in_the_voice_of_a_recording(pocket: Path, tmp_path: Path) -> None:
    numbers = np.random.default_rng(15)
    samples = (numbers.normal(size=48_000) * 3000).astype("<i2")
    (tmp_path / "me.wav").write_bytes(encode(samples.tobytes(), "wav", 24_000))
    options = {"speaker_embeddings": str(tmp_path), "speakers": {"me": "me.wav"}}
    made = once(entry(pocket, options=options), voice="me", options={"seed": 7})
    recording = samples.astype(np.float32) / np.float32(32768)
    assert_same(made, reference_pocket(pocket, audio=[recording], sampling_rate=24_000))
    with pytest.raises(LoadError, match=r"no file 'you.wav' for the voice 'you'"):
        load(entry(pocket, options={**options, "speakers": {"you": "you.wav"}}))


# ── others ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_fastspeech2_with_its_vocoder_says_what_transformers_says(folder: Path) -> None:
    source = speech.save_fastspeech2(folder / "fastspeech2")
    adapter = load(entry(source))
    (chunk,) = chunks_of(adapter)
    made = spoken(adapter)
    adapter.close()
    model = hf.AutoModelForTextToWaveform.from_pretrained(source).eval()
    with torch.inference_mode():
        wanted = model(**hf.AutoTokenizer.from_pretrained(source)(TEXT, return_tensors="pt")).waveform
    assert chunk.sample_rate == 22_050
    assert_same(made, as_sent(wanted))


def test_what_writes_sound_token_by_token_writes_what_the_pipeline_writes(folder: Path) -> None:
    source = speech.save_musicgen(folder / "musicgen")
    adapter = load(entry(source))
    (chunk,) = chunks_of(adapter)
    made = spoken(adapter, options={"seed": 7, "max_new_tokens": 12, "temperature": 0.9})
    same = [spoken(adapter, options={"temperature": 0, "seed": seed}) for seed in (1, 2)]
    adapter.close()
    pipeline = hf.pipeline("text-to-audio", model=str(source))
    torch.manual_seed(7)
    wanted = pipeline(TEXT, generate_kwargs={"max_new_tokens": 12, "do_sample": True, "temperature": 0.9})
    assert chunk.sample_rate == wanted["sampling_rate"] == 32_000
    assert_same(made, as_sent(wanted["audio"]))
    assert np.array_equal(same[0], same[1])


def test_a_model_that_cannot_speak_is_refused_with_what_can(folder: Path) -> None:
    source = speech.save_ctc(folder / "mute")
    with pytest.raises(LoadError, match=r"no class for speech of the type 'wav2vec2'; it has bark, csm, .*vits, dia"):
        load(entry(source))


# ── all ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"sead": 1}, "options.sead", "has no option 'sead'. Did you mean 'seed'"),
        ({"seed": "x"}, "options.seed", "Expected `int"),
        ({"seed": -1}, "options.seed", ">= 0"),
        ({"noise_scale": 9}, "options.noise_scale", "<= 2"),
    ],
)
def test_options_are_checked(vits: Path, options: dict[str, Any], param: str, says: str) -> None:
    adapter = load(entry(vits))
    with pytest.raises(InvalidInputError, match=says) as refused:
        chunks_of(adapter, options=options)
    assert refused.value.param == param
    adapter.close()


def broken(adapter: Speaker, value: float, *, everywhere: bool) -> None:
    """Let the model's last layer make numbers that are no sound."""

    def spoil(_module: Any, _given: Any, made: torch.Tensor) -> torch.Tensor:
        spoilt = torch.full_like(made, value) if everywhere else made.clone()
        spoilt[..., 100] = value
        return spoilt

    (vits,) = (part for part in vars(adapter).values() if isinstance(part, hf.VitsModel))
    vits.decoder.register_forward_hook(spoil)


def test_a_sample_that_is_no_number_is_silent(vits: Path) -> None:
    adapter = load(entry(vits))
    plain = spoken(adapter, options={"seed": 7})
    broken(adapter, float("nan"), everywhere=False)
    with capture_logs() as lines:
        made = spoken(adapter, options={"seed": 7})
    adapter.close()
    assert made[100] == 0
    assert np.array_equal(np.delete(made, 100), np.delete(plain, 100))
    assert [line["event"] for line in lines] == ["sound_broken"]


def test_sound_without_a_number_is_an_error(vits: Path) -> None:
    adapter = load(entry(vits))
    broken(adapter, float("nan"), everywhere=True)
    with pytest.raises(BackendError, match="numbers that are no sound"):
        chunks_of(adapter)
    adapter.close()


def test_closing_ends_the_thread(vits: Path) -> None:
    before = set(threading.enumerate())
    adapter = load(entry(vits))
    spoken(adapter)
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"speak-vits_0"}
    adapter.close()
    assert set(threading.enumerate()) == before


def engine(*models: Model) -> Engine:
    plugins = Plugins()
    plugins.register("hf-generic", yapit_plugin_hf_generic)
    return Engine(Settings(device="cpu"), plugins, Catalog(models))


@pytest.mark.parametrize("name", ["bark", "vits"])
def test_many_at_once_hear_the_same_as_one_alone(request: pytest.FixtureRequest, name: str) -> None:
    model = entry(request.getfixturevalue(name))
    texts = [f"This is text {letter}." for letter in "abcdefgh"]
    alone = {text: once(model, text, options={"seed": 7}) for text in texts}

    async def main() -> None:
        made = engine(model)

        async def ask(text: str) -> None:
            wanted = SynthesizeRequest(text=text, options={"seed": 7})
            async with aclosing(made.stream(SYNTHESIZE, model, wanted)) as chunks:
                pcm = b"".join([chunk.pcm async for chunk in chunks if isinstance(chunk, AudioChunk)])
            assert np.array_equal(np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32767), alone[text])

        async with asyncio.TaskGroup() as group:
            for text in texts * 2:
                group.create_task(ask(text))
        await made.close()

    run(main())


def stepwise(adapter: Any, kind: type[torch.nn.Module]) -> tuple[Callable[[int], bool], list[int]]:
    """Let a test wait until the model has made some steps, and see how many it makes."""
    steps: list[int] = []
    changed = threading.Condition()

    def count(*_: Any) -> None:
        with changed:
            steps.append(1)
            changed.notify_all()

    (model,) = (part for part in vars(adapter).values() if isinstance(part, kind))
    lists = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part)]
    for layer in {id(part[0]): part[0] for part in lists}.values():
        layer.register_forward_hook(count)

    def wait(wanted: int) -> bool:
        with changed:
            return changed.wait_for(lambda: len(steps) >= wanted, PATIENCE_S)

    return wait, steps


@pytest.mark.parametrize(
    ("name", "kind"), [("bark", hf.BarkModel), ("speecht5", hf.SpeechT5ForTextToSpeech)], ids=["bark", "speecht5"]
)
def test_a_client_that_leaves_stops_the_model_in_the_middle_of_its_sentence(
    request: pytest.FixtureRequest, hifigan: Path, name: str, kind: type[torch.nn.Module]
) -> None:
    options = {"vocoder": str(hifigan)} if name == "speecht5" else {}
    adapter = load(entry(request.getfixturevalue(name), options=options))
    wait, steps = stepwise(adapter, kind)
    wanted = SynthesizeRequest(text=TEXT, options={"seed": 7})
    complete = spoken(adapter, options={"seed": 7})
    whole = len(steps)
    steps.clear()

    async def main() -> None:
        async def hear() -> None:
            async with aclosing(adapter.synthesize(wanted)) as chunks:  # type: ignore[type-var]  # these wait
                async for _ in chunks:
                    pass

        listener = asyncio.create_task(hear())
        assert await asyncio.to_thread(wait, 5)
        listener.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listener
        assert len(steps) < whole
        made = len(steps)
        await asyncio.sleep(0)
        assert len(steps) == made, "it still computes for nobody"

    asyncio.run(main())
    assert np.array_equal(spoken(adapter, options={"seed": 7}), complete), "the next call is as good as any"
    adapter.close()
    gc.collect()
