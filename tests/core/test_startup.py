"""A server with twenty plugins starts, whatever they are like; how fast is measured in benchmarks/."""

from pathlib import Path

import httpx

from live import serve
from twenty_plugins import install


def test_the_server_starts_with_twenty_plugins_of_which_one_raises(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site)
    with serve(tmp_path, PYTHONPATH=str(site), XDG_CACHE_HOME=str(tmp_path / "cache")) as server:
        health = httpx.get(f"{server.url}/health").json()
        models = [entry["id"] for entry in httpx.get(f"{server.url}/v1/models").json()["data"]]
        spoken = httpx.post(f"{server.url}/v1/audio/speech", json={"model": "espeak", "input": "x"})
    assert health["failed_plugins"] == [{"name": "number0", "error": "OSError: no GPU driver"}]
    assert {f"model-{number}" for number in range(1, 20)} <= set(models)
    assert spoken.status_code == 200
    failures = [line for line in server.lines if line["event"] == "plugin_failed"]
    assert [line["plugin"] for line in failures] == ["number0"]
