"""Whatever comes in, the answer is a 4xx in the envelope, or correct audio, and the server goes on."""

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from live import Server

SPEECH = "/v1/audio/speech"
GOOD = {"model": "echo", "input": "hello", "response_format": "pcm"}


def problem(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("change", "status", "param", "says"),
    [
        ({"input": ""}, 400, "input", "nothing to say"),
        ({"input": " \n\t "}, 400, "input", "nothing to say"),
        ({"input": "x" * 4097}, 400, "input", "maximum length 4096"),
        ({"input": None}, 400, "input", "input"),
        ({"input": 5}, 400, "input", "`str`"),
        ({"model": "ecko"}, 404, "model", "'echo'"),
        ({"model": "deaf"}, 400, "model", "it does: embed"),
        ({"model": "unserved"}, 503, "model", "pip install yapit-plugin-nobody"),
        ({"voice": "lov"}, 400, "voice", "'low'"),
        ({"voice": {"id": "lov"}}, 400, "voice", "'low'"),
        ({"voice": 5}, 400, "voice", "`str"),
        ({"response_format": "ogg"}, 400, "response_format", "'mp3', 'opus', 'aac', 'flac', 'wav', 'pcm'"),
        ({"speed": 0.2}, 400, "speed", ">= 0.25"),
        ({"speed": 4.1}, 400, "speed", "<= 4"),
        ({"speed": "fast"}, 400, "speed", "`float"),
        ({"stream_format": "websocket"}, 400, "stream_format", "'audio', 'sse'"),
        ({"instructions": "x" * 4097}, 400, "instructions", "4096"),
        ({"stream": "yes"}, 400, "stream", "`bool"),
    ],
)
def test_a_refused_value_is_named(
    client: httpx.Client, change: dict[str, Any], status: int, param: str, says: str
) -> None:
    answer = client.post(SPEECH, json=GOOD | change)
    error = problem(answer)
    assert (answer.status_code, error["param"]) == (status, param)
    assert says in error["message"]


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "invalid_body"),
        (b"null", None, "invalid_body"),
        (b"[]", None, "invalid_body"),
        (b"nope", None, "invalid_json"),
        (b'{"model": "echo", "input": "x"', None, "invalid_json"),
        (b'{"model": "echo", "input": "\xff"}', None, "invalid_json"),
        (b'{"model": "echo", "input": "x", "speed": NaN}', "speed", "invalid_value"),
        (b'{"model": "echo", "input": "x", "speed": -Infinity}', "speed", "invalid_value"),
        (b'{"model": "echo", "input": "x", "speed": 1e999}', "speed", "invalid_value"),
        (b'{"model": "echo", "input": "a \\ud800 b"}', "input", "invalid_value"),
        (b"[" * 100_000, None, "invalid_json"),
        (b'{"input": "x"}', "model", "missing_required_parameter"),
        (b'{"model": "echo"}', "input", "missing_required_parameter"),
    ],
)
def test_a_body_that_is_no_request_is_refused(client: httpx.Client, body: bytes, param: str | None, code: str) -> None:
    answer = client.post(SPEECH, content=body, headers={"content-type": "application/json"})
    error = problem(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize(
    "change",
    [
        {"voice": None, "speed": None, "stream_format": None, "stream": None, "instructions": None, "language": None},
        {"unknown": {"field": 1}, "lang_code": "a"},
        {"input": "a\u0000b\u0007c\u001b[31m\r\n\u2028d"},
        {"input": "😀" * 4000},
        {"input": "👩‍👩‍👧‍👦" * 500},
        {"input": "\u202e\ufeff\u0301text"},
        {"input": "…"},
        {"voice": ""},
    ],
)
def test_odd_but_fair_input_is_spoken(client: httpx.Client, change: dict[str, Any]) -> None:
    answer = client.post(SPEECH, json=GOOD | change)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("audio/pcm")
    assert len(answer.content) > 0


@pytest.mark.parametrize(
    "espeak_input", ["😀" * 4000, "\u0000\u0001\u0002", "…", "a" * 4096, "\u202e\u05e9\u05dc\u05d5\u05dd", "[[h@'loU]]"]
)
def test_odd_input_does_not_trouble_a_real_voice(client: httpx.Client, espeak_input: str) -> None:
    answer = client.post(SPEECH, json={"model": "espeak", "input": espeak_input, "response_format": "wav"})
    assert answer.status_code == 200


def test_no_content_type_is_taken_for_json(client: httpx.Client) -> None:
    answer = client.post(
        SPEECH, content=json.dumps(GOOD), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/xyz", 404, "unknown_url"),
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1/../../etc/passwd", 404, "unknown_url"),
        ("POST", "/v1/models", 405, "method_not_supported"),
        ("GET", "/v1/audio/speech", 405, "method_not_supported"),
        ("DELETE", "/livez", 405, "method_not_supported"),
        ("GET", "/v1/models/nobody/knows", 404, "model_not_found"),
        ("GET", "/v1/models/nobody%2Fknows", 404, "model_not_found"),
        ("GET", "/v1/audio/voices?model=nobody", 404, "model_not_found"),
    ],
)
def test_urls_and_methods_that_are_not_there(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, problem(answer)["code"]) == (status, code)


def test_a_wrong_method_says_which_are_right(client: httpx.Client) -> None:
    assert set(client.get(SPEECH).headers["allow"].split(", ")) == {"OPTIONS", "POST"}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_refused_before_it_is_read(server: Server, *, chunked: bool) -> None:
    """The client offers 100 MB and sends until it is answered; it must be long before the end."""
    parts = urlsplit(server.url)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=20) as wire:
        size = "transfer-encoding: chunked" if chunked else "content-length: 100000000"
        wire.sendall(f"POST {SPEECH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{size}\r\n\r\n".encode())
        sent = 0
        piece = bytes(65_536)
        framed = b"10000\r\n" + piece + b"\r\n" if chunked else piece
        try:
            while sent < 100_000_000:
                wire.sendall(framed)
                sent += len(piece)
        except OSError:
            pass  # the server closed: it has answered
        response = http.client.HTTPResponse(wire)
        try:
            response.begin()
            assert response.status == 413
            assert json.load(response)["error"]["code"] == "body_too_large"
        except ConnectionResetError:
            # What was still on its way made the kernel drop the answer; that it was not read is what counts.
            pass
        assert sent < 90_000_000
    assert httpx.get(f"{server.url}/livez").status_code == 200


def test_the_text_is_in_no_log_line(server: Server, client: httpx.Client) -> None:
    said = "xylophone quagmire"
    client.post(SPEECH, json=GOOD | {"input": said})
    client.post(SPEECH, json=GOOD | {"input": said, "model": "nobody"})
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(SPEECH, json=GOOD | {"input": said, "model": "failing"})
    client.get("/v1/audio/speech/timestamps", params={"model": "echo", "input": said, "response_format": "srt"})
    client.get("/v1/models")
    assert "xylophone" not in json.dumps(server.lines)
    assert server.events.count("request") >= 4
