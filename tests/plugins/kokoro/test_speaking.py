"""Speech of a tiny Kokoro, compared with what Kokoro's own package makes of the same weights."""

# ruff: noqa: RUF001 - phonemes and the languages of many scripts are meant

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import aclosing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kokoro import KModel, KPipeline
from numpy.typing import NDArray

from loops import run
from models.kokoros import VOCABULARY, load_kokoro
from yapit import AudioChunk, Context, InvalidInputError, Model, SettingsError, SynthesizeRequest
from yapit_plugin_kokoro import precision
from yapit_plugin_kokoro.adapter import SAMPLE_RATE, KokoroSynthesizer
from yapit_plugin_kokoro.english import EnglishReader
from yapit_plugin_kokoro.model import Voicebox
from yapit_plugin_kokoro.sounds import Readers

Sound = NDArray[np.float32]
CPU = Context(device="cpu")
TEXT = "Hello world, it is me."
REAL = os.environ.get("YAPIT_TEST_WEIGHTS")


def entry(folder: Path, **more: Any) -> Model:
    options = {"threads": 1, "dtype": "float32", **more.pop("options", {})}
    fields = {"defaults": {"voice": "af_heart"}, "voice_aliases": {"alloy": "af_sky"}, **more}
    return Model(id="tiny", backend="kokoro", tasks=("synthesize",), source=str(folder), options=options, **fields)


@pytest.fixture(scope="module")
def speaker(tiny: Path) -> Iterator[KokoroSynthesizer]:
    adapter = KokoroSynthesizer(entry(tiny), CPU)
    yield adapter
    adapter.close()


@pytest.fixture(scope="module")
def kokoro(tiny: Path) -> KModel:
    return load_kokoro(tiny)


def chunks_of(adapter: KokoroSynthesizer, text: str = TEXT, **fields: Any) -> list[AudioChunk]:
    async def main() -> list[AudioChunk]:
        async with aclosing(adapter.synthesize(SynthesizeRequest(text=text, **fields))) as chunks:  # type: ignore[type-var]  # it waits
            return [chunk async for chunk in chunks]

    return asyncio.run(main())


def pcm_of(adapter: KokoroSynthesizer, text: str = TEXT, **fields: Any) -> bytes:
    options = {"seed": 3, **fields.pop("options", {})}
    return b"".join(chunk.pcm for chunk in chunks_of(adapter, text, options=options, **fields))


def voice_of(folder: Path, name: str) -> torch.Tensor:
    table: torch.Tensor = torch.load(folder / "voices" / f"{name}.pt", weights_only=True)
    return table


@cache
def english(letter: str) -> EnglishReader:
    reader = Readers(VOCABULARY)._reader(letter)
    assert isinstance(reader, EnglishReader)
    return reader


def pipeline(kokoro: KModel, letter: str) -> KPipeline:
    """Return the package's own way from text to sound, its English reader replaced by the one that needs no network."""
    if letter not in "ab":
        return KPipeline(letter, repo_id="hexgrad/Kokoro-82M", model=kokoro)
    made = KPipeline("e", repo_id="hexgrad/Kokoro-82M", model=kokoro)
    made.lang_code, made.g2p = letter, english(letter)
    return made


def expected(kokoro: KModel, letter: str, text: str, voice: torch.Tensor, speed: float = 1.0) -> tuple[bytes, Any]:
    """Return what the package makes, the noise seeded; and its tokens."""
    torch.manual_seed(3)
    (result,) = pipeline(kokoro, letter)(text, voice=voice, speed=speed)
    return AudioChunk.from_samples(result.audio.numpy(), SAMPLE_RATE).pcm, result.tokens


@pytest.mark.parametrize(
    ("voice", "text", "speed"),
    [
        ("af_heart", TEXT, 1.0),
        ("af_sky", "I paid $4.50, didn't you?", 1.7),
        ("bf_emma", "A better colour.", 0.6),
        ("ef_dora", "Hola, ¿qué tal?", 1.0),
        ("ff_siwis", "Un bon vin (blanc).", 1.0),
        ("zf_xiaobei", "你好，世界！", 1.0),
    ],
)
def test_the_sound_is_the_package_s_sample_by_sample(
    tiny: Path, speaker: KokoroSynthesizer, kokoro: KModel, voice: str, text: str, speed: float
) -> None:
    wanted, _ = expected(kokoro, voice[0], text, voice_of(tiny, voice), speed)
    assert pcm_of(speaker, text, voice=voice, speed=speed) == wanted


def test_the_words_times_are_the_package_s(tiny: Path, speaker: KokoroSynthesizer, kokoro: KModel) -> None:
    text = "Well, I read it: two cats and “one” dog."
    _, tokens = expected(kokoro, "a", text, voice_of(tiny, "af_heart"))
    theirs = [(each.text, each.start_ts, each.end_ts) for each in tokens if any(map(str.isalnum, each.text))]
    (chunk,) = chunks_of(speaker, text, options={"seed": 3})
    ours = [(word.text, word.start_s, word.end_s) for word in chunk.words]
    assert ours == theirs
    assert ours[-1][2] <= len(chunk.pcm) / 2 / SAMPLE_RATE


def test_every_word_is_where_it_stands_in_the_request(speaker: KokoroSynthesizer) -> None:
    text = (
        "  “Don't — really”, she  said.\n\nNew\nline: $4.50 &\u200b co. [pause:0.2s] [Yapit](/jˈæpɪt/) is \ud800 "
        "well-known; rock'5 U.S. 3rd, naïve 你好 can’t."
    )
    chunks = chunks_of(speaker, text)
    words = [word for chunk in chunks for word in chunk.words]
    assert all(text[word.offset : word.offset + len(word.text)] == word.text for word in words)
    said = [word.text for word in words]
    assert said[:6] == ["Don't", "really", "she", "said", "New", "line"]
    assert {"Yapit", "is", "well-known", "3rd", "naïve", "can’t"} < set(said)
    assert [word.offset for word in words] == sorted(word.offset for word in words)
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[-1] <= sum(len(chunk.pcm) for chunk in chunks) / 2 / SAMPLE_RATE


@pytest.mark.parametrize(
    ("blend", "shares"),
    [
        ("af_heart,af_sky", {"af_heart": 1, "af_sky": 1}),
        ("af_heart(2)+af_sky", {"af_heart": 2, "af_sky": 1}),
        ("af_heart:60,af_sky:20,bf_emma:20", {"af_heart": 3, "af_sky": 1, "bf_emma": 1}),
        ("af_heart(3)-alloy(1)", {"af_heart": 3, "af_sky": -1}),
        (" AF_Heart + AF_SKY ", {"af_heart": 1, "af_sky": 1}),
    ],
)
def test_a_blend_is_the_weighted_mean_of_its_voices(
    tiny: Path, speaker: KokoroSynthesizer, kokoro: KModel, blend: str, shares: dict[str, int]
) -> None:
    total = sum(map(abs, shares.values()))
    mixed = sum(voice_of(tiny, name) * weight for name, weight in shares.items()) / total
    wanted, _ = expected(kokoro, "a", "Hi, it is me.", mixed)
    assert pcm_of(speaker, "Hi, it is me.", voice=blend) == wanted


def test_a_blend_with_commas_is_the_package_s(speaker: KokoroSynthesizer, kokoro: KModel, tiny: Path) -> None:
    made = pipeline(kokoro, "a")
    made.voices = {name: voice_of(tiny, name) for name in ("af_heart", "bf_emma", "af_sky")}
    wanted, _ = expected(kokoro, "a", "Hi.", made.load_voice("af_heart,bf_emma,af_sky"))
    assert pcm_of(speaker, "Hi.", voice="af_heart,bf_emma,af_sky") == wanted


@pytest.mark.parametrize(
    ("voice", "says"),
    [
        ("af_hart", "'af_heart'"),
        ("af_heart+af_skye", "'af_sky'"),
        ("af_heart(0)", "some weight"),
        ("af_heart++af_sky", "neither a voice nor a blend"),
        ("af_heart(2", "neither a voice nor a blend"),
        (",".join(["af_sky"] * 33), "at most 32"),
        ("../config", "no voice"),
    ],
)
def test_an_unknown_voice_is_refused_with_the_closest(speaker: KokoroSynthesizer, voice: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as refusal:
        chunks_of(speaker, voice=voice)
    assert refusal.value.param == "voice"


def test_a_seed_gives_equal_bytes_and_leaves_others_their_numbers(speaker: KokoroSynthesizer) -> None:
    torch.manual_seed(1)
    first = pcm_of(speaker, "Hi.", options={"seed": 5})
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn), "the numbers of others are not drawn"
    torch.manual_seed(9)
    assert pcm_of(speaker, "Hi.", options={"seed": 5}) == first
    assert pcm_of(speaker, "Hi.", options={"seed": 6}) != first
    free = [pcm_of(speaker, "Hi.", options={"seed": None}) for _ in range(2)]
    assert free[0] != free[1]


def test_the_language_is_asked_for_or_else_the_voice_s(speaker: KokoroSynthesizer) -> None:
    spanish = pcm_of(speaker, "Hola.", voice="ef_dora")
    assert pcm_of(speaker, "Hola.", voice="ef_dora", language="es-MX") == spanish
    assert pcm_of(speaker, "Hola.", voice="ef_dora", options={"lang_code": "e"}) == spanish
    assert pcm_of(speaker, "Hola.", language="es") == spanish, "no voice: one of that language"
    assert pcm_of(speaker, "Hola.", voice="ef_dora", language="en") != spanish
    american, british = (pcm_of(speaker, "A bath.", language=tag) for tag in ("en-US", "en_GB"))
    assert american != british
    assert pcm_of(speaker, "A bath.", voice="bf_emma", language="en") == british


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "tlh"}, "language"),
        ({"options": {"lang_code": "klingon"}}, "options.lang_code"),
        ({"options": {"tempo": 3}}, "options.tempo"),
        ({"options": {"seed": -1}}, "options.seed"),
        ({"options": {"markup": "no"}}, "options.markup"),
        ({"options": {"lexicon": {"a": 1}}}, "options.lexicon[...]"),
    ],
)
def test_what_a_request_may_not_say_is_named(speaker: KokoroSynthesizer, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        chunks_of(speaker, **fields)
    assert refusal.value.param == param


def test_unknown_options_of_an_entry_are_named(tiny: Path) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'threads'"):
        KokoroSynthesizer(entry(tiny, options={"thread": 1}), CPU)


def test_a_pause_is_silence_of_its_length(speaker: KokoroSynthesizer) -> None:
    before, pause, after = chunks_of(speaker, "One [pause:0.5s] two [pause:0ms].")[:3]
    assert (pause.pcm, pause.pause) == (bytes(2 * SAMPLE_RATE // 2), True)
    assert (before.pause, after.pause) == (False, False)
    assert after.words[0].start_s >= len(before.pcm) / 2 / SAMPLE_RATE + 0.5
    (longest,) = chunks_of(speaker, "[pause:9999s]")
    assert len(longest.pcm) == 2 * 10 * SAMPLE_RATE


def test_phonemes_in_the_text_and_in_the_lexicon_are_said(speaker: KokoroSynthesizer) -> None:
    plain = pcm_of(speaker, "A Kokoro here.")
    marked = pcm_of(speaker, "A [Kokoro](/wˈʌn/) here.")
    assert marked != plain
    assert marked == pcm_of(speaker, "A One here.") == pcm_of(speaker, "A one here.")
    assert pcm_of(speaker, "A Kokoro here.", options={"lexicon": {"kokoro": "wˈʌn"}}) == marked
    assert pcm_of(speaker, "A Kokoros here.", options={"lexicon": {"kokoro": "wˈʌn"}}) != marked
    spanish = pcm_of(speaker, "[Gato](/pˈero/).", voice="ef_dora")
    assert spanish == pcm_of(speaker, "Perro.", voice="ef_dora")


def test_markup_may_be_turned_off_by_the_request_the_entry_or_the_settings(
    tiny: Path, speaker: KokoroSynthesizer
) -> None:
    text = "A [b](/k/) [pause:3s]"
    off = chunks_of(speaker, text, options={"markup": False, "seed": 3})
    assert not any(chunk.pause for chunk in off)
    assert {"A", "pause:3s"} <= {word.text for word in off[0].words}
    for model, context in (
        (entry(tiny, options={"markup": False}), CPU),
        (entry(tiny), Context(device="cpu", plugin_settings={"kokoro": {"markup": False}})),
    ):
        careful = KokoroSynthesizer(model, context)
        heard = chunks_of(careful, text, options={"markup": True, "seed": 3})
        careful.close()
        assert heard == off


def test_long_text_is_cut_and_nothing_is_skipped(speaker: KokoroSynthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[str]()

    def make(self: Voicebox, phonemes: str, *_: object) -> Any:
        calls.append(phonemes)
        return type("Sound", (), {"samples": torch.zeros(600), "frames": [1] * (len(phonemes) + 2)})

    monkeypatch.setattr(Voicebox, "make", make)
    text = " ".join(f"This is sentence number {number}, and it goes on." for number in range(60))
    words = [word for chunk in chunks_of(speaker, text) for word in chunk.words]
    assert all(0 < len(call) <= 510 for call in calls)
    assert all(call.endswith(".") for call in calls), "cut where a sentence ends"
    assert len(words) == 60 * 9
    whole = " ".join(english("a").say(f"This is sentence number {number}, and it goes on.") for number in range(60))
    assert " ".join(calls) == whole
    calls.clear()
    chunks_of(speaker, "9" * 400)
    assert "".join(calls).count("nˈIn") == 400
    calls.clear()
    chunks_of(speaker, "世界是一个很大的地方，我们都住在这里。" * 40, voice="zf_xiaobei")
    assert all(len(call) <= 510 for call in calls)
    assert "".join(calls).count(".") == 40


def test_text_without_a_word_is_silent(speaker: KokoroSynthesizer) -> None:
    assert chunks_of(speaker, " — … \x00\u200b\n ") == []
    assert chunks_of(speaker, "。！", voice="zf_xiaobei") == []


def test_a_client_that_leaves_stops_the_model_in_the_middle(speaker: KokoroSynthesizer) -> None:
    steps, begun = list[int](), threading.Event()

    def step(*_: object) -> None:
        steps.append(1)
        begun.set()

    hooks = [module.register_forward_pre_hook(step) for module in speaker._voicebox._kokoro.modules()]

    async def main() -> None:
        async def hear() -> None:
            async with aclosing(speaker.synthesize(SynthesizeRequest(text=TEXT * 10))) as chunks:  # type: ignore[type-var]  # it waits
                async for _ in chunks:
                    pass

        listener = asyncio.create_task(hear())
        assert await asyncio.to_thread(begun.wait, 15)
        listener.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listener

    asyncio.run(main())
    stopped = len(steps)
    steps.clear()
    chunks_of(speaker, "Hi.")
    whole = len(steps)
    for hook in hooks:
        hook.remove()
    assert stopped < whole


def test_closing_ends_the_thread(tiny: Path) -> None:
    async def main() -> None:
        adapter = await asyncio.to_thread(KokoroSynthesizer, entry(tiny), CPU)
        async with aclosing(adapter.synthesize(SynthesizeRequest(text="Hi."))) as chunks:  # type: ignore[type-var]  # it waits
            assert [chunk async for chunk in chunks]
        adapter.close()

    run(main())


@pytest.mark.parametrize(("bound", "dtype"), [(100.0, torch.bfloat16), (0.0, torch.float32)])
def test_a_precision_is_kept_if_it_sounds_the_same(
    tiny: Path, speaker: KokoroSynthesizer, monkeypatch: pytest.MonkeyPatch, bound: float, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "fast_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "BOUND_DB", bound)
    quick = KokoroSynthesizer(entry(tiny, options={"dtype": "auto"}), CPU)
    heard, reference = pcm_of(quick, "Hi."), pcm_of(speaker, "Hi.")
    quick.close()
    assert quick._voicebox.dtype == dtype
    assert len(heard) == len(reference), "what times the words is never rounded"
    assert (heard == reference) == (dtype == torch.float32)


def test_spectrograms_tell_sounds_apart() -> None:
    rate = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = torch.sin(2 * torch.pi * 440 * rate)
    assert precision.difference_db(tone, tone) == 0
    assert precision.difference_db(tone * 0.5, tone) > 0.5
    assert precision.difference_db(tone[:-1], tone) == float("inf")
    assert precision.difference_db(tone * float("nan"), tone) == float("inf")
    assert precision.difference_db(torch.sin(2 * torch.pi * 880 * rate), tone) > 5


@pytest.mark.skipif(REAL is None, reason="YAPIT_TEST_WEIGHTS names no folder with real weights")
def test_real_weights_speak_as_the_package_does() -> None:
    folder = Path(str(REAL)) / "hexgrad/Kokoro-82M"
    if not folder.is_dir():
        pytest.skip("no Kokoro among the real weights")
    adapter = KokoroSynthesizer(entry(folder), CPU)
    wanted, _ = expected(load_kokoro(folder), "a", TEXT, voice_of(folder, "af_heart"))
    assert pcm_of(adapter, TEXT, voice="af_heart") == wanted
    adapter.close()
