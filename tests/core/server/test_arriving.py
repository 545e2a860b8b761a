"""A first request to a model whose weights are not here: they are fetched once, and its client learns how far."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub import Files, Generated, Hub, Repo, serve_hub
from live import DEADLINE_S, Server, serve, until

BIG = "model.safetensors"
MODELS = """
models:
  - {id: one, backend: echo, tasks: [synthesize], source: org/one}
  - {id: two, backend: echo, tasks: [synthesize], source: org/one, revision: main}
  - {id: gated, backend: echo, tasks: [synthesize], source: org/gated}
  - {id: free, backend: echo, tasks: [synthesize]}
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    files: Files = {"config.json": b"{}", BIG: Generated(2_000_000)}
    with serve_hub({"org/one": Repo(files), "org/gated": Repo(files, gated=True)}) as running:
        yield running


def environ(hub: Hub, tmp_path: Path, **more: str) -> dict[str, str]:
    (tmp_path / "models.yaml").write_text(MODELS)
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "", **more}


def speak(server: Server, model: str) -> httpx.Response:
    body = {"model": model, "input": "hi", "response_format": "pcm"}
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=DEADLINE_S)


def test_a_small_model_is_waited_for(hub: Hub, tmp_path: Path) -> None:
    with serve(tmp_path, **environ(hub, tmp_path)) as server:
        assert speak(server, "one").status_code == 200
        assert hub.sent[BIG] == 2_000_000
        assert speak(server, "two").status_code == 200
        assert speak(server, "free").status_code == 200
        assert hub.sent[BIG] == 2_000_000


def test_a_large_one_is_fetched_meanwhile_and_the_client_is_told_when_to_come_again(hub: Hub, tmp_path: Path) -> None:
    hold = hub.hold(BIG, 1_000_000)
    with serve(tmp_path, **environ(hub, tmp_path, YAPIT_PROVISIONING_WAIT_S="0.2")) as server:

        async def many() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
                body = {"model": "one", "input": "hi", "response_format": "pcm"}
                return await asyncio.gather(
                    *(client.post(f"{server.url}/v1/audio/speech", json=body) for _ in range(20))
                )

        answers = asyncio.run(many())
        assert {answer.status_code for answer in answers} == {503}
        error: dict[str, Any] = answers[-1].json()["error"]
        assert (error["code"], error["param"]) == ("model_downloading", "model")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert speak(server, "free").status_code == 200, "others are served meanwhile"
        hold.released.set()
        assert until(lambda: speak(server, "one").status_code == 200)
    assert hub.sent[BIG] == 2_000_000


def test_what_cannot_be_fetched_is_said_to_each_client_and_asked_once(hub: Hub, tmp_path: Path) -> None:
    with serve(tmp_path, **environ(hub, tmp_path)) as server:
        for _ in range(3):
            answer = speak(server, "gated")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "load_failed")
            assert f"{hub.url}/org/gated" in answer.json()["error"]["message"]
    assert sum("/api/models/org/gated" in line for line in hub.asked) == 1


def test_nothing_is_fetched_unasked_where_that_is_forbidden(hub: Hub, tmp_path: Path) -> None:
    asked = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    with serve(tmp_path, **asked, AUTO_DOWNLOAD_MODELS="0") as server:
        answer = speak(server, "kokoro")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "weights_missing")
        assert answer.json()["error"]["message"].endswith("yapit pull kokoro")
    assert hub.asked == []
