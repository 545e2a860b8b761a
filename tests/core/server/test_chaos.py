"""Two hundred clients for half a minute who leave, hurry, cancel, and kill: nothing is lost and nothing leaks."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from live import Server, serve, until

CLIENTS, SECONDS = 200, 30
MODELS = """
- {id: quick, backend: echo, tasks: [synthesize], options: {seconds: 2}}
- {id: slow, backend: echo, tasks: [synthesize], options: {seconds: 8, delay_s: 0.02, max_concurrency: 4}}
- {id: single, backend: echo, tasks: [synthesize], options: {seconds: 2, delay_s: 0.01, max_concurrency: 1}}
- {id: boxed, backend: echo, tasks: [synthesize], executor: process, options: {seconds: 4, delay_s: 0.01}}
- {id: box-a, backend: echo, tasks: [synthesize], executor: process, exclusive: box, options: {seconds: 2}}
- {id: box-b, backend: echo, tasks: [synthesize], executor: process, exclusive: box, options: {seconds: 2}}
- {id: lasting, backend: echo, tasks: [synthesize], pin: true, options: {seconds: 1, delay_s: 0.01, max_concurrency: 2}}
- {id: failing, backend: echo, tasks: [synthesize], options: {fail: true, seconds: 3}}
"""
SECONDS_OF = {"quick": 2, "slow": 8, "single": 2, "boxed": 4, "box-a": 2, "box-b": 2, "lasting": 1, "failing": 3}
WEIGHTS = [8, 4, 6, 6, 1, 1, 4, 1]
# Busy, cancelled, died, draining or not loaded in time, too late.
REFUSALS = {429, 499, 500, 502, 503, 504}


class Chaos:
    """The clients, and what became of each of their requests."""

    def __init__(self, server: Server, name: str, seconds: float) -> None:
        self.server = server
        self.name = name
        self.random = random.Random(7)  # noqa: S311 - a scenario, not a secret
        self.outcomes: dict[str, list[str]] = {}
        self.ends = time.monotonic() + seconds
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        self.http = httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits)

    async def run(self) -> None:
        async with self.http, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self.client(number))
            group.create_task(self.saboteur(0.7, self.kill))
            group.create_task(self.saboteur(0.3, self.load_or_unload))

    async def client(self, number: int) -> None:
        sent = 0
        while time.monotonic() < self.ends:
            sent += 1
            name = f"{self.name}-{number}-{sent}"
            self.outcomes[name] = []
            (model,) = self.random.choices([*SECONDS_OF], WEIGHTS)
            manner = self.random.choice(["patient", "patient", "leaving", "hurried", "cancelled"])
            try:
                outcome = await self.request(name, model, manner)
            except httpx.TransportError as error:
                outcome = f"ended short: {type(error).__name__}"
            self.outcomes[name].append(outcome)

    async def request(self, name: str, model: str, manner: str) -> str:
        headers = {"x-request-id": name, "connection": "close" if manner == "leaving" else "keep-alive"}
        if manner == "hurried":
            headers["x-yapit-timeout"] = f"{self.random.uniform(0.01, 0.5):.3f}"
        body = {"model": model, "input": name, "response_format": "pcm"}
        got = 0
        cancel = asyncio.create_task(self.cancel(name)) if manner == "cancelled" else None
        try:
            async with self.http.stream("POST", "/v1/audio/speech", json=body, headers=headers) as answer:
                leaves_after = self.random.randrange(100_000) if manner == "leaving" else None
                async for chunk in answer.aiter_raw():
                    got += len(chunk)
                    if leaves_after is not None and got > leaves_after:
                        return "left"
        finally:
            if cancel is not None:
                await cancel
        if answer.status_code == 200:
            assert got == SECONDS_OF[model] * 48_000, f"{name} of {model} got {got} bytes"
            return "whole"
        assert answer.status_code in REFUSALS, f"{name} of {model}: {answer.status_code}"
        return f"refused: {answer.status_code}"

    async def cancel(self, name: str) -> None:
        await asyncio.sleep(self.random.uniform(0, 0.3))
        answer = await self.http.delete(f"/v1/requests/{name}")
        assert answer.status_code in (200, 404)

    async def saboteur(self, pause_s: float, deed: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self.ends:
            await asyncio.sleep(pause_s)
            await deed()

    async def kill(self) -> None:
        """Kill the process of some model."""
        models = (await self.http.get("/api/ps")).json()["models"]
        pids = [model["pid"] for model in models if model["pid"] and model["pid"] != self.server.process.pid]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(self.random.choice(pids), signal.SIGKILL)

    async def load_or_unload(self) -> None:
        what, model = self.random.choice(["load", "unload"]), self.random.choice([*SECONDS_OF])
        if model == "lasting":
            return  # it keeps its slots from the beginning to the end
        answer = await self.http.post(f"/models/{what}", json={"model": model})
        assert answer.status_code in {200, 400, 409, *REFUSALS}


def footprint(server: Server) -> tuple[int, int, int]:
    """Return the server's memory in bytes, its descriptors and its threads, without its children."""
    process = psutil.Process(server.process.pid)
    return process.memory_info().rss, process.num_fds(), process.num_threads()


@pytest.mark.timeout(240)
def test_every_request_has_one_outcome_and_the_server_is_as_before(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, YAPIT_LOG_LEVEL="info", YAPIT_ENGINE_KEEP_ALIVE="2s") as server:
        asyncio.run(Chaos(server, "warm", 5).run())
        calm(server)
        before = footprint(server)
        chaos = Chaos(server, "chaos", SECONDS)
        asyncio.run(chaos.run())
        calm(server)
        after = footprint(server)

        assert [name for name, outcomes in chaos.outcomes.items() if len(outcomes) != 1] == []
        logged = Counter(
            line["request_id"]
            for line in server.lines
            if line["event"] == "request" and line["path"] == "/v1/audio/speech" and line["method"] == "POST"
        )
        assert {name: logged[name] for name in chaos.outcomes if logged[name] != 1} == {}
        kinds = Counter(outcome for (outcome,) in chaos.outcomes.values())
        assert kinds["whole"] > CLIENTS
        assert {"left", "refused: 499", "refused: 504"} <= set(kinds), kinds
        assert "worker_died" in server.events

        assert after[0] < before[0] * 1.15, (before, after)
        assert after[1] <= before[1] + 5, (before, after)
        assert after[2] <= before[2] + 5, (before, after)
        for model, seconds in SECONDS_OF.items():
            if model != "failing":
                body = {"model": model, "input": "x", "response_format": "pcm"}
                answer = httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60)
                assert (answer.status_code, len(answer.content)) == (200, seconds * 48_000), model
        wrong = {"request_failed", "unparsed", "adapter_failed_to_let_go", "worker_hangs"}
        assert [line for line in server.lines if line["event"] in wrong] == []


def calm(server: Server) -> None:
    """Wait until nothing runs or waits, and nothing is loaded but what stays."""

    def busy() -> list[tuple[str, int, int]]:
        models = httpx.get(f"{server.url}/api/ps").json()["models"]
        return [(model["name"], model["running"], model["queued"]) for model in models]

    assert until(lambda: httpx.get(f"{server.url}/health").json()["running"] == 0)
    assert until(lambda: busy() == [("lasting", 0, 0)])
    children = psutil.Process(server.process.pid).children
    assert until(lambda: not children())
