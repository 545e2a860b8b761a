"""Models leave: whole, only when nobody uses them, and only what is theirs."""

from pathlib import Path

import httpx

from core.server.managing.conftest import BIG, MEGABYTE, Managed
from live import until

# Weights of the hub, and a plugin that needs no torch to load them.
ECHO = {"backend": "echo", "tasks": ["embed", "synthesize"]}


def loaded(api: Managed) -> list[str]:
    return [f"{model['name']} {model['task']}" for model in api.client.get("/api/ps").json()["models"]]


def blobs(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "hf" / "hub").glob("models--*/**/*") if path.is_file()]


def test_a_loaded_model_is_unloaded_and_then_removed(api: Managed, tmp_path: Path) -> None:
    api.fetch(config=ECHO)
    done = api.client.post("/models/small/load", json={"keep_alive": "1h"})
    assert (done.status_code, done.json()["status"]["value"]) == (200, "loaded")
    assert loaded(api) == ["small embed", "small synthesize"]
    state = api.client.get("/models/small/status").json()
    assert (state["model_name"], state["status"]["value"], len(state["loaded"])) == ("small", "loaded", 2)
    assert state["download"]["status"] == "completed"
    managed = api.client.get("/models/managed").json()
    assert managed["summary"]["total_loaded"] == 1
    assert managed["downloaded_models"][0]["device"] == "cpu"
    gone = api.client.delete("/models/download/small")
    assert (gone.status_code, gone.json()["unregistered"]) == (200, True)
    assert (loaded(api), blobs(tmp_path)) == ([], [])
    assert api.client.get("/v1/models/small").status_code == 404
    assert api.client.get("/models/cache/info").json()["total_size_mb"] == 0


def test_a_busy_model_stays_and_is_not_removed(api: Managed, tmp_path: Path) -> None:
    slow = {"backend": "echo", "tasks": ["synthesize"], "options": {"delay_s": 0.05, "seconds": 120}}
    api.fetch(config=slow)
    speech = {"model": "small", "input": "x", "response_format": "pcm"}
    with httpx.stream("POST", f"{api.server.url}/v1/audio/speech", json=speech) as answer:
        chunks = answer.iter_raw()  # named: httpx ends the stream with its iterator
        next(chunks)
        for request in (("DELETE", "/models/download/small"), ("POST", "/models/small/unload")):
            refused = api.client.request(*request)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_busy")
            assert refused.json()["success"] is False
        assert loaded(api) == ["small synthesize"]
        assert blobs(tmp_path)
    assert until(lambda: api.client.delete("/models/download/small").status_code == 200)


def test_a_running_download_ends_with_its_model(api: Managed, tmp_path: Path) -> None:
    held = api.hub.hold(BIG, 2 * MEGABYTE)
    download_id = api.download(model_id="org/big", name="big").json()["download_id"]
    assert held.reached.wait(20)
    assert until(lambda: api.status(download_id)["bytes_done"] > MEGABYTE)
    gone = api.client.delete("/models/download/big")
    assert (gone.status_code, gone.json()["unregistered"]) == (200, True)
    assert api.status(download_id)["status"] == "cancelled"
    assert [path for path in blobs(tmp_path) if path.name.endswith(".incomplete")] == []
    assert "big" not in api.served


def test_who_shares_the_files_is_named_and_stays_served(api: Managed) -> None:
    api.fetch()
    api.fetch(name="twin")
    gone = api.client.delete("/models/download/small").json()
    assert gone["shared_with"] == ["twin"]
    assert "twin" in api.served
    assert api.client.get("/models/download/twin/info").json()["info"]["downloaded"] is False


def test_a_model_of_a_file_loses_its_weights_and_stays(api: Managed) -> None:
    started = api.download(model_id="suno/bark", name="bark_tts")
    assert api.ended(started.json()["download_id"])["status"] == "completed"
    gone = api.client.delete("/models/download/bark_tts").json()
    assert (gone["unregistered"], gone["bytes_freed"] > 20_000) == (False, True)
    assert "suno/bark" in api.served
    for nothing in ("bark_tts", "echo"):
        refused = api.client.delete(f"/models/download/{nothing}")
        assert (refused.status_code, refused.json()["message"]) == (404, f"Model not found in cache: {nothing}")


def test_a_folder_of_somebody_s_own_is_not_removed(api: Managed, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / BIG).write_bytes(b"mine")
    local = api.download(source="local", model_id=str(folder), name="mine", config=ECHO)
    assert (local.status_code, local.json()["status"]) == (200, "completed"), local.text
    gone = api.client.delete("/models/download/mine").json()
    assert (gone["unregistered"], gone["bytes_freed"]) == (True, 0)
    assert (folder / BIG).read_bytes() == b"mine"
