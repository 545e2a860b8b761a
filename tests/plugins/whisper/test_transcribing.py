"""What a Whisper hears of espeak's sentences, and what it makes of the wishes of a request."""

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loops import PATIENCE_S
from models.whisperers import CARELESS, ENGLISH_TEXT, RATE, Load, Say, chirps, hear, save_whisper
from yapit import InvalidInputError, TranscribeRequest, VoiceActivity
from yapit.errors import SettingsError

SENTENCES = [
    ("en", "hello world"),
    ("en", "this is a test"),
    ("en", "open the door"),
    ("en", "turn on the light"),
    ("en", "good morning"),
    ("en", "one two three"),
    ("en", "stop the music"),
    ("en", "what time is it"),
    ("de", "guten morgen"),
    ("de", "wie geht es dir"),
]
VOICES = {"en": "en-us", "de": "de"}
ENGINES = ("transformers", "ctranslate2")


def noise(seconds: float, loud: float) -> bytes:
    sound = np.random.default_rng(0).normal(0, loud, int(seconds * RATE))
    return bytes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


# ── words, languages and times ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("engine", ENGINES)
def test_ten_sentences_are_understood(trained: Path, load: Load, say: Say, engine: str) -> None:
    torch.manual_seed(0)
    ear = load(trained, engine=engine)
    heard = []
    for code, sentence in SENTENCES:
        pcm, rate = say(sentence, VOICES[code])
        (segment,) = hear(ear, pcm, rate)
        assert segment.text.startswith(" ")
        heard.append((segment.language, segment.text.strip()))
        assert segment.start_s == segment.window_start_s == 0
        assert 0 < segment.end_s <= len(pcm) / 2 / rate + 0.1
        assert segment.tokens
        assert segment.average_logprob is not None
        assert -1 < segment.average_logprob < 0
        assert 0 <= (segment.no_speech_probability or 0) < 0.5
        assert 0 < (segment.compression_ratio or 0) < 2.4
        assert (segment.words, segment.token_logprobs) == ((), ())
    assert heard == SENTENCES


@pytest.mark.parametrize("engine", ENGINES)
def test_words_have_their_times_and_places(trained: Path, load: Load, say: Say, engine: str) -> None:
    pcm, rate = say("what time is it")
    (segment,) = hear(load(trained, engine=engine), pcm, rate, word_times=True)
    assert [word.text for word in segment.words] == ["what", "time", "is", "it"]
    for word in segment.words:
        assert segment.text[word.offset : word.offset + len(word.text)] == word.text
    times = [time for word in segment.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= len(pcm) / 2 / rate + 0.02


@pytest.mark.parametrize("engine", ENGINES)
def test_tokens_have_their_log_probabilities(trained: Path, load: Load, say: Say, engine: str) -> None:
    pcm, rate = say("open the door")
    (segment,) = hear(load(trained, engine=engine), pcm, rate, logprobs=True)
    assert "".join(token.text for token in segment.token_logprobs) == segment.text
    assert b"".join(token.data for token in segment.token_logprobs).decode() == segment.text
    assert all(-1 < token.logprob <= 0 for token in segment.token_logprobs)


def test_a_recording_of_another_rate_is_the_same_to_it(trained: Path, load: Load, say: Say) -> None:
    pcm, rate = say("hello world")
    twice = np.repeat(np.frombuffer(pcm, "<i2"), 2).tobytes()
    (segment,) = hear(load(trained), twice, 2 * rate)
    assert segment.text == " hello world"


def test_a_file_is_heard_like_bytes(trained: Path, load: Load, say: Say, tmp_path: Path) -> None:
    pcm, rate = say("good morning")
    file = tmp_path / "pcm"
    file.write_bytes(pcm)
    (segment,) = hear(load(trained), b"", rate, path=str(file))
    assert segment.text == " good morning"


# ── nothing to hear ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("options", [{}, {"vad": True}, {"batched": True}], ids=str)
@pytest.mark.parametrize(
    "pcm",
    [b"", bytes(2), bytes(3000), bytes(2 * RATE * 4), noise(4, 0.3), noise(4, 0.01), chirps(4)],
    ids=["empty", "one sample", "short", "silence", "noise", "murmur", "tones"],
)
def test_where_nobody_speaks_nothing_is_written(trained: Path, load: Load, pcm: bytes, options: Any) -> None:
    assert hear(load(trained), pcm, options=options) == []
    assert hear(load(trained), pcm, options=options, voice_activity=VoiceActivity()) == []


def test_silence_is_nothing_even_unasked(trained: Path, load: Load) -> None:
    assert hear(load(trained), bytes(2 * RATE * 2), options=CARELESS) == []


def test_speech_between_silence_keeps_its_time(trained: Path, load: Load, say: Say) -> None:
    pcm, rate = say("stop the music")
    before = np.zeros(4 * rate, "<i2").tobytes()
    ear = load(trained)
    for fields in ({"options": {"vad": True}}, {"voice_activity": VoiceActivity(prefix_padding_ms=30)}):
        (segment,) = hear(ear, before + pcm + before, rate, **fields)
        assert segment.text  # it learned sentences that begin at once
        assert 3.5 <= segment.start_s < segment.end_s <= 5.3
    assert hear(ear, before + pcm + before, rate, voice_activity=VoiceActivity(threshold=1.0)) == []


# ── languages ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["de", "DE", "de-AT", "de_DE", "German", "german"])
def test_a_language_may_be_named_in_many_ways(trained: Path, load: Load, say: Say, name: str) -> None:
    pcm, rate = say("guten morgen", "de")
    (segment,) = hear(load(trained), pcm, rate, language=name)
    assert (segment.language, segment.text) == ("de", " guten morgen")


def test_the_language_is_the_likeliest_of_those_allowed(trained: Path, load: Load, say: Say) -> None:
    pcm, rate = say("guten morgen", "de")
    ear = load(trained)
    assert hear(ear, pcm, rate, languages=("en", "German", "fr"))[0].language == "de"
    wrong = hear(ear, pcm, rate, languages=("en", "fr"), options=CARELESS)
    assert wrong[0].language in ("en", "fr")
    assert hear(ear, pcm, rate, languages=("fr",), options=CARELESS)[0].language == "fr"


@pytest.mark.parametrize(
    ("fields", "param", "hint"),
    [
        ({"language": "germn"}, "language", "'german'"),
        ({"language": "ja"}, "language", "Known: de, en"),
        ({"languages": ("en", "xx")}, "languages", "Known"),
    ],
)
def test_an_unknown_language_is_refused(trained: Path, load: Load, fields: Any, param: str, hint: str) -> None:
    with pytest.raises(InvalidInputError, match="does not know the language") as error:
        hear(load(trained), chirps(1), **fields)
    assert error.value.param == param
    assert hint in error.value.message


def test_a_model_of_one_language_needs_not_find_it(trained: Path, load: Load, say: Say) -> None:
    pcm, rate = say("hello world")
    assert hear(load(trained, languages=("de",)), pcm, rate, options=CARELESS)[0].language == "de"


# ── English-only, and translation ─────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("english") / "random.en", text=ENGLISH_TEXT)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_english_model_writes_english(english: Path, load: Load, engine: str) -> None:
    ear = load(english, engine=engine)
    assert not ear.engine.is_multilingual
    found = hear(ear, chirps(5), language="en-GB", options=CARELESS)
    assert {segment.language for segment in found} == {"en"}
    with pytest.raises(InvalidInputError, match="knows only English"):
        hear(ear, chirps(5), language="de")
    with pytest.raises(InvalidInputError, match="does not translate") as error:
        hear(ear, chirps(5), translate=True)
    assert error.value.param == "translate"


def test_a_translation_is_asked_for_in_the_prompt(trained: Path, load: Load, asked: Any, say: Say) -> None:
    ear = load(trained)
    pcm, rate = say("guten morgen", "de")
    prompts = asked(ear)
    hear(ear, pcm, rate, translate=True, options=CARELESS)
    hear(ear, pcm, rate, options=CARELESS)
    assert [prompt[-1] for prompt in prompts] == [645, 646]
    for refusing in (load(trained, translates=False),):
        with pytest.raises(InvalidInputError, match="does not translate"):
            hear(refusing, pcm, rate, translate=True)


@pytest.mark.parametrize("name", ["whisper-large-v3-turbo", "distil-large-v3"])
def test_models_that_never_learned_to_translate_are_known_by_name(
    trained: Path, load: Load, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).symlink_to(trained)
    with pytest.raises(InvalidInputError, match="does not translate"):
        hear(load(tmp_path / name), chirps(1), translate=True)


# ── prompts, temperatures, options ────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Listens in on an engine: the prompts, or the options, it is asked with."""

    def of(ear: Any, name: str | None = None) -> list[Any]:
        seen: list[Any] = []
        generate = ear.engine.generate

        def listening(encoded: Any, prompts: Any, **options: Any) -> Any:
            seen.append(prompts[0] if name is None else options.get(name))
            return generate(encoded, prompts, **options)

        monkeypatch.setattr(ear.engine, "generate", listening)
        return seen

    return of


def test_the_prompt_goes_before_the_first_window_and_keywords_before_each(random: Path, load: Load, asked: Any) -> None:
    ear = load(random)
    prompts = asked(ear)
    tokenizer = ear.algorithm.hf_tokenizer
    options = CARELESS | {"beam_size": 1, "condition_on_previous_text": False}
    hear(ear, chirps(45), language="en", prompt=" the world ", keywords=("hello", "speech "), options=options)
    keywords = tokenizer.encode(" hello, speech", add_special_tokens=False).ids
    prompt = tokenizer.encode(" the world", add_special_tokens=False).ids
    assert len(prompts) > 1
    assert prompts[0] == [50361, *keywords, *prompt, 50258, 50259, 50359]
    assert all(each == [50361, *keywords, 50258, 50259, 50359] for each in prompts[1:])


def test_what_was_written_goes_before_the_next_window(random: Path, load: Load, asked: Any) -> None:
    ear = load(random)
    prompts = asked(ear)
    found = hear(ear, chirps(45), language="en", options=CARELESS | {"beam_size": 1})
    (first, *_) = {segment.window_start_s for segment in found}
    written = [token for each in found if each.window_start_s == 0 for token in each.tokens]
    assert first is not None
    assert prompts[1] == [50361, *written, 50258, 50259, 50359]


def test_long_keywords_and_prompts_leave_half_the_room(random: Path, load: Load, asked: Any) -> None:
    ear = load(random)
    prompts = asked(ear)
    words = tuple(f"hello{number}" for number in range(200))
    hear(ear, chirps(31), language="en", prompt="the world " * 300, keywords=words, options=CARELESS | {"beam_size": 1})
    hear(ear, chirps(2), language="en", prompt="the world " * 300, options=CARELESS | {"beam_size": 1})
    assert all(224 < len(prompt) <= 228 for prompt in prompts)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(None, [None, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.0, [None, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.7, [0.7])],
)
def test_unlikely_text_is_tried_at_the_next_temperature(
    random: Path, load: Load, asked: Any, temperature: float | None, expected: list[float | None]
) -> None:
    ear = load(random)
    seen = asked(ear, "sampling_temperature")
    options = CARELESS | {"log_prob_threshold": -0.001, "beam_size": 1, "best_of": 1}
    found = hear(ear, chirps(3), language="en", temperature=temperature, options=options)
    assert seen == expected
    assert {segment.temperature for segment in found} <= {temperature or 1.0}


def test_options_reach_the_engine_and_the_entry_has_defaults(random: Path, load: Load, asked: Any) -> None:
    ear = load(random, defaults={"beam_size": 2, "voice": "ignored"})
    beams, patience = asked(ear, "beam_size"), asked(ear, "repetition_penalty")
    hear(ear, chirps(2), language="en", options=CARELESS)
    hear(ear, chirps(2), language="en", options=CARELESS | {"beam_size": 3, "repetition_penalty": 1.5})
    assert (beams, patience) == ([2, 3], [1.0, 1.5])


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"options": {"beam_sise": 2}}, "options.beam_sise", "Did you mean 'beam_size'"),
        ({"options": {"beam_size": 0}}, "options.beam_size", ">= 1"),
        ({"options": {"batched": "yes"}}, "options.batched", "bool"),
        ({"options": {"no_speech_threshold": 2}}, "options.no_speech_threshold", "<= 1"),
        ({"options": {"hallucination_silence_threshold": 1}}, "options.hallucination_silence_threshold", "word times"),
        ({"options": {"batched": True}, "logprobs": True}, "include", "together"),
        ({"temperature": 3.0}, "temperature", "between 0 and 2"),
        ({"temperature": -1.0}, "temperature", "between 0 and 2"),
    ],
)
def test_a_bad_wish_is_refused(trained: Path, load: Load, fields: Any, param: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        hear(load(trained), chirps(1), **fields)
    assert error.value.param == param
    assert says in error.value.message


def test_a_bad_entry_is_refused(trained: Path, load: Load) -> None:
    with pytest.raises(SettingsError, match=r"unknown option 'engin'. Did you mean 'engine'"):
        load(trained, engin="auto")
    with pytest.raises(SettingsError, match="Invalid enum value"):
        load(trained, engine="fast")


# ── stopping ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("engine", ENGINES)
def test_what_nobody_waits_for_stops_before_the_next_window(
    random: Path, load: Load, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    ear = load(random, engine=engine)
    entered, go_on = threading.Event(), threading.Event()
    encoded, written = [], []
    encode, generate = ear.engine.encode, ear.engine.generate

    def encoding(features: Any, **options: Any) -> Any:
        encoded.append(features.shape)
        made = encode(features, **options)
        entered.set()
        assert go_on.wait(PATIENCE_S)
        return made

    def generating(*arguments: Any, **options: Any) -> Any:
        written.append(generate(*arguments, **options))
        return written[-1]

    monkeypatch.setattr(ear.engine, "encode", encoding)
    monkeypatch.setattr(ear.engine, "generate", generating)

    async def main() -> None:
        request = TranscribeRequest(pcm=chirps(90), sample_rate=RATE, language="en", options=CARELESS)

        async def read() -> None:
            async with aclosing(ear.transcribe(request)) as segments:
                async for _ in segments:
                    pass

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            await asyncio.to_thread(entered.wait, PATIENCE_S)
            reading.cancel()
            asyncio.get_running_loop().call_soon(go_on.set)

    asyncio.run(main())
    assert (len(encoded), written) == (1, [])
    # And the next call finds everything in order.
    assert hear(ear, chirps(3), language="en", options=CARELESS)
