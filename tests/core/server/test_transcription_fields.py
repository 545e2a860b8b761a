"""What the routes make of forms and of JSON, seen by an adapter that keeps its requests."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from litestar.testing import TestClient

from sounds import wav
from yapit import (
    Context,
    InvalidInputError,
    LikelyToken,
    Model,
    Segment,
    Transcriber,
    TranscribeRequest,
    VoiceActivity,
    hookimpl,
)
from yapit.plugins import Plugins
from yapit.server.app import Application, create_app
from yapit.settings import Settings

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
SOUND = wav(0.5, 8_000)
Fields = list[tuple[str, str]]


class Keeper(Transcriber):
    """Keeps its requests; refuses what the option `refuse` names."""

    def __init__(self) -> None:
        self.requests: list[TranscribeRequest] = []

    async def transcribe(self, request: TranscribeRequest) -> AsyncIterator[Segment]:
        self.requests.append(request)
        if "refuse" in request.options:
            raise InvalidInputError(f"Invalid '{request.options['refuse']}': no.", param=request.options["refuse"])
        token = LikelyToken(text="é", logprob=float("-inf"), data="é".encode())
        yield Segment(text=" é ", start_s=0, end_s=0.5, token_logprobs=(token,))


class Plugin:
    """Serves the keeper as all of its models."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper

    @hookimpl
    def register_models(self) -> list[Model]:
        tuned = {"language": "fr", "prompt": "Bonjour.", "beams": 5}
        return [
            Model(id="keeper", backend="own", tasks=("transcribe",)),
            Model(id="tuned", backend="own", tasks=("transcribe",), defaults=tuned),
        ]

    @hookimpl
    def transcribe(self, model: Model, context: Context) -> Transcriber:
        return self.keeper


@pytest.fixture(scope="module")
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture(scope="module")
def client(keeper: Keeper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Application]]:
    plugins = Plugins()
    plugins.register("own", Plugin(keeper))
    folder = tmp_path_factory.mktemp("app")
    (folder / "models.yaml").write_text("[]")
    settings = Settings(models_config=str(folder / "models.yaml"), data_dir=str(folder))
    with TestClient(create_app(settings, plugins)) as found:
        yield found


def multipart(fields: Fields, *, file_at: int | None = None, name: str = "file") -> tuple[bytes, dict[str, str]]:
    """Return a form whose file stands at any place, and its header."""
    parts = [b'Content-Disposition: form-data; name="%b"\r\n\r\n%b' % (k.encode(), v.encode()) for k, v in fields]
    file = b'Content-Disposition: form-data; name="%b"; filename="upload"\r\n' % name.encode()
    file += b"Content-Type: application/octet-stream\r\n\r\n" + SOUND
    parts.insert(len(parts) if file_at is None else file_at, file)
    body = b"".join(b"--limit\r\n" + part + b"\r\n" for part in parts) + b"--limit--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=limit"}


Send = Callable[..., httpx.Response]


@pytest.fixture
def send(client: TestClient[Application], keeper: Keeper) -> Send:
    def post(
        *fields: tuple[str, str], path: str = TRANSCRIPTIONS, model: str = "keeper", **form: Any
    ) -> httpx.Response:
        keeper.requests.clear()
        body, headers = multipart([("model", model), *fields], **form)
        return client.post(path, content=body, headers=headers)

    return post


@pytest.fixture
def sent(send: Send, keeper: Keeper) -> Callable[..., TranscribeRequest]:
    def post(*fields: tuple[str, str], **more: Any) -> TranscribeRequest:
        answer = send(*fields, **more)
        assert answer.status_code == 200, answer.text
        (request,) = keeper.requests
        return request

    return post


Sent = Callable[..., TranscribeRequest]


def refusal(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    error = json.loads(answer.text)["error"]
    return answer.status_code, error["param"], error["code"]


# ── fields ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_field_arrives(sent: Sent) -> None:
    request = sent(
        ("language", "en-US"),
        ("languages[]", "german"),
        ("languages[]", "fr"),
        ("keywords[]", "Köln"),
        ("keywords[]", "[so"),
        ("prompt", "Once upon a time"),
        ("response_format", "verbose_json"),
        ("temperature", "0.2"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("chunking_strategy[type]", "server_vad"),
        ("chunking_strategy[threshold]", "0.25"),
        ("chunking_strategy[silence_duration_ms]", "700"),
        ("options", '{"beams": 3}'),
        ("user", "unknown fields are ignored"),
    )
    assert (len(request.pcm), request.path, request.sample_rate) == (16_000, None, 16_000)
    assert (request.language, request.languages) == ("en", ("de", "fr"))
    assert request.keywords == ("Köln", "[so")
    assert (request.prompt, request.temperature, request.translate) == ("Once upon a time", 0.2, False)
    assert (request.word_times, request.logprobs) == (True, False)
    assert request.voice_activity == VoiceActivity(threshold=0.25, prefix_padding_ms=300, silence_duration_ms=700)
    assert request.options == {"beams": 3}


def test_nothing_said_is_nothing_asked(sent: Sent) -> None:
    for fields in ((), (("language", ""), ("prompt", ""), ("temperature", "0"), ("stream", ""), ("language", "auto"))):
        request = sent(*fields)
        assert request == TranscribeRequest(pcm=request.pcm, sample_rate=16_000)


@pytest.mark.parametrize("place", range(4))
def test_the_file_may_stand_anywhere(sent: Sent, place: int) -> None:
    request = sent(("language", "de"), ("prompt", "p"), file_at=place)
    assert (request.language, request.prompt, len(request.pcm)) == ("de", "p", 16_000)


@pytest.mark.parametrize(
    "spelled",
    [
        [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
        [("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
        [("timestamp_granularities[0]", "word"), ("timestamp_granularities[1]", "segment")],
        [("timestamp_granularities", '["word", "segment"]')],
        [("timestamp_granularities[]", '["word", "segment"]')],
    ],
)
def test_lists_are_taken_in_every_spelling(send: Send, keeper: Keeper, spelled: Fields) -> None:
    body = send(("response_format", "verbose_json"), *spelled).json()
    assert {"words", "segments"} <= set(body)
    assert keeper.requests[0].word_times


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ([("chunking_strategy", "auto")], VoiceActivity()),
        ([("chunking_strategy", '"auto"')], VoiceActivity()),
        ([("chunking_strategy", '{"type": "server_vad"}')], VoiceActivity()),
        ([("chunking_strategy[type]", "server_vad")], VoiceActivity()),
        ([("chunking_strategy", '{"type": "server_vad", "threshold": 1}')], VoiceActivity(threshold=1)),
        ([], None),
    ],
)
def test_what_counts_as_speech_is_taken_in_every_spelling(
    sent: Sent, spelled: Fields, expected: VoiceActivity | None
) -> None:
    assert sent(*spelled).voice_activity == expected


@pytest.mark.parametrize("said", ["true", "True", "TRUE", "1"])
def test_a_true_is_taken_in_every_spelling(send: Send, said: str) -> None:
    assert send(("stream", said)).headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("said", ["false", "False", "0", ""])
def test_a_false_is_taken_in_every_spelling(send: Send, said: str) -> None:
    assert send(("stream", said)).headers["content-type"] == "application/json"


def test_a_translation_is_one_and_takes_the_language_that_is_spoken(sent: Sent) -> None:
    request = sent(("language", "German"), ("prompt", "p"), ("stream", "true"), path=TRANSLATIONS)
    assert (request.translate, request.language, request.prompt) == (True, "de", "p")


def test_the_models_defaults_fill_what_is_not_said(sent: Sent) -> None:
    request = sent(model="tuned")
    assert (request.language, request.prompt, request.options) == ("fr", "Bonjour.", {"beams": 5})
    request = sent(("language", "de"), ("options", '{"beams": 1}'), model="tuned")
    assert (request.language, request.options) == ("de", {"beams": 1})


def test_log_probabilities_are_asked_for_and_are_json(send: Send, keeper: Keeper) -> None:
    body = send(("include[]", "logprobs")).json()
    assert keeper.requests[0].logprobs
    assert body["logprobs"] == [{"token": "é", "logprob": -9999.0, "bytes": [195, 169]}]
    assert "logprobs" not in send().json()


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("prefix", ["", "data:audio/wav;base64,"])
def test_json_with_base64_is_taken(client: TestClient[Application], keeper: Keeper, prefix: str) -> None:
    keeper.requests.clear()
    audio = {"data": prefix + base64.b64encode(SOUND).decode(), "format": "wav"}
    answer = client.post(TRANSCRIPTIONS, json={"model": "keeper", "language": "en", "input_audio": audio})
    assert (answer.status_code, answer.json()["text"]) == (200, "é")
    assert (keeper.requests[0].language, len(keeper.requests[0].pcm)) == ("en", 16_000)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "invalid_json"),
        (b"[]", None, "invalid_body"),
        (b'{"model": "keeper"}', "input_audio", "missing_required_parameter"),
        (b'{"input_audio": {"data": ""}}', "model", "missing_required_parameter"),
        (b'{"model": "keeper", "input_audio": {}}', "input_audio.data", "missing_required_parameter"),
        (b'{"model": "keeper", "input_audio": {"data": "?"}}', "input_audio.data", "invalid_value"),
        (b'{"model": "keeper", "input_audio": {"data": ""}}', "input_audio", "invalid_value"),
        (b'{"model": "keeper", "input_audio": {"data": "AAAA"}}', "input_audio", "invalid_value"),
        (b'{"model": "keeper", "stream": "yes", "input_audio": {"data": "AAAA"}}', "stream", "invalid_value"),
        (b"[" * 100_000, None, "invalid_json"),
    ],
)
def test_json_that_is_wrong_is_refused(
    client: TestClient[Application], body: bytes, param: str | None, code: str
) -> None:
    answer = client.post(TRANSCRIPTIONS, content=body, headers={"content-type": "application/json"})
    assert refusal(answer) == (400, param, code)


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ([("language", "klingonese")], "language", "invalid_value"),
        ([("languages[]", "en"), ("languages[]", "!!")], "languages[1]", "invalid_value"),
        ([("temperature", "1.5")], "temperature", "invalid_value"),
        ([("temperature", "-0.1")], "temperature", "invalid_value"),
        ([("temperature", "warm")], "temperature", "invalid_value"),
        ([("temperature", "nan")], "temperature", "invalid_value"),
        ([("stream", "maybe")], "stream", "invalid_value"),
        ([("response_format", "docx")], "response_format", "invalid_value"),
        ([("response_format", "diarized_json")], "response_format", "unsupported_value"),
        ([("known_speaker_names[]", "me")], "known_speaker_names", "unsupported_value"),
        ([("known_speaker_references[]", "data:,")], "known_speaker_references", "unsupported_value"),
        ([("timestamp_granularities[]", "letter")], "timestamp_granularities", "invalid_value"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities", "invalid_value"),
        ([("timestamp_granularities", "[word]")], "timestamp_granularities", "invalid_value"),
        ([("include[]", "tokens")], "include", "invalid_value"),
        ([("include[]", "logprobs"), ("response_format", "srt")], "include", "invalid_value"),
        ([("chunking_strategy", "client_vad")], "chunking_strategy", "invalid_value"),
        ([("chunking_strategy", "{")], "chunking_strategy", "invalid_value"),
        ([("chunking_strategy[threshold]", "0.5")], "chunking_strategy.type", "missing_required_parameter"),
        (
            [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "2")],
            "chunking_strategy.threshold",
            "invalid_value",
        ),
        ([("options", "beams=3")], "options", "invalid_value"),
        ([("options", "[]")], "options", "invalid_value"),
        ([("keep_alive", "soon")], "keep_alive", "invalid_value"),
        ([("model", "nobody")], "model", "model_not_found"),
    ],
)
def test_a_refused_value_is_named(send: Send, keeper: Keeper, fields: Fields, param: str, code: str) -> None:
    assert refusal(send(*fields)) == (404 if code == "model_not_found" else 400, param, code)
    assert keeper.requests == []


def test_a_refused_choice_says_which_there_are(send: Send) -> None:
    message = send(("timestamp_granularities[]", "letter")).json()["error"]["message"]
    assert "'word'" in message
    assert "'segment'" in message


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"name": "recording"}, "file", "missing_required_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
    ],
)
def test_what_is_missing_is_named(send: Send, change: dict[str, str], param: str, code: str) -> None:
    assert refusal(send(**change)) == (400, param, code)


def test_the_file_may_be_spelled_as_a_list(sent: Sent) -> None:
    assert len(sent(name="file[]").pcm) == 16_000


def test_two_files_are_one_too_many(send: Send) -> None:
    assert refusal(send(("file", "another one"))) == (400, "file", "invalid_value")


def test_an_error_of_the_adapter_names_the_field_as_the_client_does(send: Send) -> None:
    assert refusal(send(("options", '{"refuse": "pcm"}'))) == (400, "file", "invalid_value")
    assert refusal(send(("options", '{"refuse": "language"}'))) == (400, "language", "invalid_value")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=limit"),
        (b"--limit\r\n", "multipart/form-data; boundary=limit"),
        (multipart([("model", "keeper")])[0][:-12], "multipart/form-data; boundary=limit"),
        (multipart([("model", "keeper")])[0], "multipart/form-data; boundary=other"),
        (multipart([("model", "keeper")])[0], "multipart/form-data"),
        (multipart([("model", "keeper")] * 300)[0], "multipart/form-data; boundary=limit"),
    ],
)
def test_a_broken_form_is_refused(client: TestClient[Application], body: bytes, kind: str) -> None:
    answer = client.post(TRANSCRIPTIONS, content=body, headers={"content-type": kind})
    assert refusal(answer) == (400, None, "invalid_body")


def test_a_field_that_is_no_text_is_named(client: TestClient[Application]) -> None:
    body = b'--limit\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n--limit--\r\n'
    answer = client.post(TRANSCRIPTIONS, content=body, headers={"content-type": "multipart/form-data; boundary=limit"})
    assert refusal(answer) == (400, "prompt", "invalid_value")


def test_fields_that_are_too_long_are_refused(send: Send) -> None:
    assert refusal(send(("prompt", "x" * 1_100_000))) == (413, "prompt", "body_too_large")
