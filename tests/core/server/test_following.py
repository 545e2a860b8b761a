"""Models that are registered while servers run: served by all of them, and by those that start later."""

import json
import urllib.parse
from pathlib import Path

import httpx

import databases
from live import Server, serve, until
from yapit.settings import Settings
from yapit.store import Store

PLUGIN = """
from typing import Any
from litestar import Request, delete, post
from yapit import hookimpl
from yapit.server.services import services

@post("/test/models", sync_to_thread=True)
def register(request: Request[Any, Any, Any], data: dict[str, Any]) -> dict[str, str]:
    return {"id": services(request).registry.register(data).id}

@delete("/test/models", status_code=200, sync_to_thread=True)
def unregister(request: Request[Any, Any, Any], name: str) -> dict[str, str]:
    return {"id": services(request).registry.unregister(name).id}

@hookimpl
def register_routes():
    return [register, unregister]
"""
ENTRY = {"id": "org/mine", "backend": "echo", "tasks": ["synthesize"], "options": {"seconds": 1}}


def environ(database: Settings, folder: Path) -> dict[str, str]:
    site = folder / "site"
    info = site / "registers-1.dist-info"
    if not site.exists():
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: registers\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[yapit.plugins]\nregisters = registers\n")
        (site / "registers.py").write_text(PLUGIN)
    given = {"YAPIT_DATA_DIR": database.data_dir, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(folder / "cache")}
    return given | ({"DATABASE_URL": database.database} if database.database else {})


def ids(server: Server) -> set[str]:
    return {entry["id"] for entry in httpx.get(f"{server.url}/v1/models").json()["data"]}


def speak(server: Server, model: str) -> httpx.Response:
    body = {"model": model, "input": "x", "response_format": "wav"}
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=20)


def loaded(server: Server) -> list[str]:
    return [entry["model"] for entry in httpx.get(f"{server.url}/api/ps").json()["models"]]


def test_two_servers_on_one_database_serve_the_same_models(database: Settings, tmp_path: Path) -> None:
    given = environ(database, tmp_path) | {"YAPIT_MODELS_REFRESH_S": "0.05"}
    with serve(tmp_path, **given) as one, serve(tmp_path, **given) as other:
        serve_the_same(one, other)


def serve_the_same(one: Server, other: Server) -> None:
    assert httpx.post(f"{one.url}/test/models", json=ENTRY).status_code == 201
    assert "org/mine" in ids(one), "at once where it was registered"
    assert until(lambda: "org/mine" in ids(other))
    assert speak(other, "org/mine").status_code == speak(one, "org/mine").status_code == 200
    refused = httpx.post(f"{other.url}/test/models", json=ENTRY)
    assert refused.status_code == 409
    assert refused.json()["error"]["param"] == "name"
    assert httpx.delete(f"{other.url}/test/models", params={"name": "org/mine"}).status_code == 200
    assert until(lambda: "org/mine" not in ids(one))
    assert until(lambda: loaded(one) == loaded(other) == []), "what was loaded of it is gone"
    assert speak(one, "org/mine").status_code == 404


def test_a_registered_model_survives_a_restart_and_may_be_warmed_up(database: Settings, tmp_path: Path) -> None:
    given = environ(database, tmp_path)
    with serve(tmp_path, **given) as first:
        assert httpx.post(f"{first.url}/test/models", json=ENTRY).status_code == 201
    with serve(tmp_path, **given, YAPIT_ENGINE_WARM_UP="org/mine", MODELS="org/mine") as second:
        assert until(lambda: httpx.get(f"{second.url}/readyz").status_code == 200)
        assert ids(second) == {"org/mine"}
        assert loaded(second) == ["org/mine"]
        assert speak(second, "tts-1").status_code == 200


def test_what_is_killed_after_it_answered_has_registered(database: Settings, tmp_path: Path) -> None:
    given = environ(database, tmp_path)
    with serve(tmp_path, **given) as first:
        assert httpx.post(f"{first.url}/test/models", json=ENTRY).status_code == 201
        first.process.kill()
    with serve(tmp_path, **given) as second:
        assert "org/mine" in ids(second)


def test_a_registered_model_that_is_none_any_more_does_not_stop_the_start(database: Settings, tmp_path: Path) -> None:
    store = Store.of(database)
    store.register({**ENTRY, "id": "wrong", "colour": "red"})
    store.register(ENTRY)
    store.close()
    with serve(tmp_path, **environ(database, tmp_path)) as server:
        assert "org/mine" in ids(server)
        assert "wrong" not in ids(server)
    said = [line for line in server.lines if line["event"] == "registered_model_left_out"]
    assert [(line["model"], line["level"]) for line in said] == [("wrong", "error")]


def test_a_database_that_is_down_is_said_once_and_disturbs_nobody(
    postgresql: databases.Postgresql, tmp_path: Path
) -> None:
    name = postgresql.make()
    settings = Settings(data_dir=str(tmp_path / "data"), database=postgresql.url(name))
    with serve(tmp_path, **environ(settings, tmp_path), YAPIT_MODELS_REFRESH_S="0.05") as server:
        assert httpx.post(f"{server.url}/test/models", json=ENTRY).status_code == 201
        postgresql.shut(name)
        assert until(lambda: "database_down" in server.events)
        refused = httpx.post(f"{server.url}/test/models", json={**ENTRY, "id": "second"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert speak(server, "org/mine").status_code == 200
        postgresql.open(name)
        assert until(lambda: "database_back" in server.events)
        assert httpx.post(f"{server.url}/test/models", json={**ENTRY, "id": "second"}).status_code == 201
    assert server.events.count("database_down") == 1
    assert server.process.returncode == 0
    everything = json.dumps(server.lines) + refused.text
    for secret in (databases.PASSWORD, urllib.parse.quote(databases.PASSWORD, safe=""), "s3cr"):
        assert secret not in everything


def test_a_server_that_has_nothing_to_keep_writes_nothing(tmp_path: Path) -> None:
    with serve(tmp_path, YAPIT_MODELS_REFRESH_S="0.05") as server:
        assert speak(server, "echo").status_code == 200
    assert not (tmp_path / "data").exists()
