"""The cache over HTTP: what a client is told, and what a second client is spared."""

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from live import DEADLINE_S, Server, serve, until

SPEECH = "/v1/audio/speech"
ON = {"YAPIT_CACHE_ENABLED": "true", "YAPIT_CACHE_SINGLE_FLIGHT": "true"}
MODELS = """
models:
  - {id: slow, backend: echo, tasks: [synthesize], options: {delay_s: 0.5, seconds: 2, max_concurrency: 50}}
  - {id: moody, backend: echo, tasks: [synthesize], deterministic: false}
  - {id: failing, backend: echo, tasks: [synthesize], options: {fail: true, seconds: 3}}
"""
HEADER = "x-yapit-cache"


def say(server: Server, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    said = {"model": "echo", "input": "Hello there.", "response_format": "wav", **body}
    return httpx.post(f"{server.url}{SPEECH}", json=said, headers=headers, timeout=DEADLINE_S)


def calls_of_adapters(server: Server, model: str) -> int:
    """Return how many calls got a slot of the model."""
    metrics = httpx.get(f"{server.url}/metrics").text
    found = re.search(rf'yapit_queue_wait_seconds_count{{model="{model}".*}} (\S+)', metrics)
    return int(float(found[1])) if found else 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text(MODELS)
    return tmp_path


def test_fifty_equal_requests_at_once_call_the_adapter_once(folder: Path) -> None:
    async def fifty(server: Server) -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=DEADLINE_S, limits=httpx.Limits(max_connections=50)) as client:
            body = {"model": "slow", "input": "Hello.", "response_format": "mp3"}
            return await asyncio.gather(*(client.post(f"{server.url}{SPEECH}", json=body) for _ in range(50)))

    with serve(folder, **ON) as server:
        answers = asyncio.run(fifty(server))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        outcomes = Counter(answer.headers[HEADER] for answer in answers)
        assert outcomes["miss"] == 1
        assert outcomes["coalesced"] + outcomes["hit"] == 49
        assert calls_of_adapters(server, "slow") == 1


def test_the_cache_is_told_to_clients_and_outlasts_the_server(folder: Path) -> None:
    with serve(folder, **ON) as server:
        first = say(server)
        assert first.headers[HEADER] == "miss"
        assert say(server).headers[HEADER] == "hit"
        assert say(server, input="Something else.").headers[HEADER] == "miss"
        assert say(server, stream=False).headers[HEADER] == "hit", "the sound is there"
    with serve(folder, **ON) as server:
        again = say(server)
        assert (again.headers[HEADER], again.content) == ("hit", first.content)
        assert say(server, response_format="mp3").headers[HEADER] == "hit"
        events = say(server, stream_format="sse")
        assert events.headers[HEADER] == "hit"
        assert '"audio_seconds":0.72' in events.text.replace(" ", "")
        assert calls_of_adapters(server, "echo") == 0
        assert 'yapit_models_loaded{model="echo"' not in httpx.get(f"{server.url}/metrics").text


def test_no_store_is_honoured(folder: Path) -> None:
    with serve(folder, YAPIT_CACHE_ENABLED="true") as server:
        say(server)
        for number in range(2):
            answer = say(server, {"Cache-Control": "no-store"})
            assert HEADER not in answer.headers
            assert calls_of_adapters(server, "echo") == number + 2
        say(server, {"Cache-Control": "max-age=0, No-Store"}, input="Something else.")
        assert say(server, input="Something else.").headers[HEADER] == "miss"


def test_what_is_not_deterministic_or_fails_is_not_kept(folder: Path) -> None:
    with serve(folder, **ON) as server:
        for number in range(2):
            assert HEADER not in say(server, model="moody").headers
            assert HEADER not in say(server, options={"temperature": 0.7}).headers
            assert calls_of_adapters(server, "moody") == number + 1
            with pytest.raises(httpx.RemoteProtocolError):
                say(server, model="failing")
            assert calls_of_adapters(server, "failing") == number + 1


def test_a_client_that_leaves_a_shared_request_spoils_it_for_nobody(folder: Path) -> None:
    async def two(server: Server) -> httpx.Response:
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
            body = {"model": "slow", "input": "Hello.", "response_format": "pcm"}
            async with client.stream("POST", f"{server.url}{SPEECH}", json=body) as leaving:
                staying = asyncio.create_task(client.post(f"{server.url}{SPEECH}", json=body))
                await anext(leaving.aiter_bytes())
            return await staying

    with serve(folder, **ON) as server:
        answer = asyncio.run(two(server))
        assert len(answer.content) == 2 * 48_000
        assert until(lambda: httpx.get(f"{server.url}/health").json()["running"] == 0)


def test_off_by_default(folder: Path) -> None:
    with serve(folder) as server:
        for number in range(2):
            assert HEADER not in say(server).headers
            assert calls_of_adapters(server, "echo") == number + 1
    assert not (folder / "data" / "cache").exists()


def test_a_broken_folder_costs_nobody_an_answer(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "cache").write_text("this is no folder")
    with serve(folder, **ON) as server:
        for _ in range(3):
            assert say(server).headers[HEADER] == "miss"
        assert server.events.count("cache_failed") == 1


def test_the_size_is_a_size(folder: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="a size in bytes is expected"),
        serve(folder, YAPIT_CACHE_MAX_SIZE="50%", **ON),
    ):
        pass
