"""What happened to models lately, and why."""

from collections import deque
from collections.abc import Callable, Iterator
from time import time
from typing import Literal

from msgspec import Struct

from yapit.catalog import Model
from yapit.tasks import Task

_KEPT = 100
Happening = Literal["loaded", "unloaded", "expired", "evicted", "refused", "failed", "died"]


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened to a model, `at` seconds since 1970, and why."""

    at: float
    model: str
    task: str
    event: Happening
    reason: str


class History:
    """The last events, newest first; `listeners` are told of each."""

    def __init__(self) -> None:
        self._events = deque[Event](maxlen=_KEPT)
        self.listeners: list[Callable[[Event], None]] = []

    def __iter__(self) -> Iterator[Event]:
        return reversed(self._events)

    def add(self, task: Task, model: Model, event: Happening, reason: str) -> None:
        """Note what has just happened."""
        happened = Event(at=time(), model=model.id, task=task.name, event=event, reason=reason)
        self._events.append(happened)
        for listener in self.listeners:
            listener(happened)

    def last(self, model: Model) -> Event | None:
        """Return what happened to the model last."""
        return next((event for event in self if event.model == model.id), None)
