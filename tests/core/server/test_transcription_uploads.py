"""Uploads on the wire: how large, in which pieces, and what is left of those whose client leaves."""

import base64
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import pytest

from live import DEADLINE_S, Server, serve, until
from sounds import flac_of_silence, wav

TRANSCRIPTIONS = "/v1/audio/transcriptions"
LIMIT = 4_000_000
MODELS = """
models:
  - {id: stuck, backend: echo, tasks: [transcribe], options: {delay_s: 60}}
  - {id: apart, backend: echo, tasks: [transcribe], executor: process, options: {delay_s: 60}}
  - {id: slow, backend: echo, tasks: [transcribe], options: {delay_s: 0.05, segments: 1000}}
  - {id: mute, backend: echo, tasks: [embed]}
"""
SOUND = wav(1)
OPEN = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
CLOSE = b"\r\n--limit--\r\n"


def field(name: str, value: str) -> bytes:
    return b'--limit\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value.encode())


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server puts its temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory, temporary: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("uploads")
    (folder / "models.yaml").write_text(MODELS)
    environ = {
        "YAPIT_TRANSCRIPTION_MAX_UPLOAD_BYTES": str(LIMIT),
        "YAPIT_TRANSCRIPTION_MAX_AUDIO_S": "1000",
        "YAPIT_SERVER_MAX_BODY_BYTES": "100000",
    }
    with serve(folder, TMPDIR=str(temporary), **environ) as running:
        yield running


class Wire:
    """A connection on which a form is sent by hand."""

    def __init__(self, server: Server, *, length: int | None = None, kind: str = "multipart/form-data") -> None:
        parts = urlsplit(server.url)
        self.socket = socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=DEADLINE_S)
        self.chunked = length is None
        size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}; boundary=limit\r\n{size}\r\n\r\n"
        self.socket.sendall(head.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def end(self) -> None:
        if self.chunked:
            self.socket.sendall(b"0\r\n\r\n")

    def answer(self) -> tuple[int, Any]:
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        return response.status, json.load(response)


def running(server: Server) -> int:
    return int(httpx.get(f"{server.url}/health").json()["running"])


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def deleted(server: Server, temporary: Path) -> list[str]:
    """Return the server's open files of that folder, which have no name there any more."""
    found = []
    for path in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            found.append(str(path.readlink()))
        except FileNotFoundError:
            continue
    return [name for name in found if name.startswith(str(temporary))]


# ── how it comes ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_form_may_come_in_pieces_of_any_size_and_without_a_length(listening: Server, size: int) -> None:
    form = field("model", "echo") + OPEN + wav(0.2, 8_000) + b"\r\n" + field("language", "de")[:-2] + CLOSE
    with Wire(listening) as wire:
        for start in range(0, len(form), size):
            wire.send(form[start : start + size])
        wire.end()
        assert wire.answer() == (200, {"text": "This is an echo.", "usage": {"type": "duration", "seconds": 1}})


def test_a_file_that_is_larger_than_other_bodies_may_be_is_taken_and_goes_to_disk(
    listening: Server, temporary: Path
) -> None:
    sound = wav(100)
    assert 3_000_000 < len(sound) < LIMIT
    with Wire(listening) as wire:
        wire.send(field("model", "echo") + OPEN + sound[:2_500_000])
        assert until(lambda: len(deleted(listening, temporary)) == 1)
        assert list(temporary.iterdir()) == []
        wire.send(sound[2_500_000:] + CLOSE)
        wire.end()
        assert wire.answer()[0] == 200
    assert until(lambda: deleted(listening, temporary) == [])


# ── too much ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("chunked", [True, False])
def test_a_client_that_sends_on_gets_the_answer_and_no_reset(listening: Server, *, chunked: bool) -> None:
    """It sends ten times what is taken, all of it, before it reads."""
    total = 10 * LIMIT
    with Wire(listening, length=None if chunked else total + len(OPEN)) as wire:
        wire.send(OPEN)
        for _ in range(10):
            wire.send(bytes(LIMIT))
        wire.end()
        status, body = wire.answer()
    assert (status, body["error"]["code"], body["error"]["param"]) == (413, "body_too_large", "file")
    assert f"{LIMIT} bytes (transcription.max_upload_bytes)" in body["error"]["message"]
    assert httpx.get(f"{listening.url}/livez").status_code == 200


def test_the_answer_comes_while_the_client_still_sends(listening: Server) -> None:
    with Wire(listening) as wire:
        wire.send(OPEN + bytes(LIMIT + 1))
        assert wire.answer()[0] == 413
        wire.send(b"more")


@pytest.mark.parametrize(
    ("name", "size", "status"), [("file", LIMIT, 400), ("file", LIMIT + 1, 413), ("other", LIMIT + 1, 413)]
)
def test_the_limit_is_the_files_and_holds_for_files_that_are_left_out(
    listening: Server, name: str, size: int, status: int
) -> None:
    answer = httpx.post(f"{listening.url}{TRANSCRIPTIONS}", data={"model": "echo"}, files={name: bytes(size)})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, name)


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 400), (LIMIT + 1, 413), (2 * LIMIT, 413)])
def test_the_limit_holds_for_json(listening: Server, size: int, status: int) -> None:
    body = {"model": "echo", "input_audio": {"data": base64.b64encode(bytes(size)).decode()}}
    answer = httpx.post(f"{listening.url}{TRANSCRIPTIONS}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, "input_audio")


@pytest.mark.parametrize(("model", "status"), [("mute", 400), ("nobody", 404)])
def test_a_model_that_does_not_listen_is_refused_before_the_file_comes(
    listening: Server, model: str, status: int
) -> None:
    with Wire(listening) as wire:
        wire.send(field("model", model) + OPEN)
        answer = wire.answer()
    assert (answer[0], answer[1]["error"]["param"]) == (status, "model")


@pytest.mark.parametrize("model", ["stuck", "apart"])
def test_a_recording_that_proves_too_long_while_it_is_heard_ends_there(
    listening: Server, temporary: Path, model: str
) -> None:
    file = {"file": flac_of_silence(1_010)}
    answer = httpx.post(f"{listening.url}{TRANSCRIPTIONS}", data={"model": model}, files=file, timeout=DEADLINE_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "audio_too_long")
    assert answer.json()["error"]["message"] == "Invalid 'file': the audio is longer than 1000 s."
    assert until(lambda: running(listening) == 0)
    assert list(temporary.iterdir()) == []


def test_other_errors_in_mid_upload_are_answered_too(listening: Server) -> None:
    with Wire(listening) as wire:
        wire.send(OPEN + b"one\r\n" + OPEN)
        status, body = wire.answer()
    assert (status, body["error"]["message"]) == (
        400,
        "Invalid 'file': there are two files, and one is taken in a request.",
    )


# ── leaving ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_client_that_leaves_in_mid_upload_leaves_nothing(listening: Server, temporary: Path) -> None:
    assert running(listening) == 0
    before, left = descriptors(listening), listening.events.count("client_left")
    wires = [Wire(listening) for _ in range(5)]
    for wire in wires:
        wire.send(field("model", "echo") + OPEN + bytes(2_500_000))
    assert until(lambda: len(deleted(listening, temporary)) == 5)
    for wire in wires:
        wire.socket.close()
    assert until(lambda: deleted(listening, temporary) == [])
    assert until(lambda: descriptors(listening) <= before + 1)
    assert until(lambda: listening.events.count("client_left") == left + 5)
    assert "request_failed" not in listening.events


@pytest.mark.parametrize("model", ["stuck", "apart"])
def test_a_client_that_leaves_in_mid_transcription_stops_it_and_its_recording_is_gone(
    listening: Server, temporary: Path, model: str
) -> None:
    long = flac_of_silence(600)
    with Wire(listening) as wire:
        wire.send(field("model", model) + OPEN + long + CLOSE)
        wire.end()
        assert until(lambda: running(listening) == 1)
        (recording,) = temporary.iterdir()
        assert until(lambda: recording.stat().st_size == 600 * 32_000)
    assert until(lambda: running(listening) == 0)
    assert until(lambda: list(temporary.iterdir()) == [])
    assert until(lambda: deleted(listening, temporary) == [])


def test_a_client_that_leaves_between_two_events_stops_it(listening: Server) -> None:
    with Wire(listening) as wire:
        wire.send(field("model", "slow") + field("stream", "true") + OPEN + SOUND + CLOSE)
        wire.end()
        assert b"transcript.text.delta" in wire.socket.recv(10_000) + wire.socket.recv(10_000)
        assert until(lambda: running(listening) == 1)
    assert until(lambda: running(listening) == 0)


def test_a_request_is_stopped_by_its_id_while_it_is_uploaded(listening: Server, temporary: Path) -> None:
    parts = urlsplit(listening.url)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=DEADLINE_S) as wire:
        head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\ncontent-length: 3900000\r\n"
        wire.sendall(
            f"{head}content-type: multipart/form-data; boundary=limit\r\n\r\n".encode() + OPEN + bytes(3_000_000)
        )
        assert until(lambda: len(deleted(listening, temporary)) == 1)
        assert httpx.delete(f"{listening.url}/v1/requests/mine").json()["cancelled"] == 1
        assert wire.recv(1000).startswith(b"HTTP/1.1 499")
    assert until(lambda: deleted(listening, temporary) == [])


def test_a_long_recording_lasts_as_long_as_its_request(listening: Server, temporary: Path) -> None:
    answer = httpx.post(
        f"{listening.url}{TRANSCRIPTIONS}",
        data={"model": "echo", "response_format": "verbose_json"},
        files={"file": flac_of_silence(600)},
        timeout=DEADLINE_S,
    )
    assert answer.json()["duration"] == 600.0
    assert answer.json()["segments"][0]["end"] == 600.0
    assert until(lambda: list(temporary.iterdir()) == [])
