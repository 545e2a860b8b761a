"""A client that leaves ends all the calls that its answers are made by."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from live import DEADLINE_S, Server, until

LONG = "word " * 4_000
MESSAGES = [{"role": "user", "content": LONG}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "n": 5},
    "/v1/completions": {"prompt": [LONG, LONG], "n": 2, "max_tokens": 4_000},
    "/v1/responses": {"input": LONG},
}
CALLS = {"/v1/chat/completions": 5, "/v1/completions": 4, "/v1/responses": 1}


@contextmanager
def sent(server: Server, path: str, **body: Any) -> Iterator[socket.socket]:
    """Send a request on a connection of its own."""
    parts = urlsplit(server.url)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=DEADLINE_S) as wire:
        content = json.dumps(body)
        wire.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode())
        yield wire


def running(server: Server) -> int:
    return int(httpx.get(f"{server.url}/health").json()["running"])


def calls(server: Server, model: str, metric: str = "queue_wait_seconds_count", label: str = "") -> int:
    """Return how many calls of the model got a slot, or what another metric says of it."""
    found = re.findall(rf'yapit_{metric}{{model="{model}".*{label}.*}} (\S+)', httpx.get(f"{server.url}/metrics").text)
    return sum(map(int, map(float, found)))


def left(server: Server, model: str) -> int:
    return calls(server, model, "calls_total", "client_left")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_every_call(server: Server, path: str, *, stream: bool) -> None:
    model = "slow-writer"
    begun, ended = calls(server, model) + CALLS[path], left(server, model) + CALLS[path]
    with sent(server, path, model=model, stream=stream, **ROUTES[path]) as wire:
        assert not stream or wire.recv(100).startswith(b"HTTP/1.1 200")
        assert until(lambda: calls(server, model) == begun)
        assert running(server) == 1
    assert until(lambda: left(server, model) == ended)
    assert until(lambda: running(server) == 0)


@pytest.mark.parametrize("path", ROUTES)
def test_a_client_that_leaves_before_the_first_chunk_ends_the_one_call_there_is(server: Server, path: str) -> None:
    model = "stuck-writer"
    begun, ended = calls(server, model) + 1, left(server, model) + 1
    with sent(server, path, model=model, stream=True, **ROUTES[path]):
        assert until(lambda: calls(server, model) == begun)
    assert until(lambda: left(server, model) == ended)
    assert until(lambda: running(server) == 0)


def test_a_request_is_stopped_by_its_id_with_all_its_calls(server: Server) -> None:
    path, model = "/v1/chat/completions", "slow-writer"
    begun = calls(server, model) + CALLS[path]
    body = {"model": model, "stream": True, **ROUTES[path]}
    url = f"{server.url}{path}"
    with httpx.stream("POST", url, json=body, headers={"x-request-id": "me"}, timeout=DEADLINE_S) as answer:
        assert until(lambda: calls(server, model) == begun)
        assert httpx.delete(f"{server.url}/v1/requests/me").json()["cancelled"] == 1
        text = answer.read().decode()
    assert json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"] == "request_cancelled"
    assert until(lambda: calls(server, model, "calls_total", "request_cancelled") == CALLS[path])
    assert until(lambda: running(server) == 0)
