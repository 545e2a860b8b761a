"""Processes of models that died: the next one starts later and later."""

from time import monotonic

from yapit.engine.residency.residents import Key
from yapit.errors import CapacityError

_LONGEST_WAIT_S = 60.0


class Deaths:
    """Counts the deaths in a row of each model's processes."""

    def __init__(self) -> None:
        self._counts: dict[Key, tuple[int, float]] = {}  # how many, and when to try again

    def add(self, key: Key) -> None:
        """Count a death; the first may be the request's fault, so only later ones are followed by a wait."""
        count = self._counts.get(key, (0, 0.0))[0] + 1
        wait_s = min(2.0 ** (count - 2), _LONGEST_WAIT_S) if count > 1 else 0.0
        self._counts[key] = (count, monotonic() + wait_s)

    def forgive(self, key: Key) -> None:
        """Forget the deaths: a call went well."""
        self._counts.pop(key, None)

    def check(self, key: Key) -> None:
        """Raise `CapacityError` while it is too early for another process."""
        count, again = self._counts.get(key, (0, 0.0))
        remaining_s = again - monotonic()
        if remaining_s > 0:
            message = f"The process of the model '{key[1]}' has died {count} times in a row."
            raise CapacityError(message, code="worker_backoff", retry_after_s=remaining_s)
