import wave
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from yapit import AudioChunk, InvalidInputError, Model, SynthesizeRequest
from yapit_plugin_espeak.adapter import EspeakSynthesizer

Samples = Callable[..., NDArray[np.int16]]
Speak = Callable[..., list[AudioChunk]]
SENTENCES = "The weather is very nice today. Can you hear me now? Please call me back tomorrow morning."
# klatt6 has no noise and no flutter: the same request is the same bytes.
EXACT = "en-us+klatt6"


def loudness(audio: NDArray[np.int16]) -> float:
    return float(np.sqrt(np.mean(audio.astype(float) ** 2)))


def test_the_first_chunk_is_two_native_buffers_and_later_ones_grow_to_two_seconds(speak: Speak) -> None:
    chunks = speak(SENTENCES)
    sizes = [len(chunk.pcm) for chunk in chunks]
    assert 5_000 <= sizes[0] <= 2 * 22050 * 0.122
    assert sizes[:3] == sorted(sizes[:3])
    assert 88_200 <= max(sizes) < 92_000
    assert {chunk.sample_rate for chunk in chunks} == {22050}


@pytest.mark.parametrize("speed", [0.5, 0.6, 0.75, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0])
@pytest.mark.parametrize("voice", ["en-us", "en-us+klatt4", "de"])
def test_speed_gives_the_length_asked_for(speed: float, voice: str, samples: Samples) -> None:
    sentences = ["the weather is very nice today.", "music and art are important for children."]
    length = sum(len(samples(text, voice=voice, speed=speed)) for text in sentences)
    normal = sum(len(samples(text, voice=voice)) for text in sentences)
    assert length * speed == pytest.approx(normal, rel=0.06)


def test_speeds_out_of_range_are_held_to_it(model: Model, samples: Samples) -> None:
    assert model.speed_range == (0.5, 4.0)
    assert np.array_equal(samples("Hello", voice=EXACT, speed=0.25), samples("Hello", voice=EXACT, speed=0.5))
    assert np.array_equal(samples("Hello", voice=EXACT, speed=9), samples("Hello", voice=EXACT, speed=4))


def test_the_speed_range_is_the_catalog_entry_s(model: Model) -> None:
    narrow = EspeakSynthesizer(msgspec.structs.replace(model, speed_range=(1, 2)))

    def pcm(speed: float) -> bytes:
        request = SynthesizeRequest(text="Hello", voice=EXACT, speed=speed)
        return b"".join(chunk.pcm for chunk in narrow.synthesize(request))

    assert pcm(0.5) == pcm(1) != pcm(2) == pcm(3)


def test_volume_and_pitch_are_heard(samples: Samples) -> None:
    normal = samples("ah", voice=EXACT)
    quiet = samples("ah", voice=EXACT, options={"volume": 30})
    high = samples("ah", voice=EXACT, options={"pitch": 99})
    assert loudness(quiet) < 0.6 * loudness(normal)
    crossings = [np.count_nonzero(np.diff(np.signbit(audio))) / len(audio) for audio in (normal, high)]
    assert crossings[1] > 1.1 * crossings[0]


def test_options_of_the_entry_count_and_those_of_the_request_go_first(model: Model) -> None:
    entry = EspeakSynthesizer(msgspec.structs.replace(model, options={"pitch": 80}))
    plain = EspeakSynthesizer(model)

    def pcm(adapter: EspeakSynthesizer, **options: Any) -> bytes:
        request = SynthesizeRequest(text="Hello", voice=EXACT, options=options)
        return b"".join(chunk.pcm for chunk in adapter.synthesize(request))

    assert pcm(entry) == pcm(plain, pitch=80) != pcm(plain)
    assert pcm(entry, pitch=50) == pcm(plain)


@pytest.mark.parametrize(
    ("options", "param"),
    [({"pitch": 100}, "pitch"), ({"pitch": "high"}, "pitch"), ({"volume": -1}, "volume"), ({"ssml": "yes"}, "ssml")],
)
def test_a_bad_option_is_refused_by_name(options: dict[str, Any], param: str, speak: Speak) -> None:
    with pytest.raises(InvalidInputError) as caught:
        speak("Hello", options=options)
    assert caught.value.param == param


@pytest.mark.parametrize("voice", ["klingonese", "../../../etc/passwd", "en-us+../f1", "gmw/de", "+f1"])
def test_a_voice_that_is_none_is_refused(voice: str, speak: Speak) -> None:
    with pytest.raises(InvalidInputError) as caught:
        speak("Hello", voice=voice)
    assert caught.value.param == "voice"
    assert speak("Hello")


def test_without_a_voice_the_entry_s_default_speaks(model: Model, samples: Samples) -> None:
    german = EspeakSynthesizer(msgspec.structs.replace(model, defaults={"voice": "de+klatt6"}))
    pcm = b"".join(chunk.pcm for chunk in german.synthesize(SynthesizeRequest(text="Guten Tag")))
    assert pcm == samples("Guten Tag", voice="de+klatt6").tobytes()


@pytest.mark.parametrize(
    ("language", "voice"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("en", "en-us"),
        ("EN-gb", "en"),
        ("zh-Hant-TW", "cmn"),
        ("pt-BR", "pt-br"),
        ("tlh", "en-us"),
        (None, "en-us"),
    ],
)
def test_a_language_finds_its_voice(language: str | None, voice: str, adapter: EspeakSynthesizer) -> None:
    assert adapter._voice(SynthesizeRequest(text="x", language=language)) == voice
    assert adapter._voice(SynthesizeRequest(text="x", language=language, voice="fr+f1")) == "fr+f1"


def test_a_call_leaves_nothing_to_the_next(samples: Samples) -> None:
    fields: list[dict[str, Any]] = [
        {"voice": EXACT},
        {"voice": "de+klatt6", "speed": 3.0, "options": {"volume": 40}},
        {"voice": "fr+klatt6", "options": {"pitch": 99}},
        {"voice": EXACT, "speed": 0.5, "options": {"volume": 200, "pitch": 0}},
    ]
    alone = [samples("Hello brave new world", **each).tobytes() for each in fields]
    assert len(set(alone)) == len(alone)
    for shift in range(1, len(fields)):
        rotated = fields[shift:] + fields[:shift]
        mixed = [samples("Hello brave new world", **each).tobytes() for each in rotated]
        assert mixed == alone[shift:] + alone[:shift]


@pytest.mark.parametrize(
    "markup",
    [
        "<speak><prosody pitch='x-high' volume='x-loud' rate='x-fast'>Hello",
        "<speak><voice name='de'>Hello",
        "<speak><prosody range='x-high'>Hello",
        "<speak xml:lang='fr'>Hello",
        "<tts:style field='punctuation' mode='all'>Hello, you.",
    ],
)
def test_markup_left_open_does_not_change_the_next_call(markup: str, samples: Samples) -> None:
    before = samples("Hello, you", voice=EXACT)
    samples(markup, voice=EXACT, options={"ssml": True})
    assert np.array_equal(samples("Hello, you", voice=EXACT), before)


def test_markup_is_refused_unless_the_entry_allows_it(shipped_model: Model) -> None:
    adapter = EspeakSynthesizer(shipped_model)
    for options in ({"ssml": True}, {"ssml": True, "allow_ssml": True}):
        with pytest.raises(InvalidInputError) as caught:
            list(adapter.synthesize(SynthesizeRequest(text="<speak>Hi</speak>", options=options)))
        assert caught.value.param == "ssml"


def test_markup_is_read_only_when_asked_for(samples: Samples) -> None:
    text = "<speak>Hello <break time='2000ms'/> world</speak>"
    plain, marked = samples("Hello world"), samples(text, options={"ssml": True})
    assert 1.8 < (len(marked) - len(plain)) / 22050 < 2.5
    assert loudness(samples(text)[22050 : 2 * 22050]) > 10 * loudness(marked[22050 : 2 * 22050])


def test_markup_plays_no_file_of_the_machine(tmp_path: Path, samples: Samples) -> None:
    path = tmp_path / "secret.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes(np.full(10 * 22050, 9000, "<i2").tobytes())
    audio = samples(f"<speak>Hi <audio src='{path}'>there</audio></speak>", options={"ssml": True})
    assert 0.3 < len(audio) / 22050 < 3


def test_markup_may_not_make_hours_of_silence(speak: Speak) -> None:
    text = "<speak>" + "Hm. <break time='60s'/> " * 30 + "</speak>"
    with pytest.raises(InvalidInputError, match="1200 s"):
        speak(text, options={"ssml": True})
    assert speak("Hello")


@pytest.mark.parametrize("text", ["", " ", "\n\t \u2003"])
def test_nothing_to_say_is_no_chunk(text: str, speak: Speak) -> None:
    assert speak(text) == []


def test_phoneme_brackets_are_read_as_text(samples: Samples) -> None:
    brackets = samples("[[h@l'oU]]", voice=EXACT)
    assert np.array_equal(brackets, samples("[[h@l'oU]]", voice=EXACT))
    assert len(brackets) > 1.5 * len(samples("hello", voice=EXACT))


def test_inline_commands_of_the_library_are_not_obeyed(samples: Samples) -> None:
    assert np.array_equal(samples("\x01400S Hello", voice=EXACT), samples(" 400S Hello", voice=EXACT))


def test_the_pause_between_sentences_survives_a_cut(samples: Samples) -> None:
    sentence = "The weather is very nice today. "
    whole, longer = samples(sentence * 12), samples(sentence * 24)
    single = samples(sentence)
    pause = (len(whole) - 12 * len(single)) / 11
    assert pause > 0.2 * 22050
    assert len(longer) == pytest.approx(24 * len(single) + 23 * pause, rel=0.005)


def test_a_reader_who_stops_does_not_stop_others(adapter: EspeakSynthesizer, model: Model) -> None:
    stuck = adapter.synthesize(SynthesizeRequest(text="Many words, one after the other. " * 2000))
    next(stuck)
    other = EspeakSynthesizer(model).synthesize(SynthesizeRequest(text="Hello"))
    assert sum(len(chunk.pcm) for chunk in other) > 10_000
    assert next(stuck).pcm


def test_closing_the_iterator_stops_the_library(adapter: EspeakSynthesizer, speak: Speak) -> None:
    text = "<speak>" + "Many words, one after the other. " * 400 + "</speak>"
    chunks = adapter.synthesize(SynthesizeRequest(text=text, options={"ssml": True}))
    assert isinstance(chunks, Generator)
    next(chunks)
    call = adapter._engine._call
    assert call is not None
    chunks.close()
    speak("Hello")
    assert call._flushed_bytes < 60 * 22050 * 2
