"""Health, models, voices, OpenAPI and keys."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from live import MODELS, Server, serve

KEY = "correct horse"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("locked"), YAPIT_API_KEYS=f"other,{KEY}") as running:
        yield running


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/ping", "/health"])
def test_the_probes_answer(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.json()["status"] == ("ready" if path == "/health" else "ok")


def test_health_lists_the_plugins_that_failed(tmp_path: Path) -> None:
    with serve(tmp_path, YAPIT_PLUGINS="echo,absent") as server:
        health = httpx.get(f"{server.url}/health").json()
    assert health["healthy"] is True
    assert [plugin["name"] for plugin in health["failed_plugins"]] == ["absent"]
    assert "pip install yapit-plugin-absent" in health["failed_plugins"][0]["error"]


def test_models_are_listed_and_found_by_any_spelling(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    entries = {entry["id"]: entry for entry in listed["data"]}
    assert {"espeak", "echo", "org/echo", "slow"} <= set(entries)
    assert entries["unserved"]["status"]["value"] == "unserved"
    assert "pip install yapit-plugin-nobody" in entries["unserved"]["status"]["reason"]
    assert entries["org/echo"]["owned_by"] == "echo"
    known = {name: (entries[name]["context_length"], entries[name]["dimensions"]) for name in ("deaf", "second")}
    assert known == {"deaf": (512, 8), "second": (None, None)}
    for path in ("/v1/models/org/echo", "/v1/models/org%2Fecho", "/models/org/echo", "/v1/models/slashed"):
        assert client.get(path).json()["id"] == "org/echo"
    by_task = client.get("/v1/models", params={"task": "embed"}).json()["data"]
    assert {"echo", "deaf", "pensive"} <= {entry["id"] for entry in by_task}
    assert all("embed" in entry["tasks"] for entry in by_task)
    both = client.get("/models").json()
    assert {name: both[name] for name in listed} == client.get("/v1/models").json()


def test_a_model_that_was_used_is_loaded(client: httpx.Client) -> None:
    client.post("/v1/audio/speech", json={"model": "second", "input": "x"})
    assert client.get("/v1/models/second").json()["status"] == {"value": "loaded", "reason": None}


def test_audio_models_and_voices_for_pickers(client: httpx.Client) -> None:
    models = client.get("/v1/audio/models").json()
    assert models["models"] == models["data"]
    assert "deaf" not in [entry["id"] for entry in models["data"]]
    voices = client.get("/v1/audio/voices", params={"model": "espeak"}).json()
    assert voices["voices"] == voices["data"]
    found = {voice["id"]: voice for voice in voices["voices"]}
    assert len(found) > 120
    assert found["en-us"]["model"] == "espeak"
    assert "en-US" in found["en-us"]["languages"]
    assert all(voice["name"] for voice in voices["voices"])
    everyone = client.get("/audio/voices").json()["voices"]
    assert {"espeak", "echo"} <= {voice["model"] for voice in everyone}
    assert client.get("/v1/audio/voices?model=echo&legacy=true").json() == {"voices": ["low", "high"]}


def test_the_schema_is_there_and_speaks_of_our_errors(client: httpx.Client) -> None:
    schema = client.get("/schema").json()
    assert schema == client.get("/schema/openapi.json").json()
    speech = schema["paths"]["/v1/audio/speech"]["post"]
    assert {"audio/mpeg", "audio/ogg", "text/event-stream", "application/json"} <= set(
        speech["responses"]["200"]["content"]
    )
    assert "ErrorEnvelope" in str(speech["responses"]["400"])


def test_without_a_key_only_open_routes_answer(locked: Server) -> None:
    with httpx.Client(base_url=locked.url) as client:
        for path in ("/health", "/livez", "/readyz", "/ping", "/v1/audio/voices", "/v1/audio/models"):
            assert client.get(path).status_code == 200
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {KEY}"},
            {"authorization": "Bearer"},
        ):
            answer = client.get("/v1/models", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert KEY not in answer.text
        for headers in ({"authorization": f"Bearer {KEY}"}, {"authorization": "bearer other"}, {"x-api-key": KEY}):
            assert client.get("/v1/models", headers=headers).status_code == 200
        assert client.post("/v1/audio/speech", json={"model": "echo", "input": "x"}).status_code == 401
    assert KEY not in str(locked.lines)


def test_models_restricts_what_is_served(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, MODELS="org/echo,espeak") as server:
        listed = httpx.get(f"{server.url}/v1/models").json()["data"]
        refused = httpx.post(f"{server.url}/v1/audio/speech", json={"model": "echo", "input": "x"})
    assert [entry["id"] for entry in listed] == ["org/echo", "espeak"]
    assert refused.status_code == 404
