"""OpenAI's Python client, told to refuse whatever does not match its own models."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from live import Server
from yapit.audio import decode


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", max_retries=0, _strict_response_validation=True
    ) as opened:
        yield opened


def seconds(audio: bytes) -> float:
    return len(decode(audio, sample_rate=16_000)) / 2 / 16_000


def test_speech_in_one_call(client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello, this is yapit.")
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert 1 < seconds(answer.content) < 4


def test_speech_as_it_comes(client: openai.OpenAI, tmp_path: Path) -> None:
    text = "The first sentence is here. " * 10
    with client.audio.speech.with_streaming_response.create(
        model="espeak", voice="en-us", input=text, response_format="opus", speed=1.5
    ) as answer:
        chunks = list(answer.iter_bytes())
    assert len(chunks) > 1
    assert 8 < seconds(b"".join(chunks)) < 25
    with client.audio.speech.with_streaming_response.create(
        model="espeak", voice="en-us", input="To a file.", response_format="wav"
    ) as answer:
        answer.stream_to_file(tmp_path / "out.wav")
    assert seconds((tmp_path / "out.wav").read_bytes()) > 0.4


def test_speech_as_events(client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="espeak", voice="en-us", input="Events.", stream_format="sse")
    assert b"speech.audio.done" in answer.content


def test_a_voice_given_as_an_object(client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="espeak", voice={"id": "de"}, input="Guten Tag.")
    assert seconds(answer.content) > 0.4


def test_models(client: openai.OpenAI) -> None:
    assert "espeak" in [model.id for model in client.models.list()]
    assert client.models.retrieve("espeak").object == "model"
    assert client.models.retrieve("tts-1").id == "espeak"


def test_errors_are_the_clients_own_classes_with_their_fields(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.audio.speech.create(model="esspeak", voice="en-us", input="x")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert "'espeak'" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as voice:
        client.audio.speech.create(model="espeak", voice="en-uz", input="x")
    assert voice.value.param == "voice"
    assert voice.value.request_id
    with pytest.raises(openai.BadRequestError) as speed:
        client.audio.speech.create(model="espeak", voice="en-us", input="x", speed=9)
    assert speed.value.param == "speed"
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(input="x")  # a route that is not there


def test_the_asynchronous_client_may_leave_in_mid_stream(server: Server) -> None:
    import asyncio

    async def leave() -> int:
        async with (
            openai.AsyncOpenAI(base_url=server.url, api_key="unused") as client,
            client.audio.speech.with_streaming_response.create(
                model="espeak", voice="en-us", input="A long sentence to leave. " * 100, response_format="pcm"
            ) as answer,
        ):
            async for chunk in answer.iter_bytes(1024):
                return len(chunk)
        return 0

    assert asyncio.run(leave()) == 1024
    assert server.process.poll() is None
