"""The plugin as yapit sees it: its models, its files, and what it says over HTTP."""

# ruff: noqa: RUF001 - phonemes are meant

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import torch
from huggingface_hub import constants

import yapit_plugin_kokoro
from hub import Repo, serve_hub
from live import Server, serve
from yapit import Context, InvalidInputError, LoadError, Model, read_models
from yapit.audio import decode
from yapit_plugin_kokoro import complete_model, register_backends, register_models, synthesize, weights
from yapit_plugin_kokoro.hub import Files

OPENAI = "alloy ash ballad coral echo fable onyx nova sage shimmer verse marin cedar".split()  # noqa: SIM905 - names
CONFIG: dict[str, Any] = {"istftnet": {}, "plbert": {}, "vocab": {}}
SMALL = {"config.json": json.dumps(CONFIG).encode(), "kokoro-v1_0.pth": b"p", "voices/af_heart.pt": b"v"}
PATIENCE_S = 100.0


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shipped = register_models()[0]
    entry = {
        "id": "kokoro",
        "source": str(tiny),
        "options": {"threads": 1, "dtype": "float32"},
        "voice_aliases": {**shipped.voice_aliases, "nova": "ff_siwis(2)+ef_dora"},
    }
    (folder / "yapit.yaml").write_text("speech: {voice_map: {MyVoice: af_sky}}")
    (folder / "models.local.yaml").write_bytes(msgspec.yaml.encode({"models": [entry]}))
    environ = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    with serve(folder, **environ) as running:
        yield running


def speak(server: Server, text: str = "Hi.", path: str = "", **fields: Any) -> httpx.Response:
    body = {"model": "kokoro", "input": text, "response_format": "pcm", "options": {"seed": 3}, **fields}
    return httpx.post(f"{server.url}/v1/audio/speech{path}", json=body, timeout=PATIENCE_S)


def test_the_catalog_has_every_voice_with_its_language_and_grade() -> None:
    model, chinese = register_models()
    assert len(model.voices) == 54
    voices = {voice.id: voice for voice in model.voices}
    assert (voices["af_heart"].languages, voices["af_heart"].gender) == (("en-US", "en"), "female")
    assert voices["af_heart"].description == "grade A"
    assert voices["pm_alex"].languages == ("pt-BR", "pt")
    assert {voice.languages[0] for voice in model.voices} == set(model.languages)
    assert [voice.id[1] for voice in model.voices].count("f") == 29
    assert all((voice.gender == "female") == (voice.id[1] == "f") for voice in model.voices)
    assert (model.sample_rate, model.licence) == (24_000, "Apache-2.0")
    assert sorted(model.voice_aliases) == sorted(OPENAI)
    assert all(model.voice(name) in voices for name in OPENAI)
    assert model.markup
    assert chinese.markup
    assert register_backends()[0].heavy


def test_the_chinese_model_has_a_hundred_numbers_and_three_voices_for_english() -> None:
    _, chinese = register_models()
    voices = {voice.id: voice for voice in chinese.voices}
    numbers = [name for name in voices if name.startswith("z")]
    assert sorted(name[3:] for name in numbers) == [f"{number:03}" for number in range(1, 101)]
    assert {(voices[name].gender, name[:3], voices[name].languages) for name in numbers} == {
        ("female", "zf_", ("zh",)),
        ("male", "zm_", ("zh",)),
    }
    assert {name: voices[name].languages[0] for name in voices if name not in numbers} == {
        "af_maple": "en-US",
        "af_sol": "en-US",
        "bf_vale": "en-GB",
    }
    assert (chinese.voice(None), chinese.voice("zh"), chinese.voice("en-GB")) == ("zf_001", "zf_001", "bf_vale")
    with pytest.raises(InvalidInputError, match="has no voice 'zf_009'"):
        chinese.voice("zf_009")


def test_registering_imports_no_engine(python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    program = (
        "import sys, yapit_plugin_kokoro as p; p.register_models(); p.complete_model({'source': 'hexgrad/Kokoro-82M'});"
        "print([name for name in ('torch', 'kokoro', 'misaki', 'spacy', 'huggingface_hub') if name in sys.modules])"
    )
    assert python(program).stdout.strip() == "[]"


def test_an_entry_with_a_source_only_is_completed(tiny: Path) -> None:
    found = complete_model({"source": str(tiny)})
    assert found is not None
    model = msgspec.convert({"id": "mine", **found}, Model)
    assert (model.backend, model.tasks, model.sample_rate) == ("kokoro", ("synthesize",), 24_000)
    assert [voice.id for voice in model.voices] == sorted(path.stem for path in (tiny / "voices").iterdir())
    assert {"en-US", "ja", "zh"} <= set(model.languages)
    repository = complete_model({"source": "hexgrad/Kokoro-82M-v1.1-zh"})
    assert repository is not None
    assert repository["backend"] == "kokoro"
    for other in ("org/whisper", "onnx-community/Kokoro-82M-v1.0-ONNX", str(tiny / "voices")):
        assert complete_model({"source": other}) is None
    assert complete_model({"source": str(tiny), "backend": "other"}) is None
    assert synthesize(Model(id="m", backend="other", tasks=("synthesize",)), Context()) is None


# In a process of its own: the hub's client reads its settings only once.
FETCH = """
import json, sys
from yapit import LoadError, Model
from yapit_plugin_kokoro.hub import Files
for fetch, revision in json.loads(sys.argv[1]):
    model = Model(id="m", backend="kokoro", tasks=("synthesize",), source="org/kokoro", revision=revision)
    try:
        found = Files.of(model, fetch=fetch)
        print(found.weights.name, *found.voices, found.config == json.loads(sys.argv[2]))
    except LoadError as error:
        print(error)
"""


def fetched(home: Path, url: str, *calls: tuple[bool, str]) -> list[str]:
    environ = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", FETCH, json.dumps(calls), json.dumps(CONFIG)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=100)
    return [line for line in done.stdout.splitlines() if "weights_missing" not in line]


def test_only_what_is_needed_is_fetched_from_a_pinned_revision(tmp_path: Path) -> None:
    more = {"VOICES.md": b"m", "samples/one.wav": b"w", "README.md": b"r"}
    found = "kokoro-v1_0.pth af_heart True"
    with serve_hub({"org/kokoro": Repo({**SMALL, "config.json": b"{}"}, older={"v1": {**SMALL, **more}})}) as hub:
        missing, first, unknown = fetched(tmp_path, hub.url, (False, "v1"), (True, "v1"), (True, "v9"))
        assert "must not be fetched" in missing
        assert first == found
        assert "has no revision 'v9'" in unknown
        assert hub.fetched == sorted(SMALL)
        hub.ill = True
        again, here = fetched(tmp_path, hub.url, (True, "v1"), (False, "v1"))
    assert again == here == found, "what is here needs no hub"


def test_what_cannot_be_fetched_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = Model(id="m", backend="kokoro", tasks=("synthesize",), source="org/nothing")
    with pytest.raises(LoadError, match=r"not on this machine, and offline mode \(HF_HUB_OFFLINE\) is on"):
        Files.of(model)
    with pytest.raises(LoadError, match="neither a folder nor the id"):
        Files.of(msgspec.structs.replace(model, source="/no/such/folder"))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"config.json": b"{"}, "config.json' of .* cannot be read"),
        ({"config.json": b"{}"}, "is no Kokoro"),
        ({"kokoro-v1_0.pth": None}, "has no weights"),
        ({"voices/af_heart.pt": None}, "has no voices"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(tmp_path: Path, broken: dict[str, bytes | None], says: str) -> None:
    for name, content in {**SMALL, **broken}.items():
        if content is not None:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
    with pytest.raises(LoadError, match=says):
        Files("mine", tmp_path)


def test_weights_that_lack_a_part_or_hold_code_are_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "voices").symlink_to(tiny / "voices")
    (tmp_path / "config.json").symlink_to(tiny / "config.json")
    model = Model(id="m", backend="kokoro", tasks=("synthesize",), source=str(tmp_path))
    for content, says in (
        ({"decoder": {}}, "lack 'bert'"),
        ({"bert": print}, "a pickle that is broken, or holds code"),
        ({"bert": {"module.embeddings.word_embeddings.weight": torch.zeros(2)}}, "cannot be loaded .* size mismatch"),
    ):
        torch.save(content, tmp_path / "kokoro-v1_0.pth")
        with pytest.raises(LoadError, match=says):
            synthesize(model, Context(device="cpu"))


def test_the_page_and_the_readme_name_every_option() -> None:
    from yapit_plugin_kokoro.options import Knobs, Options, Settings

    page = (Path(__file__).parents[3] / "docs/kokoro.md").read_text(encoding="utf-8")
    for struct in (Knobs, Options, Settings):
        for name in struct.__struct_fields__:
            assert f"`{name}`" in page, name


def test_it_speaks_over_http_in_any_spelling_of_a_blend(server: Server) -> None:
    answers = {
        voice: speak(server, voice=voice)
        for voice in ("af_heart", "af_heart,af_sky", "af_heart(1)+af_sky(1)", "AF_HEART:50,af_sky:50", "alloy+af_heart")
    }
    assert [answer.status_code for answer in answers.values()] == [200] * 5
    sounds = {voice: answer.content for voice, answer in answers.items()}
    assert sounds["af_heart,af_sky"] == sounds["af_heart(1)+af_sky(1)"] == sounds["AF_HEART:50,af_sky:50"]
    assert len(set(sounds.values())) == 3


def test_the_names_of_openai_are_voices_and_may_be_changed(server: Server) -> None:
    assert speak(server, voice="alloy").content == speak(server, voice="af_alloy").content
    assert speak(server, voice="nova").content == speak(server, voice="ff_siwis(2)+ef_dora(1)").content
    assert speak(server).content == speak(server, voice="shimmer").content, "the default is af_heart"


def test_names_of_a_user_s_voice_map_may_be_mixed_in_any_spelling(server: Server) -> None:
    mixed = speak(server, voice="af_heart,af_sky").content
    for voice in ("af_heart,myvoice", "af_heart:0.5,MyVoice:0.5", "af_heart+myvoice", "shimmer+myvoice"):
        assert speak(server, voice=voice).content == mixed, voice
    unknown = speak(server, voice="myvoise+af_sky")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "voice")
    assert "has no voice 'myvoise'" in unknown.json()["error"]["message"]


def test_a_language_alone_is_spoken_by_a_voice_of_it(server: Server) -> None:
    french = speak(server, "Bonjour.", language="fr")
    assert french.content == speak(server, "Bonjour.", voice="ff_siwis").content
    assert french.content != speak(server, "Bonjour.", language="fr", voice="af_heart").content


def test_mp3_with_word_times_over_http(server: Server) -> None:
    text = "Hello there, world. A [pause:1s] b."
    answer = speak(server, text, response_format="mp3", return_timestamps=True).json()
    assert answer["word_source"] == "native"
    assert [word["word"] for word in answer["words"]] == ["Hello", "there", "world", "A", "b"]
    assert all(text[word["offset"] :].startswith(word["word"]) for word in answer["words"])
    assert answer["words"][4]["start"] - answer["words"][3]["end"] >= 1
    pcm = decode(base64.b64decode(answer["audio"]), sample_rate=24_000)
    assert abs(len(pcm) / 48_000 - answer["duration"]) < 0.2
    spanish = speak(server, "Hola mundo.", voice="ef_dora", return_timestamps=True).json()
    assert spanish["word_source"] == "estimated"
    assert [word["word"] for word in spanish["words"]] == ["Hola", "mundo"]


def test_markup_is_no_word_in_other_languages_either(server: Server) -> None:
    text = "Hola [pause:1s] [mundo](/mˈundo/), adiós.\n\n[pause:500ms]\n\nBueno."
    answer = speak(server, text, voice="ef_dora", response_format="wav", return_timestamps=True).json()
    words = answer["words"]
    assert [word["word"] for word in words] == ["Hola", "mundo", "adiós", "Bueno"]
    assert all(text[word["offset"] :].startswith(word["word"]) for word in words)
    assert words[1]["start"] - words[0]["end"] >= 1
    assert words[3]["start"] - words[2]["end"] >= 0.5
    assert words[3]["end"] <= answer["duration"]
    assert answer["word_source"] == "estimated"


def test_phonemes_are_read_wherever_the_core_cuts_the_text(server: Server) -> None:
    for length in (20, 60, 270):
        text = f"{'So ' * (length // 3)}[Dr. who. Was. Here](/wˈʌn/) it ends. "
        words = speak(server, text, response_format="wav", return_timestamps=True).json()["words"]
        assert [word["word"] for word in words][-4:-2] == ["So", "Dr. who. Was. Here"]


def test_a_pause_between_sentences_is_heard_at_its_length(server: Server) -> None:
    sentence = "This is a sentence that is long enough to stand alone in a piece of its own, it seems. "
    plain, paused = (speak(server, f"{sentence}{pause}{sentence}") for pause in ("", "[pause:3s] "))
    assert abs((len(paused.content) - len(plain.content)) / 48_000 - 3) < 0.3


def test_errors_over_http_name_the_field(server: Server) -> None:
    unknown = speak(server, voice="af_hart+af_sky")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "voice")
    assert "'af_heart'" in unknown.json()["error"]["message"]
    foreign = speak(server, language="tlh")
    assert (foreign.status_code, foreign.json()["error"]["param"]) == (400, "language")
    option = speak(server, options={"sed": 1})
    assert (option.status_code, option.json()["error"]["param"]) == (400, "options.sed")


def test_the_shipped_models_are_read() -> None:
    assert [model.id for model in read_models(files(yapit_plugin_kokoro) / "models.yaml")] == ["kokoro", "kokoro-zh"]
    with pytest.raises(InvalidInputError, match="Did you mean 'bf_emma'"):
        register_models()[0].voice("bf_ema:3,af_sky:2")


def test_what_is_needed_are_the_weights_once_and_all_voices(tmp_path: Path) -> None:
    entry = Model(id="mine", backend="kokoro", tasks=("synthesize",), source="org/kokoro", revision="v1")
    [needed] = weights(entry) or []
    assert (needed.kind, needed.source, needed.revision) == ("model", "org/kokoro", "v1")
    assert needed.choose is not None
    others = ["README.md", "samples/HEARME.wav", "voices/a.bin", "kokoro.onnx"]
    assert list(needed.choose([*SMALL, *others])) == list(SMALL)
    assert weights(msgspec.structs.replace(entry, source=str(tmp_path))) == []
    assert weights(msgspec.structs.replace(entry, options={"skip_download": True})) == []
    assert weights(msgspec.structs.replace(entry, backend="other")) is None
