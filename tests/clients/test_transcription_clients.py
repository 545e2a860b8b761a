"""OpenAI's clients, LiteLLM and Open WebUI send recordings, each in its own way."""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import litellm
import openai
import pytest

from live import Server, serve
from sounds import wav

TEXT = "This is an echo."
SOUND = wav(2.5)


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose default listening model is one without weights."""
    with serve(tmp_path_factory.mktemp("listening"), YAPIT_TRANSCRIPTION_DEFAULT_MODEL="echo") as running:
        yield running


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sounds") / "a.wav"
    path.write_bytes(SOUND)
    return path


@pytest.fixture
def client(listening: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{listening.url}/v1", api_key="unused", max_retries=0, _strict_response_validation=True
    ) as opened:
        yield opened


# ── OpenAI's Python client, told to refuse what does not match its models ─────────────────────────────────────────────
def test_a_file_is_sent_in_every_way_that_the_client_has(client: openai.OpenAI, sound: Path) -> None:
    with sound.open("rb") as opened:
        files: list[Any] = [opened, sound, ("speech.mp3", SOUND), SOUND, io.BytesIO(SOUND)]
        for file in files:
            answer = client.audio.transcriptions.create(model="whisper-1", file=file)
            assert answer.text == TEXT
            assert answer.usage is not None
            assert answer.usage.type == "duration"
            assert answer.usage.seconds == 3


def test_every_form_is_what_the_client_expects(client: openai.OpenAI) -> None:
    def create(form: Any) -> Any:
        return client.audio.transcriptions.create(model="whisper-1", file=SOUND, response_format=form)

    assert create("text") == f"{TEXT}\n"
    assert create("srt") == f"1\n00:00:00,000 --> 00:00:02,500\n{TEXT}\n"
    assert create("vtt") == f"WEBVTT\n\n00:00:00.000 --> 00:00:02.500\n{TEXT}\n"
    verbose = create("verbose_json")
    assert (verbose.duration, verbose.language, verbose.words) == (2.5, "english", None)
    (segment,) = verbose.segments
    assert (segment.start, segment.end, segment.seek, segment.compression_ratio > 0) == (0.0, 2.5, 0, True)


def test_words_and_everything_else_may_be_asked_for(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        model="gpt-4o-transcribe",
        file=SOUND,
        language="de",
        prompt="p",
        response_format="verbose_json",
        temperature=0.2,
        timestamp_granularities=["word", "segment"],
        chunking_strategy={"type": "server_vad", "threshold": 0.5},
    )
    assert answer.words is not None
    assert [word.word for word in answer.words] == TEXT.split()
    assert answer.segments is not None
    assert answer.segments[0].temperature == 0.2
    assert answer.language == "german"


def test_a_stream_is_deltas_and_their_end(client: openai.OpenAI) -> None:
    stream = client.audio.transcriptions.create(model="whisper-1", file=SOUND, stream=True, include=["logprobs"])
    *deltas, done = list(stream)
    assert [delta.type for delta in deltas] == ["transcript.text.delta"]
    assert done.type == "transcript.text.done"
    assert done.text == TEXT
    assert done.usage is not None
    assert done.usage.input_token_details is not None
    assert done.logprobs is not None
    assert [token.token for token in done.logprobs] == TEXT.split()


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's own, of this route
def test_a_translation_is_english(client: openai.OpenAI) -> None:
    assert client.audio.translations.create(model="whisper-1", file=SOUND).text == TEXT
    verbose = client.audio.translations.create(model="whisper-1", file=SOUND, response_format="verbose_json")
    assert verbose.language == "english"
    assert verbose.segments is not None


def test_errors_are_the_clients_own_classes_with_their_fields(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as broken:
        client.audio.transcriptions.create(model="whisper-1", file=b"no audio")
    assert (broken.value.param, broken.value.code) == ("file", "invalid_value")
    with pytest.raises(openai.BadRequestError) as diarized:
        client.audio.transcriptions.create(
            model="whisper-1",
            file=SOUND,
            response_format="diarized_json",
            extra_body={"known_speaker_names": ["agent"], "known_speaker_references": ["data:audio/wav;base64,AAA"]},
        )
    assert (diarized.value.param, diarized.value.code) == ("response_format", "unsupported_value")
    with pytest.raises(openai.APIStatusError) as large:
        client.audio.transcriptions.create(model="whisper-1", file=bytes(30_000_000))
    assert (large.value.status_code, large.value.param) == (413, "file")


# ── others ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_node_client_sends_without_a_length_and_reads_events(
    listening: Server, sound: Path, node: Callable[..., Any]
) -> None:
    seen = node("transcription.mjs", f"{listening.url}/v1", str(sound))
    assert seen["json"]["text"] == TEXT
    assert seen["srt"].startswith("1\n00:00:00,000 --> 00:00:02,500\n")
    assert (len(seen["verbose"]["words"]), len(seen["verbose"]["segments"])) == (4, 1)
    assert [event["type"] for event in seen["events"]] == ["transcript.text.delta", "transcript.text.done"]
    assert seen["events"][1]["text"] == TEXT
    assert seen["translation"]["task"] == "translate"
    assert seen["error"] == {"kind": "BadRequestError", "status": 400, "code": "invalid_value", "param": "file"}


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
@pytest.mark.parametrize("more", [{}, {"response_format": "verbose_json", "timestamp_granularities": ["word"]}])
def test_litellm_transcribes(listening: Server, sound: Path, provider: str, more: dict[str, Any]) -> None:
    with sound.open("rb") as file:
        answer = litellm.transcription(
            f"{provider}/whisper-1", file=file, api_base=f"{listening.url}/v1", api_key="unused", timeout=20, **more
        )
    assert answer.text == TEXT


def test_open_webui_sends_a_form_in_chunks_or_json(listening: Server) -> None:
    """As its router does it: both are its settings; it reads `text`."""
    url = f"{listening.url}/v1/audio/transcriptions"
    form = httpx.Request("POST", url, data={"model": "whisper-1", "language": "en"}, files={"file": ("a.wav", SOUND)})
    body = form.read()

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    headers = {"authorization": "Bearer unused", "content-type": form.headers["content-type"]}
    streamed = httpx.post(url, content=chunks(), headers=headers, timeout=20)
    assert streamed.request.headers["transfer-encoding"] == "chunked"
    audio = {"data": base64.b64encode(SOUND).decode(), "format": "wav"}
    as_json = httpx.post(url, json={"model": "whisper-1", "language": "en", "input_audio": audio}, timeout=20)
    assert streamed.json()["text"] == as_json.json()["text"] == TEXT
