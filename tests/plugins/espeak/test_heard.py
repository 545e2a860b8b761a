from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from recognizer import hear, hear_one_of, normalised, word_error_rate

Samples = Callable[..., NDArray[np.int16]]
SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Hello world, this is a test of the speech server.",
    "Please call me back tomorrow morning at seven.",
    "The weather is very nice today.",
    "She sells sea shells by the sea shore.",
    "We need to buy some bread and milk.",
    "Open the door and turn on the light.",
    "My name is John and I live in New York.",
    "Can you hear me now?",
    "One two three four five six seven eight nine ten.",
    "The meeting will start in the afternoon.",
    "I would like to have a cup of coffee.",
    "This sentence was spoken by a machine.",
    "Music and art are important for children.",
    "The train arrives at the station in ten minutes.",
]


@pytest.mark.parametrize("voice", ["en-us", "en-us+klatt4"])
def test_every_sentence_is_told_from_the_others(voice: str, samples: Samples) -> None:
    heard = [hear_one_of(samples(text, voice=voice).tobytes(), 22050, SENTENCES) for text in SENTENCES]
    assert heard == [normalised(text) for text in SENTENCES]


def test_two_thirds_of_the_words_are_understood_without_a_hint(samples: Samples) -> None:
    heard = [hear(samples(text, voice="en-us+klatt4", speed=160 / 175).tobytes(), 22050) for text in SENTENCES]
    assert word_error_rate(" ".join(SENTENCES), " ".join(heard)) < 0.35


def test_silence_is_heard_as_nothing() -> None:
    assert hear_one_of(bytes(22050), 22050, SENTENCES) == ""


@pytest.mark.parametrize(
    ("reference", "heard", "rate"),
    [("a b c d", "a b c d", 0), ("a b c d", "a x c", 0.5), ("A, b.", "a b b", 0.5), ("a", "", 1)],
)
def test_the_error_rate_counts_words(reference: str, heard: str, rate: float) -> None:
    assert word_error_rate(reference, heard) == rate
