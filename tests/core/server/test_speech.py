"""POST /v1/audio/speech, its events and its timestamps, over HTTP."""

import base64
import io
import itertools
import json
import wave
from typing import Any

import httpx
import jsonschema
import pytest

from live import Server, until
from yapit.audio import FORMATS, decode
from yapit.server import speech as routes

SPEECH = "/v1/audio/speech"
TIMESTAMPS = "/v1/audio/speech/timestamps"
TEXT = "This is the first sentence. Here is another one, with a clause; and it goes on. Is this the third? Yes!"
SECONDS = {"model": "second", "input": "One second."}


def pcm_seconds(client: httpx.Client, body: dict[str, Any]) -> float:
    answer = client.post(SPEECH, json=body | {"response_format": "pcm"})
    assert answer.status_code == 200
    return len(answer.content) / 2 / 24_000


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = answer.text.split("\n\n")
    assert frames.pop() == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_decodes_to_the_duration_of_the_pcm(client: httpx.Client, name: str, *, stream: bool) -> None:
    body = {"model": "espeak", "input": TEXT, "voice": "en-us", "stream": stream}
    wanted = pcm_seconds(client, body)
    answer = client.post(SPEECH, json=body | {"response_format": name})
    assert answer.headers["content-type"] == FORMATS[name].media_type
    assert ("content-length" in answer.headers) is not stream
    pcm = answer.content if name == "pcm" else decode(answer.content, sample_rate=24_000)
    assert len(pcm) / 2 / 24_000 == pytest.approx(wanted, rel=0.02)
    assert wanted > 4


def test_a_streamed_wav_opens_and_a_complete_one_has_exact_sizes(client: httpx.Client) -> None:
    for stream in (True, False):
        content = client.post(SPEECH, json=SECONDS | {"response_format": "wav", "stream": stream}).content
        with wave.open(io.BytesIO(content)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
            assert stream or file.getnframes() == 24_000
            assert len(file.readframes(1 << 20)) == 48_000


def test_mp3_is_the_default(client: httpx.Client) -> None:
    assert client.post(SPEECH, json=SECONDS).headers["content-type"] == "audio/mpeg"


def test_the_formats_of_the_schema_are_the_ones_there_are() -> None:
    assert set(routes.AudioFormat.__args__) == set(FORMATS)  # type: ignore[attr-defined]  # a Literal has its values


def test_events_carry_all_the_audio_and_true_usage(client: httpx.Client) -> None:
    body = {"model": "echo", "input": TEXT, "response_format": "pcm"}
    whole = client.post(SPEECH, json=body).content
    *deltas, done = events(client.post(SPEECH, json=body | {"stream_format": "sse"}))
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert all(set(event) == {"type", "audio"} for event in deltas)
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == whole
    assert done["type"] == "speech.audio.done"
    usage = done["usage"]
    seconds = len(whole) / 2 / 24_000
    assert usage["input_tokens"] == usage["input_characters"] == len(TEXT)
    assert usage["audio_seconds"] == pytest.approx(seconds, abs=0.01)
    assert usage["output_tokens"] == pytest.approx(seconds * 20, abs=1)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize(("model", "source"), [("espeak", "native"), ("echo", "estimated")])
def test_word_times_are_the_same_in_events_json_and_the_speech_route(
    client: httpx.Client, model: str, source: str
) -> None:
    body = {"model": model, "input": TEXT, "response_format": "pcm"}
    timed = client.post(TIMESTAMPS, json=body).json()
    asked = client.post(SPEECH, json=body | {"return_timestamps": True}).json()
    *deltas, done = events(client.post(SPEECH, json=body | {"return_timestamps": True, "stream_format": "sse"}))
    # espeak's voice flutters: it never says a thing twice to the very sample.
    assert asked["duration"] == pytest.approx(timed["duration"], abs=0.02)
    streamed = [word for event in deltas for word in event.get("words", [])]
    for words in (asked["words"], streamed):
        assert [(w["word"], w["offset"]) for w in words] == [(w["word"], w["offset"]) for w in timed["words"]]
        assert [w["start"] for w in words] == pytest.approx([w["start"] for w in timed["words"]], abs=0.02)
    assert timed["word_source"] == done["word_source"] == source
    audio = base64.b64decode(timed["audio"])
    assert timed["duration"] == pytest.approx(len(audio) / 2 / 24_000, abs=0.01)
    words = timed["words"]
    assert [word["word"] for word in words][:5] == ["This", "is", "the", "first", "sentence"]
    assert [word["word"] for word in words][-1] == "Yes"
    assert all(TEXT[word["offset"] :].startswith(word["word"]) for word in words)
    assert all(0 <= word["start"] <= word["end"] <= timed["duration"] + 0.01 for word in words)
    assert all(word["end"] <= following["start"] + 0.01 for word, following in itertools.pairwise(words))


@pytest.mark.parametrize("speed", [0.5, 2.0])
@pytest.mark.parametrize("model", ["espeak", "echo"])
def test_speed_changes_the_length_and_the_words_follow(client: httpx.Client, model: str, speed: float) -> None:
    body = {"model": model, "input": TEXT, "response_format": "pcm"}
    normal = client.post(TIMESTAMPS, json=body).json()
    changed = client.post(TIMESTAMPS, json=body | {"speed": speed}).json()
    # espeak's pauses shrink faster than its speech.
    assert changed["duration"] == pytest.approx(normal["duration"] / speed, rel=0.2)
    assert changed["words"][-1]["start"] == pytest.approx(normal["words"][-1]["start"] / speed, rel=0.2)
    assert changed["words"][-1]["end"] <= changed["duration"] + 0.01


def test_subtitles_by_post_and_by_link(client: httpx.Client) -> None:
    posted = client.post(TIMESTAMPS, json={"model": "espeak", "input": TEXT, "response_format": "srt"})
    linked = client.get(TIMESTAMPS, params={"model": "espeak", "input": TEXT, "response_format": "vtt"})
    assert posted.headers["content-type"].startswith("text/plain")
    assert posted.text.startswith("1\n00:00:00,")
    assert " --> " in posted.text
    assert linked.headers["content-type"].startswith("text/vtt")
    assert linked.text.startswith("WEBVTT\n\n00:00:00.")
    assert "first sentence" in linked.text


def test_voices_by_name_by_id_by_map_and_in_any_case(client: httpx.Client) -> None:
    def spoken(voice: object) -> bytes:
        return client.post(SPEECH, json=SECONDS | {"model": "echo", "voice": voice, "response_format": "pcm"}).content

    assert spoken("low") == spoken("LOW") == spoken({"id": "low"}) == spoken(None)
    assert spoken("nova") == spoken("NoVa") == spoken("high") != spoken("low")


def test_aliases_and_unprefixed_routes(client: httpx.Client) -> None:
    for model in ("tts-1", "tts-1-hd", "gpt-4o-mini-tts"):
        answer = client.post("/audio/speech", json={"model": model, "input": "hi", "voice": "alloy"})
        assert answer.status_code == 200
    assert client.post(SPEECH, json={"model": "slashed", "input": "hi", "response_format": "pcm"}).status_code == 200


def test_an_error_in_mid_stream_ends_short_or_comes_as_an_event(client: httpx.Client) -> None:
    body = {"model": "failing", "input": "x", "response_format": "pcm"}
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        client.post(SPEECH, json=body)
    *_, last = events(client.post(SPEECH, json=body | {"stream_format": "sse"}))
    assert last["error"]["type"] == "server_error"
    assert last["error"]["message"] == "The echo model was told to fail."
    assert client.post(SPEECH, json=body | {"stream": False}).status_code == 500


def test_every_answer_has_an_id_and_takes_the_clients(client: httpx.Client) -> None:
    first, second = (client.post(SPEECH, json=SECONDS).headers["x-request-id"] for _ in range(2))
    assert first != second
    assert first.startswith("req_")
    given = client.post(SPEECH, json=SECONDS, headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    assert int(given.headers["openai-processing-ms"]) >= 0
    strange = client.post(SPEECH, json=SECONDS, headers={"x-request-id": "has a space"})
    assert strange.headers["x-request-id"].startswith("req_")


def test_our_json_is_what_the_specification_says(client: httpx.Client, openai_schema: dict[str, Any]) -> None:
    def check(name: str, value: object) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", **openai_schema}
        jsonschema.validate(value, schema)

    *deltas, done = events(client.post(SPEECH, json=SECONDS | {"stream_format": "sse"}))
    for delta in deltas:
        check("SpeechAudioDeltaEvent", delta)
    check("SpeechAudioDoneEvent", done)
    models = client.get("/v1/models").json()
    check("ListModelsResponse", models)
    check("Model", client.get("/v1/models/echo").json())
    check("ErrorResponse", client.get("/v1/models/nobody").json())


def test_a_request_of_the_specification_is_understood(client: httpx.Client) -> None:
    full = {
        "model": "gpt-4o-mini-tts",
        "input": "All fields.",
        "instructions": "Calmly.",
        "voice": "alloy",
        "response_format": "opus",
        "speed": 1.25,
        "stream_format": "audio",
    }
    assert client.post(SPEECH, json=full).content.startswith(b"OggS")


def test_the_log_has_the_request_id_in_each_line_of_a_request(server: Server, client: httpx.Client) -> None:
    client.post(SPEECH, json={"model": "failing", "input": "x", "stream": False}, headers={"x-request-id": "logged"})

    def events() -> list[str]:
        return [line["event"] for line in server.lines if line.get("request_id") == "logged"]

    assert until(lambda: "request" in events())
    assert events()[-1] == "request"
    assert "request_refused" in events()
