"""What is loaded, by whom it was asked for, how long it stays: over HTTP and on the command line."""

import datetime as dt
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from live import MODELS, YAPIT, Server, serve, until

BUDGET = """
device: fake:0
engine:
  memory: {"fake:0": 8GB}
"""
BUDGET_MODELS = """
- {id: five, backend: echo, tasks: [synthesize], memory_bytes: 5000000000, options: {delay_s: 0.01, seconds: 60}}
- {id: four, backend: echo, tasks: [synthesize], memory_bytes: 4000000000}
- {id: nine, backend: echo, tasks: [synthesize], memory_bytes: 9000000000}
"""


def speak(server: Server, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "input": "x", "response_format": "pcm", **fields}
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=20)


def loaded(server: Server) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in httpx.get(f"{server.url}/api/ps").json()["models"]}


def stays_s(model: dict[str, Any]) -> float:
    expires, idle = (dt.datetime.fromisoformat(model[key]) for key in ("expires_at", "idle_since"))
    return (expires - idle).total_seconds()


def test_a_model_is_loaded_and_unloaded_by_hand(server: Server) -> None:
    done = httpx.post(f"{server.url}/models/load", json={"model": "slashed", "keep_alive": "1h"})
    assert (done.status_code, done.json()) == (
        200,
        {"success": True, "model": "org/echo", "status": {"value": "loaded", "reason": None}},
    )
    model = loaded(server)["org/echo"]
    assert stays_s(model) == pytest.approx(3600)
    assert (model["state"], model["task"], model["running"], model["queued"]) == ("loaded", "synthesize", 0, 0)
    assert model["details"]["family"] == "echo"
    done = httpx.post(f"{server.url}/v1/models/unload", json={"model": "org/echo"})
    assert done.json()["status"] == {"value": "unloaded", "reason": "unloaded: asked to"}
    assert "org/echo" not in loaded(server)
    again = httpx.post(f"{server.url}/models/unload", json={"model": "org/echo"})
    assert (again.status_code, again.json()["error"]["code"]) == (400, "model_not_loaded")


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("load", {"model": "absent"}, 404, "model"),
        ("unload", {"model": "absent"}, 404, "model"),
        ("load", {"model": "echo", "task": "sing"}, 400, "task"),
        ("unload", {"model": "echo", "task": "sing"}, 400, "task"),
        ("load", {"model": "deaf", "task": "synthesize"}, 400, "model"),
        ("load", {"model": "echo", "keep_alive": "soon"}, 400, "keep_alive"),
        ("load", {}, 400, "model"),
        ("unload", {}, 400, "model"),
    ],
)
def test_a_load_or_unload_that_makes_no_sense_is_refused(
    server: Server, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    answer = httpx.post(f"{server.url}/models/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_a_request_says_how_long_its_model_stays(server: Server) -> None:
    assert speak(server, "second", keep_alive="7m").status_code == 200
    assert stays_s(loaded(server)["second"]) == pytest.approx(420)
    assert speak(server, "second", keep_alive=-1).status_code == 200
    assert loaded(server)["second"]["expires_at"] is None
    assert speak(server, "second").status_code == 200
    assert stays_s(loaded(server)["second"]) == pytest.approx(300)
    assert speak(server, "second", keep_alive=0).status_code == 200
    assert until(lambda: "second" not in loaded(server))
    events = httpx.get(f"{server.url}/api/ps").json()["events"]
    assert (events[0]["model"], events[0]["event"], events[0]["reason"]) == ("second", "expired", "keep_alive is 0")
    refused = speak(server, "second", keep_alive="soon")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "keep_alive")


def test_a_process_gives_its_memory_back(server: Server) -> None:
    assert speak(server, "espeak").status_code == 200
    model = loaded(server)["espeak"]
    assert (model["memory_is_measured"], model["device"]) == (True, "cpu")
    assert model["memory_bytes"] > 10_000_000
    assert Path(f"/proc/{model['pid']}").exists()
    assert httpx.post(f"{server.url}/models/unload", json={"model": "espeak"}).status_code == 200
    assert not Path(f"/proc/{model['pid']}").exists()


def test_a_busy_model_is_not_unloaded(server: Server) -> None:
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json={"model": "slow", "input": "x"}) as answer:
        chunks = answer.iter_raw()  # named: httpx ends the stream with its iterator
        next(chunks)
        refused = httpx.post(f"{server.url}/models/unload", json={"model": "slow"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_busy")
    assert until(lambda: loaded(server)["slow"]["running"] == 0)


def test_the_budget_evicts_the_idle_and_never_the_busy_and_ps_says_why(tmp_path: Path) -> None:
    (tmp_path / "yapit.yaml").write_text(BUDGET)
    (tmp_path / "models.yaml").write_text(BUDGET_MODELS)
    with serve(tmp_path, YAPIT_ENGINE_LOAD_WAIT_S="0.3") as server:
        with httpx.stream("POST", f"{server.url}/v1/audio/speech", json={"model": "five", "input": "x"}) as answer:
            chunks = answer.iter_raw()  # named: httpx ends the stream with its iterator
            next(chunks)
            refused = speak(server, "four")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
            assert "'five' (5.0 GB) must leave" in refused.json()["error"]["message"]
            assert int(refused.headers["retry-after"]) >= 1
            assert [*loaded(server)] == ["five"]
        assert until(lambda: loaded(server)["five"]["running"] == 0)
        assert speak(server, "four").status_code == 200
        impossible = speak(server, "nine")
        assert impossible.status_code == 503
        assert "it needs 9.0 GB of fake:0, whose budget is 8.0 GB" in impossible.json()["error"]["message"]
        assert impossible.headers["x-should-retry"] == "false"
        found = httpx.get(f"{server.url}/api/ps").json()
        assert [model["name"] for model in found["models"]] == ["four"]
        assert found["devices"] == [{"device": "fake:0", "taken_bytes": 4 * 10**9, "budget_bytes": 8 * 10**9}]
        status = httpx.get(f"{server.url}/v1/models/five").json()["status"]
        why = "to make room for 'four', which needs 4.0 GB of fake:0"
        assert status == {"value": "unloaded", "reason": f"evicted: {why}"}
        assert [line["reason"] for line in server.lines if line["event"] == "model_unloaded"] == [why]
        told = subprocess.run(
            [YAPIT, "ps", "--url", server.url], capture_output=True, text=True, timeout=30, check=True
        )
    assert "four\tsynthesize\tloaded\tfake:0\tabout 4.0 GB\t0\t0\t" in told.stdout
    assert f"five\tsynthesize\tevicted\t{why}" in told.stdout
    assert "nine\tsynthesize\trefused\t" in told.stdout


def test_ps_shows_a_key_and_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, YAPIT_API_KEYS="secret-key") as server:
        port = server.url.rpartition(":")[2]

        def ps(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [YAPIT, "ps", *options],
                cwd=tmp_path,
                env={**os.environ, **environ},
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )

        assert ps("--json", YAPIT_PORT=port, YAPIT_API_KEYS="secret-key").returncode == 0
        refused = ps(YAPIT_PORT=port, YAPIT_API_KEYS="wrong-key")
        assert (refused.returncode, "status 401" in refused.stderr, "wrong-key" in refused.stderr) == (1, True, False)
        absent = ps("--url", "http://127.0.0.1:1")
        assert (absent.returncode, absent.stderr.startswith("yapit: no server answers at")) == (1, True)


def test_the_metrics_tell_what_happened(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path) as server:
        for _ in range(3):
            speak(server, "second")
        speak(server, "failing", stream=False)
        httpx.post(
            f"{server.url}/v1/audio/speech",
            json={"model": "stuck", "input": "x"},
            headers={"x-yapit-timeout": "0.1"},
        )
        httpx.post(f"{server.url}/models/unload", json={"model": "second"})
        httpx.post(f"{server.url}/models/load", json={"model": "deaf"})
        text = httpx.get(f"{server.url}/metrics").text
    second = 'model="second",plugin="echo",task="synthesize"'
    lines = set(text.splitlines())
    assert 'yapit_calls_total{model="second",outcome="ok",plugin="echo",task="synthesize"} 3.0' in lines
    assert 'yapit_calls_total{model="failing",outcome="backend_error",plugin="echo",task="synthesize"} 1.0' in lines
    assert 'yapit_calls_total{model="stuck",outcome="deadline_exceeded",plugin="echo",task="synthesize"} 1.0' in lines
    assert f"yapit_characters_total{{{second}}} 3.0" in lines
    assert f"yapit_audio_seconds_total{{{second}}} 3.0" in lines
    assert f"yapit_first_chunk_seconds_count{{{second}}} 3.0" in lines
    assert f"yapit_queue_wait_seconds_count{{{second}}} 3.0" in lines
    assert f"yapit_call_duration_seconds_count{{{second}}} 3.0" in lines
    assert f"yapit_load_duration_seconds_count{{{second}}} 1.0" in lines
    evicted = 'yapit_evictions_total{model="second",plugin="echo",reason="unloaded",task="synthesize"} 1.0'
    assert evicted in lines
    assert 'yapit_models_loaded{model="deaf",plugin="echo",task="embed"} 1.0' in lines
    assert f"yapit_models_loaded{{{second}}} 1.0" not in lines
    speech = 'app_name="yapit",method="POST",path="/v1/audio/speech"'
    assert f'yapit_http_requests_total{{{speech},status_code="200"}} 3.0' in lines
    assert f'yapit_http_requests_total{{{speech},status_code="500"}} 1.0' in lines
    assert f'yapit_http_requests_total{{{speech},status_code="504"}} 1.0' in lines
