"""What happens to models, for those who look on: numbered, so that one who lost the connection misses nothing."""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct

from yapit.engine import Engine
from yapit.engine import Event as Happening
from yapit.provisioning import RUNNING, Downloads
from yapit.registry import Registry
from yapit.server.managing.telling import told
from yapit.server.moments import moment

_KEPT = 1000
_LOOK_S = 0.5  # how often one who looks on asks whether the server ends
_BEAT_S = 15.0  # proxies close connections that say nothing for a minute


class Event(Struct, frozen=True, kw_only=True):
    """Something that has happened.

    Args:
        id: grows; of one life of the server.
        type: snapshot, download, model, registered or unregistered.
        data: JSON.
    """

    id: str
    type: str
    data: bytes


class Feed:
    """Collects what happens, and tells it.

    Args:
        engine: whose models are loaded and unloaded.
        registry: whose models come and go.
        downloads: that come forward.
    """

    def __init__(self, engine: Engine, registry: Registry, downloads: Downloads) -> None:
        self._engine = engine
        self._registry = registry
        self._downloads = downloads
        self._life = secrets.token_hex(4)
        self._last = 0  # number of the last event
        self._kept = deque[tuple[int, Event]](maxlen=_KEPT)
        self._news = asyncio.Event()
        self._seen = registry.catalog
        self.readers = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Collect for as long as the block lasts."""
        listeners = self._engine.residency.history.listeners
        listeners.append(self._happened)
        try:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._follow_downloads(), name="downloads' events")
                try:
                    yield
                finally:
                    following.cancel()
        finally:
            listeners.remove(self._happened)

    def look(self) -> None:
        """Tell which models came and went, if any did."""
        before, now = self._seen, self._registry.catalog
        if now is before:
            return
        self._seen = now
        old, new = ({model.id: model for model in catalog} for catalog in (before, now))
        for name in [name for name in old if name not in new]:
            self._tell("unregistered", model=name)
        for name in [name for name, model in new.items() if old.get(name) != model]:
            self._tell("registered", model=name, changed=name in old)

    async def read(
        self, after: str | None, ends: Callable[[], bool], beat_s: float = _BEAT_S
    ) -> AsyncGenerator[Event | None, None]:
        """Yield what has happened since an event, and what happens; None when nothing does for a while.

        Who names no event, or one that is not known any more, gets a snapshot first.

        Args:
            after: id of the last event that was read.
            ends: tells that nothing shall be yielded any more.
            beat_s: how long a while is.
        """
        self.readers += 1
        try:
            number = self._number(after)
            silent_s = 0.0
            while not ends():
                if number is None or (self._kept and number < self._kept[0][0] - 1):
                    number = self._last
                    yield self._snapshot()
                    silent_s = 0.0
                    continue  # the reader may have taken long
                news = self._news
                for place, event in [each for each in self._kept if each[0] > number]:
                    number, silent_s = place, 0.0
                    yield event
                if number < self._last:
                    continue
                try:
                    async with asyncio.timeout(min(_LOOK_S, beat_s)):
                        await news.wait()
                except TimeoutError:
                    silent_s += min(_LOOK_S, beat_s)
                if silent_s >= beat_s:
                    silent_s = 0.0
                    yield None
        finally:
            self.readers -= 1

    def _number(self, after: str | None) -> int | None:
        life, _, number = (after or "").partition("-")
        if life != self._life or not number.isdecimal() or int(number) > self._last:
            return None
        return int(number)

    def _snapshot(self) -> Event:
        engine = self._engine
        models = [{"id": model.id, "status": engine.status(model)} for model in engine.catalog]
        downloads = [told(download) for download in self._downloads.all() if download.state in (*RUNNING, "paused")]
        return self._event("snapshot", models=models, downloads=downloads)

    def _event(self, kind: str, **fields: Any) -> Event:
        return Event(id=f"{self._life}-{self._last}", type=kind, data=msgspec.json.encode({"type": kind, **fields}))

    def _tell(self, kind: str, **fields: Any) -> None:
        self._last += 1
        self._kept.append((self._last, self._event(kind, **fields)))
        self._news.set()
        self._news = asyncio.Event()

    def _happened(self, event: Happening) -> None:
        fields = {"event": event.event, "task": event.task, "reason": event.reason}
        self._tell("model", model=event.model, at=moment(event.at), **fields)

    async def _follow_downloads(self) -> None:
        async with aclosing(self._downloads.watch()) as changes:
            async for download in changes:
                self._tell("download", **msgspec.structs.asdict(told(download)))
