"""A client that leaves, a server that is asked to end: the work stops and nothing leaks."""

import json
import os
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from live import DEADLINE_S, MODELS, Server, serve, until


def post(server: Server, model: str, said: str = "x") -> socket.socket:
    """Send a speech request on a connection of its own."""
    parts = urlsplit(server.url)
    wire = socket.socket()
    wire.settimeout(DEADLINE_S)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    wire.connect((str(parts.hostname), int(parts.port or 0)))
    body = json.dumps({"model": model, "input": said, "response_format": "pcm"})
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    wire.sendall(head.encode() + body.encode())
    return wire


def running(server: Server) -> int:
    return int(httpx.get(f"{server.url}/health").json()["running"])


def test_a_client_that_leaves_in_mid_stream_frees_its_slot(server: Server) -> None:
    wire = post(server, "slow")
    assert wire.recv(100).startswith(b"HTTP/1.1 200")
    assert until(lambda: running(server) == 1)
    wire.close()
    assert until(lambda: running(server) == 0)
    # `slow` has one slot: it must be there for the next one.
    with post(server, "slow") as second:
        assert second.recv(100).startswith(b"HTTP/1.1 200")
    assert until(lambda: running(server) == 0)


def test_a_client_that_leaves_before_the_first_chunk_frees_its_slot(server: Server) -> None:
    wire = post(server, "stuck")
    assert until(lambda: running(server) == 1)
    wire.close()
    assert until(lambda: running(server) == 0)
    assert until(lambda: "client_left" in server.events)


def test_clients_that_leave_while_they_wait_for_a_slot_leave_nothing(server: Server) -> None:
    wires = [post(server, "stuck") for _ in range(5)]
    assert until(lambda: running(server) == 1)
    for wire in wires:
        wire.close()
    assert until(lambda: running(server) == 0)


def test_a_client_that_stops_reading_keeps_nobody_waiting(server: Server) -> None:
    """Four minutes of speech do not fit into the buffers on the way; espeak has one slot."""
    with post(server, "espeak", "Nobody listens to this sentence. " * 120) as wire:
        assert wire.recv(100).startswith(b"HTTP/1.1 200")
        answers = [
            httpx.post(f"{server.url}/v1/audio/speech", json={"model": "espeak", "input": "x"}, timeout=DEADLINE_S)
            for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert until(lambda: running(server) == 0)


def test_many_come_and_go_and_no_descriptor_or_thread_is_left(server: Server) -> None:
    def usage() -> tuple[int, int]:
        process = Path(f"/proc/{server.process.pid}")
        threads = next(line for line in (process / "status").read_text().splitlines() if line.startswith("Threads"))
        return len(list((process / "fd").iterdir())), int(threads.split()[1])

    body = {"model": "espeak", "input": "One. Two. Three.", "response_format": "opus"}
    for _ in range(3):
        httpx.post(f"{server.url}/v1/audio/speech", json=body)
    before = usage()
    for number in range(40):
        with post(server, "espeak" if number % 2 else "second") as wire:
            wire.recv(10)
    assert until(lambda: running(server) == 0)
    assert until(lambda: usage()[0] <= before[0] + 1)
    assert usage()[1] <= before[1] + 2


def test_what_does_not_finish_in_time_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, YAPIT_SERVER_DRAIN_S="1") as server, post(server, "stuck") as wire:
        assert until(lambda: running(server) == 1)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(DEADLINE_S) == 0
        answer = wire.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"code":"server_draining"' in answer
    assert "Traceback" not in json.dumps(server.lines)


def test_a_model_whose_process_dies_takes_nobody_along(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        body = {"model": "espeak", "input": "Still here.", "response_format": "wav"}
        url = f"{server.url}/v1/audio/speech"
        assert httpx.post(url, json=body).status_code == 200
        (child,) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        with post(server, "espeak", "A long text that is being spoken when it happens. " * 80) as wire:
            assert wire.recv(100).startswith(b"HTTP/1.1 200")
            os.kill(int(child), signal.SIGABRT)
            while wire.recv(65_536):
                pass
        assert until(lambda: "worker_died" in server.events)
        assert httpx.post(url, json=body).status_code == 200
        assert running(server) == 0
    assert until(lambda: not Path(f"/proc/{child}").exists())
