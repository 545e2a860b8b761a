"""The built-in provisioner: a model's weights come onto this machine, or leave it."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from yapit.adapters import Provisioner
from yapit.provisioning.transfers import Amount, Transfer
from yapit.schemas import ProvisionRequest, ProvisionState
from yapit.settling import settle


class LocalProvisioner(Provisioner):
    """Fetches what a model needs, one after the other, and says how far it is of all.

    Closed early, it keeps the parts of what it was fetching.

    Args:
        transfers: what the model needs.
    """

    def __init__(self, transfers: Sequence[Transfer]) -> None:
        self.transfers = transfers

    def here(self) -> bool:
        """Tell whether all of it is on this machine; blocks, and asks nobody else."""
        return all(transfer.here() is not None for transfer in self.transfers)

    async def provision(self, request: ProvisionRequest) -> AsyncGenerator[ProvisionState, None]:
        """Yield `planned`, then `downloading` a few times a second, and `ready`; or `removed`.

        Raises:
            YapitError: something cannot be had, with the status that says why.
        """
        if request.action == "remove":
            yield await self._remove(plan=request.plan)
            return
        amounts = [await asyncio.to_thread(transfer.plan) for transfer in self.transfers]
        yield _state("planned", amounts)
        if request.plan:
            return
        for index, transfer in enumerate(self.transfers):
            fetching = _Fetching(transfer)
            try:
                while (amount := await fetching.next()) is not None:
                    amounts[index] = amount
                    yield _state("downloading", amounts)
            finally:
                await fetching.stop()
        commits = {transfer.source: transfer.commit for transfer in self.transfers if transfer.commit}
        yield _state("ready", amounts, commits=commits)

    async def _remove(self, *, plan: bool) -> ProvisionState:
        freed = 0
        if not plan:
            freed = sum([await asyncio.to_thread(transfer.delete) for transfer in self.transfers])
        return ProvisionState(state="removed", details={"bytes_freed": freed})


def _state(name: str, amounts: Sequence[Amount], **details: Any) -> ProvisionState:
    done, total = (sum(getattr(amount, name) for amount in amounts) for name in ("bytes_done", "bytes_total"))
    rate = sum(amount.bytes_per_s for amount in amounts if amount.bytes_done < amount.bytes_total)
    return ProvisionState(
        state=name,
        files_done=sum(amount.files_done for amount in amounts),
        files_total=sum(amount.files_total for amount in amounts),
        bytes_done=done,
        bytes_total=total,
        bytes_per_s=rate,
        eta_s=0.0 if done >= total else (total - done) / rate if rate else None,
        details=details,
    )


class _Fetching:
    """A transfer on a thread; what it says last is what counts."""

    def __init__(self, transfer: Transfer) -> None:
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._said: Amount | None = None
        self._news = asyncio.Event()
        self._running = self._loop.run_in_executor(None, transfer.fetch, self._watch, self._stop.is_set)
        self._running.add_done_callback(lambda _: self._news.set())

    async def next(self) -> Amount | None:
        """Return how far it is when that has changed; None when it has ended.

        Raises:
            YapitError: it failed.
        """
        await self._news.wait()
        self._news.clear()
        said, self._said = self._said, None
        if said is None:
            self._running.result()
        elif self._running.done():
            self._news.set()
        return said

    async def stop(self) -> None:
        """End it, and wait for its thread."""
        self._stop.set()
        await settle(self._running)

    def _watch(self, amount: Amount) -> None:
        self._loop.call_soon_threadsafe(self._say, amount)

    def _say(self, amount: Amount) -> None:
        self._said = amount
        self._news.set()
