"""What is known of the request that is being served, for everything below the edge that serves it.

The edge binds a ticket to the task that answers; whoever works for that request finds it with `current()`, in every
task and thread that it starts.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from yapit.errors import DeadlineError, YapitError

CacheOutcome = Literal["hit", "miss", "coalesced"]


class Ticket:
    """A request on its way: who asks, until when, and what they wish.

    Args:
        id: the request's id; several may share one, since clients choose them.
        client: who asks; clients get their turns in rotation.
        deadline: time of the event loop after which nobody wants the answer.
        keep_alive_s: how long the model stays loaded after this request; as set when None.
        store: whether the answer may come from the cache and go into it.
    """

    def __init__(
        self,
        id: str = "",  # noqa: A002 - what it is
        client: str = "",
        *,
        deadline: float | None = None,
        keep_alive_s: float | None = None,
        store: bool = True,
    ) -> None:
        self.id = id
        self.client = client
        self.deadline = deadline
        self.keep_alive_s = keep_alive_s
        self.store = store
        self.admitted = False  # had a slot before: what follows is not refused for a full queue
        self.held = set[tuple[str, str]]()  # loaded models that this request holds: task and model
        self.cache: CacheOutcome | None = None
        self._task: asyncio.Task[object] | None = None
        self._error: YapitError | None = None
        self._firm = False  # whether the deadline may be put off
        self._timer: asyncio.TimerHandle | None = None

    @property
    def reason(self) -> YapitError | None:
        """Why it was stopped; None if it was not."""
        return self._error

    def within(self, seconds: float, *, firm: bool = False) -> None:
        """Stop the request unless it is answered within so many seconds from now.

        This replaces an earlier limit, also by a later one, unless that is firm.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        if self._firm and self.deadline is not None and self.deadline <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.deadline, self._firm = deadline, firm or self._firm
        late = DeadlineError(f"The request took longer than {seconds:g} s and was stopped.")
        self._timer = loop.call_at(deadline, self.stop, late)

    def stop(self, error: YapitError) -> bool:
        """Cancel the task that answers, wherever it waits; return False if it has ended or been stopped before."""
        if self._task is None or self._task.done() or self._error is not None:
            return False
        self._error = error
        self._task.cancel()
        return True

    def stopped(self) -> YapitError | None:
        """Return the error of the stop for which a cancellation was just caught, and take that cancellation back.

        None if the cancellation is somebody else's, who must see it.
        """
        if self._error is None or self._task is None or self._task.uncancel() > 0:
            return None
        return self._error

    @contextmanager
    def bound(self) -> Iterator["Ticket"]:
        """Bind the ticket to the current task while it answers."""
        self._task = asyncio.current_task()
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)
            self._task = None
            if self._timer is not None:
                self._timer.cancel()


_current: ContextVar[Ticket] = ContextVar("ticket")


def current() -> Ticket:
    """Return the ticket of the request being served; where there is none, one of nobody in particular from now on."""
    ticket = _current.get(None)
    if ticket is None:
        ticket = Ticket()
        _current.set(ticket)
    return ticket
