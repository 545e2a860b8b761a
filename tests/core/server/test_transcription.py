"""POST /v1/audio/transcriptions and /v1/audio/translations over HTTP: every form of the answer, and its events."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from live import DEADLINE_S, Server, serve, until
from sounds import flac_of_silence, video_only, wav

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
MODELS = """
models:
  - {id: three, backend: echo, tasks: [transcribe], options: {segments: 3}}
  - {id: silent, backend: echo, tasks: [transcribe], options: {silence: true}}
  - {id: german, backend: echo, tasks: [transcribe], languages: [de], options: {silence: true}}
  - {id: failing, backend: echo, tasks: [transcribe], options: {segments: 2, fail: true}}
  - {id: stuck, backend: echo, tasks: [transcribe], options: {delay_s: 60}}
  - id: whole
    backend: echo
    tasks: [transcribe]
    options:
      answer:
        - text: " Hello --> <world> & all."
          start_s: 30.5
          end_s: 59.9996
          language: fr
          tokens: [1, 2, 3]
          window_start_s: 28.5
          temperature: 0.2
          average_logprob: -0.25
          compression_ratio: 1.5
          no_speech_probability: 0.125
          words: [{text: " Hello", start_s: 30.5, end_s: 31.25, offset: 1}]
        - {text: "  ", start_s: 60, end_s: 61}
        - {text: " aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ", start_s: 3725.25, end_s: 3725.0, average_logprob: -.inf}
  - {id: timeless, backend: echo, tasks: [transcribe], options: {answer: [{text: x, start_s: .nan, end_s: 1}]}}
  - {id: mute, backend: echo, tasks: [embed]}
"""
SOUND = wav(2.5)
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("listening")
    (folder / "models.yaml").write_text(MODELS)
    # Where everybody who runs the tests finds a default.
    with serve(folder, YAPIT_TRANSCRIPTION_DEFAULT_MODEL="echo", YAPIT_TRANSCRIPTION_MAX_AUDIO_S="3600") as running:
        yield running


@pytest.fixture
def ask(listening: Server) -> Ask:
    def post(sound: bytes = SOUND, path: str = TRANSCRIPTIONS, **fields: Any) -> httpx.Response:
        data = {"model": "whisper-1", **fields}
        return httpx.post(f"{listening.url}{path}", data=data, files={"file": ("a.wav", sound)}, timeout=20)

    return post


@pytest.fixture
def check(openai_schema: dict[str, Any]) -> Callable[[str, Any], None]:
    def validate(name: str, value: object) -> None:
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", **openai_schema})

    return validate


Check = Callable[[str, Any], None]


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = answer.text.split("\n\n")
    assert frames.pop() == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


# ── forms of the answer ───────────────────────────────────────────────────────────────────────────────────────────────
def test_json_is_the_default(ask: Ask, check: Check) -> None:
    answer = ask()
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"text": "This is an echo.", "usage": {"type": "duration", "seconds": 3}}
    check("CreateTranscriptionResponseJson", answer.json())
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_the_text_of_all_segments_is_joined_and_stripped(ask: Ask) -> None:
    answer = ask(model="three", response_format="text")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "This is an echo. This is an echo. This is an echo.\n"
    assert ask(model="whole", response_format="text").text == f"Hello --> <world> & all.   {'a' * 30}\n"


def test_subtitles_are_numbered_carried_over_and_have_no_arrow_in_their_text(ask: Ask) -> None:
    srt, vtt = (ask(model="whole", response_format=form) for form in ("srt", "vtt"))
    assert srt.headers["content-type"] == vtt.headers["content-type"] == "text/plain; charset=utf-8"
    assert srt.text == (
        f"1\n00:00:30,500 --> 00:01:00,000\nHello -> <world> & all.\n\n2\n01:02:05,250 --> 01:02:05,250\n{'a' * 30}\n"
    )
    assert vtt.text == (
        "WEBVTT\n\n00:00:30.500 --> 00:01:00.000\nHello -&gt; &lt;world&gt; &amp; all.\n\n"
        f"01:02:05.250 --> 01:02:05.250\n{'a' * 30}\n"
    )


def test_the_verbose_form_has_what_the_model_said(ask: Ask, check: Check) -> None:
    body = ask(model="whole", response_format="verbose_json").json()
    check("CreateTranscriptionResponseVerboseJson", body)
    first, blank, last = body.pop("segments")
    assert body == {
        "task": "transcribe",
        "language": "french",
        "duration": 2.5,
        "text": f"Hello --> <world> & all.   {'a' * 30}",
        "usage": {"type": "duration", "seconds": 3},
    }
    assert first == {
        "id": 0,
        "seek": 2850,
        "start": 30.5,
        "end": 60.0,
        "text": " Hello --> <world> & all.",
        "tokens": [1, 2, 3],
        "temperature": 0.2,
        "avg_logprob": -0.25,
        "compression_ratio": 1.5,
        "no_speech_prob": 0.125,
    }
    assert (blank["id"], last["id"], last["seek"]) == (1, 2, 372_000)
    assert (last["temperature"], last["avg_logprob"], last["no_speech_prob"]) == (0.0, -9999.0, 0.0)
    assert last["compression_ratio"] == pytest.approx(32 / 12, abs=0.3)
    assert set(last) == set(first)


@pytest.mark.parametrize(
    ("asked", "words", "segments"),
    [([], None, 3), (["segment"], None, 3), (["word"], 12, None), (["word", "segment"], 12, 3)],
)
def test_words_and_segments_are_there_when_they_are_asked_for(
    ask: Ask, check: Check, asked: list[str], words: int | None, segments: int | None
) -> None:
    body = ask(model="three", response_format="verbose_json", **{"timestamp_granularities[]": asked}).json()
    check("CreateTranscriptionResponseVerboseJson", body)
    assert [None if body.get(name, 0) == 0 else len(body[name]) for name in ("words", "segments")] == [words, segments]
    assert "words" in body or words is None
    if words:
        assert body["words"][0] == {"word": "This", "start": 0.0, "end": 0.208}


def test_a_translation_is_english_whatever_was_heard(ask: Ask, check: Check) -> None:
    body = ask(path=TRANSLATIONS, language="german", response_format="verbose_json").json()
    check("CreateTranslationResponseVerboseJson", body)
    assert (body["task"], body["language"]) == ("translate", "english")
    check("CreateTranslationResponseJson", ask(path=TRANSLATIONS).json())
    # Nothing else is streamed there.
    assert ask(path=TRANSLATIONS, stream="true").headers["content-type"] == "application/json"


def test_the_language_is_what_was_heard_or_asked_for_or_the_only_one(ask: Ask) -> None:
    def language(**fields: str) -> str:
        name: str = ask(response_format="verbose_json", **fields).json()["language"]
        return name

    assert language(language="pt-BR") == "portuguese"
    assert language(model="whole", language="de") == "french"
    assert language(model="silent", language="de") == "german"
    assert language(model="german") == "german"
    assert language(model="silent") == "unknown"


def test_silence_is_an_empty_transcript_in_every_form(ask: Ask, check: Check) -> None:
    said = {form: ask(model="silent", response_format=form) for form in ("json", "text", "srt", "vtt", "verbose_json")}
    assert {answer.status_code for answer in said.values()} == {200}
    assert (said["text"].text, said["srt"].text, said["vtt"].text) == ("\n", "", "WEBVTT\n")
    assert said["json"].json()["text"] == ""
    check("CreateTranscriptionResponseVerboseJson", said["verbose_json"].json())
    assert said["verbose_json"].json()["segments"] == []
    (done,) = events(ask(model="silent", stream="true"))
    assert done["text"] == ""


# ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("form", ["json", "text"])
def test_each_segment_is_an_event_and_together_they_are_the_text(ask: Ask, check: Check, form: str) -> None:
    answer = ask(model="whole", stream="true", response_format=form)
    *deltas, done = events(answer)
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    for delta in deltas:
        check("TranscriptTextDeltaEvent", delta)
    check("TranscriptTextDoneEvent", done)
    assert len(deltas) == 2
    assert "".join(delta["delta"] for delta in deltas) == done["text"] == f"Hello --> <world> & all.   {'a' * 30}"
    assert done["usage"] == {
        "type": "tokens",
        "input_tokens": 25,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 25},
        "output_tokens": 4,
        "total_tokens": 29,
    }
    assert all("logprobs" not in event for event in (*deltas, done))


def test_events_have_log_probabilities_where_they_are_asked_for(ask: Ask, check: Check) -> None:
    *deltas, done = events(ask(model="three", stream="true", **{"include[]": "logprobs"}))
    assert [len(delta["logprobs"]) for delta in deltas] == [4, 4, 4]
    assert len(done["logprobs"]) == 12
    assert deltas[0]["logprobs"][0] == {"token": "This", "logprob": 0.0, "bytes": list(b"This")}
    check("TranscriptTextDoneEvent", done)


@pytest.mark.parametrize("form", ["srt", "vtt", "verbose_json"])
def test_what_cannot_be_streamed_comes_whole(ask: Ask, form: str) -> None:
    assert ask(stream="true", response_format=form).content == ask(response_format=form).content


def test_an_error_has_a_status_or_is_an_event_where_there_was_one_before(ask: Ask) -> None:
    answer = ask(model="failing")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    first, last = events(ask(model="failing", stream="true"))
    assert first["delta"] == "This is an echo."
    assert last["error"]["message"] == "The echo model was told to fail."
    assert ask(model="timeless").json()["error"]["code"] == "backend_error"
    refused = ask(model="mute").json()["error"]
    assert (refused["code"], refused["param"]) == ("unsupported_task", "model")


# ── recordings ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("sound", "code", "says"),
    [
        (b"", "invalid_value", "the file is empty"),
        (b"no audio at all" * 100, "invalid_value", "is not audio in a format"),
        (SOUND[:44], "invalid_value", "without any sound"),
        (SOUND[:100], "audio_too_short", "0.00175 s, and 0.1 s is the least"),
        (wav(1 / 16_000), "audio_too_short", "too short"),
        (video_only(), "invalid_value", "no audio stream"),
        (wav(0.5, channels=65), "invalid_value", "65 channels"),
        (flac_of_silence(3610), "audio_too_long", "longer than 3600 s"),
    ],
    ids=["empty", "text", "header", "truncated", "one sample", "video", "channels", "bomb"],
)
def test_a_file_without_speech_to_hear_is_refused_with_the_reason(ask: Ask, sound: bytes, code: str, says: str) -> None:
    answer = ask(sound)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "file", code)
    assert says in error["message"]
    assert error["message"].startswith("Invalid 'file': ")


def test_what_can_be_decoded_is_heard(ask: Ask) -> None:
    assert ask(wav(0.5, channels=24), response_format="verbose_json").json()["duration"] == 0.5
    half = SOUND[: len(SOUND) // 2]
    assert ask(half, response_format="verbose_json").json()["duration"] == pytest.approx(1.25, abs=0.01)


def test_the_names_and_addresses_of_openai_are_there(ask: Ask) -> None:
    for model in ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"):
        assert ask(model=model, path=TRANSCRIPTIONS.removeprefix("/v1")).status_code == 200
    assert ask(path=TRANSLATIONS.removeprefix("/v1")).status_code == 200


def test_seconds_are_counted(ask: Ask, listening: Server) -> None:
    def heard() -> float:
        found = re.search(
            r'yapit_audio_seconds_total{model="three".*} (\S+)', httpx.get(f"{listening.url}/metrics").text
        )
        return float(found[1]) if found else 0.0

    before = heard()
    ask(model="three")
    assert heard() - before == pytest.approx(2.5)


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("environ", "headers", "limit"),
    [
        ({"YAPIT_TRANSCRIPTION_MIN_TIMEOUT_S": "0.2", "YAPIT_TRANSCRIPTION_TIMEOUT_FACTOR": "0.01"}, {}, "0.2 s"),
        ({"YAPIT_TRANSCRIPTION_MIN_TIMEOUT_S": "0.1", "YAPIT_TRANSCRIPTION_TIMEOUT_FACTOR": "0.12"}, {}, "0.3 s"),
        ({}, {"x-yapit-timeout": "0.4"}, "0.4 s"),
        ({"YAPIT_SERVER_TIMEOUT_S": "0.4", "YAPIT_TRANSCRIPTION_TIMEOUT_FACTOR": "0"}, {}, "0.4 s"),
    ],
    ids=["least", "factor", "client", "server"],
)
def test_a_transcription_has_the_time_that_its_recording_deserves(
    tmp_path: Path, environ: dict[str, str], headers: dict[str, str], limit: str
) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, **environ) as server:
        answer = httpx.post(
            f"{server.url}{TRANSCRIPTIONS}",
            data={"model": "stuck"},
            files={"file": SOUND},
            headers=headers,
            timeout=DEADLINE_S,
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert f"longer than {limit}" in answer.json()["error"]["message"]
        assert until(lambda: httpx.get(f"{server.url}/health").json()["running"] == 0)


# ── cache ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_short_recordings_are_answered_from_the_cache_and_long_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, YAPIT_CACHE_ENABLED="true", YAPIT_CACHE_SINGLE_FLIGHT="true") as server:

        def outcomes(sound: bytes) -> list[str | None]:
            return [
                httpx.post(
                    f"{server.url}{TRANSCRIPTIONS}", data={"model": "three"}, files={"file": sound}, timeout=DEADLINE_S
                ).headers.get("x-yapit-cache")
                for _ in range(2)
            ]

        assert outcomes(SOUND) == ["miss", "hit"]
        assert outcomes(wav(130)) == [None, None]
