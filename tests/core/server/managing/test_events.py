"""Events: what happens is told, in order, and who lost the connection misses nothing."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from core.server.managing.conftest import BIG, MEGABYTE, Managed, managed
from hub import Hub
from live import until
from loops import run
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.provisioning import Downloads, provisioner_of
from yapit.registry import Registry
from yapit.server.managing.feed import Event, Feed
from yapit.settings import Settings
from yapit.store import Store


class Stream:
    """The events of one connection."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.iter_lines()
        self.last = ""

    def next(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last = value
            elif name == "data":
                found = json.loads(value)
            elif not line and found:
                return found
        raise AssertionError("the stream has ended")

    def until(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the events up to one that is like this."""
        seen = []
        while True:
            seen.append(self.next())
            if seen[-1]["type"] == kind and all(seen[-1].get(name) == value for name, value in fields.items()):
                return seen


@contextmanager
def events(api: Managed, **headers: str) -> Iterator[Stream]:
    with httpx.stream("GET", f"{api.server.url}/models/events", headers=headers, timeout=20) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Stream(answer)


def test_what_happens_to_a_model_is_told_from_its_registration_to_its_end(api: Managed) -> None:
    with events(api) as stream:
        snapshot = stream.next()
        assert snapshot["type"] == "snapshot"
        assert {"id": "echo", "status": {"value": "unloaded", "reason": None}} in snapshot["models"]
        api.download(config={"backend": "echo", "tasks": ["embed"]})
        seen = stream.until("download", status="completed")
        assert seen[0] == {"type": "registered", "model": "small", "changed": False}
        done = [event["bytes_done"] for event in seen if event["type"] == "download"]
        assert done == sorted(done)
        api.client.post("/models/small/load")
        assert stream.until("model", event="loaded")[-1]["model"] == "small"
        api.client.delete("/models/download/small")
        assert stream.until("model", event="unloaded")[-1]["reason"] == "asked to"
        assert stream.until("unregistered")[-1]["model"] == "small"


def test_who_comes_back_gets_what_was_missed_and_no_more(api: Managed) -> None:
    with events(api) as stream:
        stream.next()
        last = stream.last
    api.client.post("/models/echo/load", json={"task": "embed"})
    api.client.post("/models/echo/unload")
    with events(api, **{"last-event-id": last}) as stream:
        told = [stream.next() for _ in range(2)]
        assert [(event["type"], event["event"]) for event in told] == [("model", "loaded"), ("model", "unloaded")]
    with events(api, **{"last-event-id": "0-1"}) as stream:
        assert stream.next()["type"] == "snapshot", "another life of the server"
    with events(api, **{"last-event-id": f"{last.partition('-')[0]}-999999"}) as stream:
        assert stream.next()["type"] == "snapshot"


def test_a_snapshot_has_the_downloads_that_run(api: Managed) -> None:
    held = api.hub.hold(BIG, 2 * MEGABYTE)
    download_id = api.download(model_id="org/big", name="big").json()["download_id"]
    assert held.reached.wait(20)
    assert until(lambda: api.status(download_id)["bytes_done"] > MEGABYTE)
    with events(api) as stream:
        (running,) = stream.next()["downloads"]
    assert (running["download_id"], running["status"], running["model_name"]) == (download_id, "downloading", "big")
    held.released.set()


def test_one_who_looks_on_does_not_keep_the_server_from_ending(hub: Hub, tmp_path: Path) -> None:
    with managed(hub, tmp_path, YAPIT_SERVER_DRAIN_S="90") as api, events(api) as stream:
        stream.next()
        api.server.process.terminate()
        assert api.server.process.wait(20) == 0


def test_a_server_whose_readers_left_forgets_them(api: Managed) -> None:
    for _ in range(3):
        with events(api) as stream:
            stream.next()
    assert until(lambda: api.server.events.count("client_left") == 3)


# ── the feed by itself ────────────────────────────────────────────────────────────────────────────────────────────────
def feed(settings: Settings) -> tuple[Feed, Engine]:
    plugins = Plugins.load(["echo"])
    registry = Registry(settings, plugins, Store.of(settings))
    engine = Engine(settings, plugins, registry.catalog)
    downloads = Downloads(
        lambda name: registry.catalog[name],
        lambda model: provisioner_of(model, plugins, settings),
        parallel=1,
        data_dir=Path(settings.data_dir),
    )
    return Feed(engine, registry, downloads), engine


def test_silence_is_broken_by_beats_and_a_reader_who_leaves_is_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        found, engine = feed(Settings(data_dir=str(tmp_path)))
        async with found.running():
            async with aclosing(found.read(None, lambda: False, beat_s=0.01)) as read:
                first = await anext(read)
                assert first is not None
                assert first.type == "snapshot"
                assert await anext(read) is None
                assert found.readers == 1
            assert found.readers == 0
        assert engine.residency.history.listeners == []
        await engine.close()

    run(main())


def test_a_reader_who_falls_too_far_behind_gets_a_snapshot(tmp_path: Path) -> None:
    async def main() -> None:
        found, engine = feed(Settings(data_dir=str(tmp_path)))
        async with found.running(), aclosing(found.read(None, lambda: False)) as read:
            await anext(read)
            for number in range(1500):
                found._tell("model", model=str(number))
            after = await anext(read)
            assert after is not None
            assert after.type == "snapshot"
            found._tell("model", model="new")
            last: Event | None = await anext(read)
            assert last is not None
            assert b'"new"' in last.data
        await engine.close()

    run(main())


def test_a_feed_ends_when_the_server_does(tmp_path: Path) -> None:
    async def main() -> None:
        found, engine = feed(Settings(data_dir=str(tmp_path)))
        ends = False
        async with found.running(), aclosing(found.read(None, lambda: ends, beat_s=0.01)) as read:
            await anext(read)
            ends = True
            async with asyncio.timeout(5):
                assert [event async for event in read] in ([], [None])
        await engine.close()

    run(main())
