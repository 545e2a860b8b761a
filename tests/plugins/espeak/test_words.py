from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from yapit import AudioChunk, Word
from yapit_plugin_espeak.engine import Mark
from yapit_plugin_espeak.library import EVENT_CLAUSE_END, EVENT_WORD, SAMPLE_RATE
from yapit_plugin_espeak.words import WordTracker

Speak = Callable[..., list[AudioChunk]]


def word(position: int, time_s: float) -> Mark:
    return Mark(EVENT_WORD, position, round(time_s * SAMPLE_RATE))


def end(position: int, time_s: float) -> Mark:
    return Mark(EVENT_CLAUSE_END, position, round(time_s * SAMPLE_RATE))


def texts(words: tuple[Word, ...]) -> list[str]:
    return [word.text for word in words]


def test_a_word_is_told_when_its_end_is_known() -> None:
    tracker = WordTracker("Big cat.", offset=10, start=2 * SAMPLE_RATE)
    assert tracker.hear([word(1, 0.0)]) == ()
    assert tracker.hear([word(5, 0.5)]) == (Word(text="Big", start_s=2.0, end_s=2.5, offset=10),)
    assert tracker.hear([end(8, 1.0)]) == (Word(text="cat", start_s=2.5, end_s=3.0, offset=14),)


def test_marks_inside_a_word_do_not_split_it() -> None:
    marks = [word(1, 0), word(2, 0.2), word(2, 0.4), word(6, 0.6), word(10, 0.8), end(13, 1)]
    assert texts(WordTracker("1984 don't (I)", 0, 0).hear(marks)) == ["1984", "don't"]


def test_a_number_marked_one_digit_late_is_whole() -> None:
    assert texts(WordTracker("12345 end", 0, 0).hear([word(2, 0), word(1, 0.1), word(7, 1), end(9, 2)])) == [
        "12345",
        "end",
    ]


def test_a_mark_on_a_space_belongs_to_the_word_before() -> None:
    words = WordTracker("😀 hi", 0, 0).hear([word(1, 0), word(2, 0.3), word(3, 0.6), end(4, 1)])
    assert [(found.text, found.end_s) for found in words] == [("😀", pytest.approx(0.6, abs=1e-4)), ("hi", 1.0)]


def test_punctuation_is_no_word_and_no_part_of_one() -> None:
    marks = [word(2, 0), word(8, 0.5), word(11, 0.7), end(13, 1)]
    assert texts(WordTracker('"Yes," - (no)', 0, 0).hear(marks)) == ["Yes", "no"]


def test_han_characters_are_words_of_their_own() -> None:
    marks = [word(1, 0), word(2, 0.2), end(3, 0.4), word(4, 0.4), word(5, 0.6), end(7, 1)]
    assert texts(WordTracker("你好，世abc", 0, 0).hear(marks)) == ["你", "好", "世", "abc"]  # noqa: RUF001 - Chinese


def test_what_stands_between_two_han_characters_belongs_to_the_first() -> None:
    assert texts(WordTracker("你8世", 0, 0).hear([word(1, 0), word(3, 0.2), end(3, 0.4)])) == ["你8", "世"]


@given(
    st.text(alphabet="ab. ,1你\u200d😀", max_size=12),
    st.lists(st.tuples(st.sampled_from([EVENT_WORD, EVENT_CLAUSE_END]), st.integers(-1, 14), st.integers(-5, 9999))),
)
def test_whatever_the_marks_words_are_in_order(text: str, marks: list[tuple[int, int, int]]) -> None:
    words = WordTracker(text, 0, 0).hear(Mark(*mark) for mark in marks)
    assert_sound(text, list(words), total_s=1.0)


def assert_sound(text: str, words: list[Word], total_s: float) -> None:
    position, time_s = 0, 0.0
    for found in words:
        assert found.text
        assert found.text.strip() == found.text
        assert text[found.offset : found.offset + len(found.text)] == found.text
        assert found.offset >= position
        assert time_s <= found.start_s <= found.end_s <= total_s + 1e-9
        position, time_s = found.offset + len(found.text), found.end_s


CASES = {
    "en-us": ("Größe 😀 costs $5.50, doesn't it? “Yes.”", "Größe 😀 costs $5.50 doesn't it Yes"),
    "de": ("Die Straße ist über 12,5 km lang.", "Die Straße ist über 12,5 km lang"),
    "cmn": ("你好，世界。", "你 好 世 界"),  # noqa: RUF001 - Chinese
    "ar": ("مرحبا بالعالم", "مرحبا بالعالم"),
    "hi": ("नमस्ते दुनिया।", "नमस्ते दुनिया"),
    "ko": ("안녕하세요 세계", "안녕하세요 세계"),
}


@pytest.mark.parametrize("voice", CASES)
def test_spoken_words_are_those_of_the_text(voice: str, speak: Speak) -> None:
    text, expected = CASES[voice]
    chunks = speak(text, voice=voice)
    words = [word for chunk in chunks for word in chunk.words]
    assert_sound(text, words, sum(len(chunk.pcm) for chunk in chunks) / 2 / SAMPLE_RATE)
    spoken = "".join(word.text for word in words)
    assert spoken in expected.replace(" ", "")
    assert len(spoken) >= 0.8 * len(expected.replace(" ", ""))


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0, 4.0])
def test_a_word_starts_where_it_is_heard(speed: float, speak: Speak) -> None:
    text = "Stop. " * 5 + "Go."
    chunks = speak(text, speed=speed)
    audio = np.frombuffer(b"".join(chunk.pcm for chunk in chunks), "<i2").astype(float)
    words = [word for chunk in chunks for word in chunk.words]
    assert_sound(text, words, len(audio) / SAMPLE_RATE)
    assert len(words) == 6
    for found in words[1:]:
        start, some = round(found.start_s * SAMPLE_RATE), SAMPLE_RATE // 25
        assert loudness(audio[start - some : start]) < 0.2 * loudness(audio[start : start + 4 * some])


def loudness(audio: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(audio**2)))


def test_words_keep_their_place_across_the_pieces_of_a_long_text(speak: Speak) -> None:
    text = "The quick brown fox jumps over it. " * 40
    chunks = speak(text)
    words = [word for chunk in chunks for word in chunk.words]
    total_s = sum(len(chunk.pcm) for chunk in chunks) / 2 / SAMPLE_RATE
    assert_sound(text, words, total_s)
    assert [word.text for word in words] == text.replace(".", "").split()
    assert words[-1].end_s == pytest.approx(total_s, abs=0.01)


def test_words_of_marked_up_text_stand_in_the_marked_up_text(speak: Speak) -> None:
    text = "<speak>Hello <b>brave</b> world</speak>"
    words = [word for chunk in speak(text, options={"ssml": True}) for word in chunk.words]
    assert [(word.text, word.offset) for word in words] == [("Hello", 7), ("brave", 16), ("world", 26)]
