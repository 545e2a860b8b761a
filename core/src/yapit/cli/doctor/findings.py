"""What a doctor says, and how it looks at much side by side."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from msgspec import Struct

State = Literal["ok", "warning", "problem"]
Check = Callable[[], Iterable["Finding"]]
_LONGEST_S = 60.0  # for all checks; torch alone may take half of it on a slow disk


class Finding(Struct, frozen=True):
    """What was found.

    Args:
        check: what was looked at.
        state: how it is.
        message: what was found.
        mend: what to do about it.
    """

    check: str
    state: State
    message: str
    mend: str | None = None

    @property
    def line(self) -> str:
        """What was found and what to do, in one line."""
        return " ".join((f"{self.message}; {self.mend}" if self.mend else self.message).split())


def examined(checks: Mapping[str, Check], longest_s: float = _LONGEST_S) -> list[Finding]:
    """Return what all checks find, in their order; one that breaks, or takes too long, is a finding itself."""
    answers: dict[str, queue.SimpleQueue[list[Finding]]] = {name: queue.SimpleQueue() for name in checks}
    for name, check in checks.items():
        # Daemons: one that hangs must not keep the process.
        threading.Thread(target=_answer, args=(name, check, answers[name]), name=f"check {name}", daemon=True).start()
    end = time.monotonic() + longest_s
    return [finding for name, answer in answers.items() for finding in _awaited(name, answer, end)]


def _answer(name: str, check: Check, answer: "queue.SimpleQueue[list[Finding]]") -> None:
    try:
        found = list(check())
    except Exception as error:  # noqa: BLE001 - the other checks go on
        found = [Finding(name, "problem", f"could not be looked at ({type(error).__name__}: {error})")]
    answer.put(found)


def _awaited(name: str, answer: "queue.SimpleQueue[list[Finding]]", end: float) -> list[Finding]:
    try:
        return answer.get(timeout=max(0.0, end - time.monotonic()))
    except queue.Empty:
        return [Finding(name, "problem", "there was no answer in time")]
