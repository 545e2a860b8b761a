"""Deadlines, cancellation by id, full queues, draining: what ends a request besides its own end."""

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from live import DEADLINE_S, MODELS, Server, serve, until

KEYS = {"alice": "key-of-alice", "bob": "key-of-bob"}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with short limits."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "models.yaml").write_text(MODELS)
    with serve(folder, YAPIT_ENGINE_MAX_QUEUE="1", YAPIT_ENGINE_QUEUE_TIMEOUT_S="0.3") as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two clients who have keys."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "models.yaml").write_text(MODELS)
    with serve(folder, YAPIT_API_KEYS=",".join(KEYS.values())) as running:
        yield running


def speak(server: Server, model: str, **headers: str) -> httpx.Response:
    body = {"model": model, "input": "x", "response_format": "pcm", **({"stream": False} if model == "stuck" else {})}
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, headers=headers, timeout=DEADLINE_S)


def error(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]
    return found


def health(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/health").json()
    return found


def loaded(server: Server, model: str) -> dict[str, Any]:
    models = httpx.get(f"{server.url}/api/ps").json()["models"]
    return next((entry for entry in models if entry["name"] == model), {"running": 0, "queued": 0})


# ── deadlines ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("timeout", ["0.2", "200ms"])
def test_a_request_that_takes_longer_than_it_may_is_stopped(server: Server, timeout: str) -> None:
    answer = speak(server, "stuck", **{"x-yapit-timeout": timeout})
    assert (answer.status_code, error(answer)["code"]) == (504, "deadline_exceeded")
    assert "0.2 s" in error(answer)["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert until(lambda: health(server)["running"] == 0)


def test_a_deadline_in_mid_stream_ends_the_stream_short(server: Server) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        speak(server, "slow", **{"x-yapit-timeout": "0.3"})
    assert until(lambda: health(server)["running"] == 0)


def test_a_deadline_in_a_stream_of_events_is_an_event(server: Server) -> None:
    body = {"model": "slow", "input": "x", "stream_format": "sse"}
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body, headers={"x-yapit-timeout": "0.3"})
    last = json.loads(answer.text.strip().rpartition("data: ")[2])
    assert last["error"]["code"] == "deadline_exceeded"


def test_the_settings_bound_what_a_client_may_ask_for(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, YAPIT_SERVER_TIMEOUT_S="0.2") as server:
        for headers in ({}, {"x-yapit-timeout": "60"}, {"x-yapit-timeout": "-1"}):
            assert speak(server, "stuck", **headers).status_code == 504


@pytest.mark.parametrize("timeout", ["soon", "0", ""])
def test_a_time_that_is_no_time_is_refused(server: Server, timeout: str) -> None:
    answer = speak(server, "echo", **{"x-yapit-timeout": timeout})
    assert (answer.status_code, error(answer)["param"]) == (400, "x-yapit-timeout")


# ── cancellation by id ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_request_is_cancelled_by_its_id_while_it_runs_or_waits(server: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(speak, server, "stuck", **{"x-request-id": "mine"})
        assert until(lambda: loaded(server, "stuck")["running"] == 1)
        second = pool.submit(speak, server, "stuck", **{"x-request-id": "waits"})
        assert until(lambda: loaded(server, "stuck")["queued"] == 1)
        for name, pending in (("waits", second), ("mine", first)):
            cancelled = httpx.delete(f"{server.url}/v1/requests/{name}")
            assert cancelled.status_code == 200
            assert cancelled.json() == {"id": name, "object": "request.cancelled", "cancelled": 1}
            answer = pending.result(DEADLINE_S)
            assert (answer.status_code, error(answer)["code"]) == (499, "request_cancelled")
            assert answer.headers["x-request-id"] == name
    assert loaded(server, "stuck")["running"] == 0


def test_an_unknown_id_is_not_found(server: Server) -> None:
    answer = httpx.delete(f"{server.url}/v1/requests/nobody")
    assert (answer.status_code, error(answer)["code"]) == (404, "not_found")
    answer = httpx.delete(f"{server.url}/v1/requests/me", headers={"x-request-id": "me"})
    assert answer.status_code == 404, "a request does not cancel itself"


def test_nobody_cancels_what_another_key_asked_for(shared: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        headers = {"x-request-id": "alices", "authorization": f"Bearer {KEYS['alice']}"}
        pending = pool.submit(speak, shared, "stuck", **headers)
        assert until(lambda: health(shared)["running"] == 1)
        url = f"{shared.url}/v1/requests/alices"
        assert httpx.delete(url).status_code == 401
        assert httpx.delete(url, headers={"authorization": f"Bearer {KEYS['bob']}"}).status_code == 404
        assert httpx.delete(url, headers={"x-api-key": KEYS["alice"]}).status_code == 200
        assert pending.result(DEADLINE_S).status_code == 499


# ── queues ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_full_queue_refuses_and_a_long_wait_ends(strict: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(speak, strict, "stuck", **{"x-request-id": "long"})
        assert until(lambda: loaded(strict, "stuck")["running"] == 1)
        waiting = pool.submit(speak, strict, "stuck")
        assert until(lambda: loaded(strict, "stuck")["queued"] == 1)
        refused = speak(strict, "stuck")
        assert (refused.status_code, error(refused)["code"]) == (429, "queue_full")
        assert "1 of 1" in error(refused)["message"]
        assert int(refused.headers["retry-after"]) >= 1
        late = waiting.result(DEADLINE_S)
        assert (late.status_code, error(late)["code"]) == (503, "queue_timeout")
        assert int(late.headers["retry-after"]) >= 1
        assert httpx.delete(f"{strict.url}/v1/requests/long").status_code == 200
        running.result(DEADLINE_S)


def test_a_client_with_many_requests_does_not_keep_another_waiting(shared: Server) -> None:
    """`turn` has one slot, and alice's 12 requests are there before bob's."""
    order: list[str] = []

    def ask(who: str) -> None:
        body = {"model": "turn", "input": "x", "response_format": "pcm"}
        headers = {"authorization": f"Bearer {KEYS[who]}"}
        httpx.post(f"{shared.url}/v1/audio/speech", json=body, headers=headers, timeout=DEADLINE_S)
        order.append(who)

    with ThreadPoolExecutor(13) as pool:
        many = [pool.submit(ask, "alice") for _ in range(12)]
        headers = {"authorization": f"Bearer {KEYS['alice']}"}
        url = f"{shared.url}/api/ps"
        assert until(
            lambda: any(
                model["name"] == "turn" and model["queued"] >= 10
                for model in httpx.get(url, headers=headers).json()["models"]
            )
        )
        one = pool.submit(ask, "bob")
        for request in (*many, one):
            request.result(DEADLINE_S)
    assert order.index("bob") < 6


# ── draining ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_while_it_drains_a_server_refuses_and_finishes(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS.replace("seconds: 120", "seconds: 30"))
    with serve(tmp_path) as server:
        got = bytearray()

        def listen() -> None:
            body = {"model": "slow", "input": "x", "response_format": "pcm"}
            with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=body) as answer:
                for chunk in answer.iter_bytes():
                    got.extend(chunk)

        listener = threading.Thread(target=listen)
        listener.start()
        assert until(lambda: len(got) > 0)
        server.process.send_signal(signal.SIGTERM)
        assert until(lambda: "draining" in server.events)
        ready = httpx.get(f"{server.url}/readyz")
        assert (ready.status_code, error(ready)["code"]) == (503, "server_draining")
        refused = speak(server, "echo")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert health(server)["status"] == "draining"
        listener.join(DEADLINE_S)
        assert len(got) == 30 * 48_000
        assert server.process.wait(DEADLINE_S) == 0


def test_a_second_signal_ends_at_once_and_leaves_no_child(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, YAPIT_SERVER_DRAIN_S="60") as server:
        assert speak(server, "espeak").status_code == 200
        child = loaded(server, "espeak")["pid"]
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(speak, server, "stuck")
            assert until(lambda: loaded(server, "stuck")["running"] == 1)
            server.process.send_signal(signal.SIGTERM)
            assert until(lambda: "draining" in server.events)
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(DEADLINE_S) == 128 + signal.SIGINT
            with pytest.raises(httpx.RemoteProtocolError):
                pending.result(DEADLINE_S)
        assert until(lambda: not Path(f"/proc/{child}").exists())


# ── warm-up ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_server_is_ready_when_its_models_are_warm(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    optional = "failing,second"
    with serve(tmp_path, YAPIT_ENGINE_WARM_UP="warm,deaf", YAPIT_ENGINE_WARM_UP_OPTIONAL=optional) as server:
        ready = httpx.get(f"{server.url}/readyz")
        if ready.status_code != 200:
            assert error(ready)["code"] == "server_starting"
            assert health(server)["status"] == "starting"
            assert httpx.get(f"{server.url}/livez").status_code == 200
        assert until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
        assert "ready" in server.events
        names = {model["name"] for model in httpx.get(f"{server.url}/api/ps").json()["models"]}
        assert names == {"warm", "deaf", "failing", "second"}
        assert health(server)["warnings"] == ["The model 'failing' did not warm up: The echo model was told to fail."]
        assert health(server)["healthy"] is True


@pytest.mark.parametrize(
    ("model", "reason"), [("unserved", "No installed plugin serves backend 'nobody'"), ("failing", "was told to fail")]
)
def test_a_required_model_that_does_not_warm_up_is_a_failed_start(tmp_path: Path, model: str, reason: str) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, YAPIT_ENGINE_WARM_UP=model) as server:
        assert server.process.wait(DEADLINE_S) == 2
    assert any(reason in str(line.get("line", "")) for line in server.lines if line["event"] == "unparsed")
    assert "ready" not in server.events
