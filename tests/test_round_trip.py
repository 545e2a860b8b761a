"""Speech made by yapit is understood by a recognizer: the whole way, over HTTP and from the command line."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from live import YAPIT, Server, serve
from recognizer import hear, hear_one_of, normalised, word_error_rate
from yapit.audio import FORMATS, decode

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Please call me back tomorrow morning at seven.",
    "The weather is very nice today.",
    "We need to buy some bread and milk.",
    "Open the door and turn on the light.",
    "Can you hear me now?",
    "The meeting will start in the afternoon.",
    "I would like to have a cup of coffee.",
    "This sentence was spoken by a machine.",
    "The train arrives at the station in ten minutes.",
]
# Clear enough for a model of the whole language, and slow enough.
VOICE, SPEED = "en-us+klatt4", 160 / 175
RATE = 16_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("heard")) as running:
        yield running


def spoken(server: Server, text: str, **fields: object) -> bytes:
    """Return what the server says as PCM at 16 kHz."""
    body = {"model": "espeak", "voice": "en-us", "input": text, "response_format": "wav"} | fields
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body)
    assert answer.status_code == 200
    return decode(answer.content, sample_rate=RATE)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pcm"])
def test_a_sentence_survives_every_format(server: Server, name: str) -> None:
    text = SENTENCES[1]
    assert hear_one_of(spoken(server, text, response_format=name), RATE, SENTENCES) == normalised(text)


@pytest.mark.parametrize("text", SENTENCES)
def test_each_sentence_is_told_from_the_others(server: Server, text: str) -> None:
    assert hear_one_of(spoken(server, text), RATE, SENTENCES) == normalised(text)


def test_two_thirds_of_the_words_are_understood_without_a_hint(server: Server) -> None:
    heard = [hear(spoken(server, text, voice=VOICE, speed=SPEED), RATE) for text in SENTENCES]
    assert word_error_rate(" ".join(SENTENCES), " ".join(heard)) < 0.35


def test_sentences_joined_by_seams_lose_no_word(server: Server) -> None:
    text = " ".join(SENTENCES[2:6])
    heard = hear(spoken(server, text, voice=VOICE, speed=SPEED), RATE)
    assert word_error_rate(text, heard) < 0.45


def test_the_command_line_speaks_as_well(tmp_path: Path) -> None:
    text = SENTENCES[0]
    subprocess.run([YAPIT, "speak", text, "-o", "out.mp3"], cwd=tmp_path, check=True, timeout=30)
    heard = hear_one_of(decode((tmp_path / "out.mp3").read_bytes(), sample_rate=RATE), RATE, SENTENCES)
    assert heard == normalised(text)
