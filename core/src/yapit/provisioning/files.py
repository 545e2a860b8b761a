"""Files of URLs: into a folder of yapit's own, checked, and from nowhere that is not public."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
from huggingface_hub import is_offline_mode

from yapit import addresses
from yapit.addresses import Asker
from yapit.errors import ConflictError, RemoteError, StoppedError, StorageFullError, YapitError
from yapit.hub.contents import Patience
from yapit.hub.parts import Part, in_thread, locked, try_lock
from yapit.hub.progress import Rate
from yapit.hub.refusals import house_error
from yapit.hub.repositories import File
from yapit.hub.transfers import check_room
from yapit.provisioning.places import Facts, Place
from yapit.provisioning.receiving import Receiver, Wanted, counted
from yapit.provisioning.transfers import Amount, Stop, Transfer
from yapit.quantities import size
from yapit.settings import ProvisioningSettings
from yapit.settling import settle
from yapit.weights import Weights, check_file_url

Watch = Callable[[Amount], object]
T = TypeVar("T")
_SILENCE_S = 10.0  # without a byte
_LOOK_S = 0.05  # how often `stop` is asked
_SHOW_S = 0.2  # how often `watch` is called, at most


class FileTransfer(Transfer):
    """The file of a URL.

    Only addresses of the public internet are asked, unless the settings allow others; the same holds for each redirect.

    Args:
        weights: the URL, and the checksum that the file must have.
        settings: tokens by host, the largest size, and whether private addresses are asked.
        data_dir: where files are kept.
        patience: with a host that does not answer.

    Raises:
        InvalidInputError: it is no URL of a file of weights.
    """

    def __init__(
        self, weights: Weights, settings: ProvisioningSettings, data_dir: Path, patience: Patience | None = None
    ) -> None:
        check_file_url(weights.source)
        self._place = Place(weights.source, data_dir)
        self.source = self._place.url
        self._patience = patience or Patience()
        self._private = settings.allow_private_addresses
        self._wanted = Wanted(
            url=weights.source,
            sha256=weights.sha256.lower() if weights.sha256 else None,
            max_bytes=size(settings.max_file_bytes) or 0,
            tokens={host.lower(): token for host, token in settings.tokens.items()},
        )
        self._rate = Rate()
        self._done_bytes, self._total_bytes = 0, 0

    def here(self) -> Path | None:
        """Return the file, if it is whole, and the right one."""
        return self._place.here(self._wanted.sha256)

    def plan(self) -> Amount:
        """Ask the URL's host how large the file is; nobody, if it is here."""
        found = self.here()
        if found is not None:
            whole = found.stat().st_size
            return Amount(files_done=1, files_total=1, bytes_done=whole, bytes_total=whole)
        facts = asyncio.run(self._asking(lambda receiver: receiver.ask()))
        self._done_bytes, self._total_bytes = self._place.kept_bytes, facts.size_bytes or 0
        return self._amount()

    def fetch(self, watch: Watch, stop: Stop) -> Path:
        """Fetch the file, or what is missing of it; what another process fetches is waited for."""
        try:
            asyncio.run(self._watched(self._asking(self._bring), watch, stop))
        except OSError as error:
            failed = house_error(self.source, None, error)
            if isinstance(failed, StorageFullError):
                self.discard()
            raise failed from error
        except StorageFullError:
            self.discard()
            raise
        watch(self.plan())
        return self._place.file

    def discard(self) -> int:
        """Remove the part of the file, unless it is being written."""
        return self._alone(self._place.forget_part)

    def delete(self) -> int:
        """Remove the file and its part."""
        return self._alone(lambda: self._place.forget() + self._place.forget_part())

    def _alone(self, remove: Callable[[], int]) -> int:
        self._place.lock.parent.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self._place.lock)
        if lock is None:
            return 0
        try:
            return remove()
        finally:
            lock.release()

    # ── over the network ──────────────────────────────────────────────────────────────────────────────────────────────
    async def _asking(self, work: Callable[[Receiver], Coroutine[Any, Any, T]]) -> T:
        if is_offline_mode():
            message = f"The file of '{self.source}' is not on this machine, and offline mode (HF_HUB_OFFLINE) is on."
            raise ConflictError(message, code="offline")
        silence_s = self._patience.silence_s or _SILENCE_S
        async with addresses.client(httpx.Timeout(silence_s)) as client:
            allowed = (lambda _: True) if self._private else addresses.is_public
            asker = Asker(client, resolve=addresses.resolve, allowed=allowed, max_redirects=5)
            return await work(Receiver(self._wanted, asker, self._patience))

    async def _bring(self, receiver: Receiver) -> None:
        place = self._place
        async with locked(place.lock, self._look):
            if self.here() is not None:
                return
            try:
                # No size is known yet that the part could be too large for.
                room = File(name=place.file.name, size_bytes=self._wanted.max_bytes, blob="", sha256="unknown")
                async with Part.open(place.part, room) as part:
                    facts = counted(await self._right(receiver, part), part)
                    await in_thread(place.note, facts)
                    await in_thread(part.finish, place.file)
            except YapitError as error:
                if error.code in ("checksum_mismatch", "file_too_large"):
                    place.forget_part()
                raise
            place.forget_part()

    async def _right(self, receiver: Receiver, part: Part) -> Facts:
        """Fetch what is missing; if all of it is wrong then, once more from the start."""
        facts = self._place.part_facts
        self._done_bytes = part.size
        if facts is not None and facts.size_bytes is not None:
            self._expect(facts.size_bytes, part.size)
        while True:
            resumed = part.size > 0 and facts is not None
            found = await receiver.receive(part, facts, self._begun, lambda count: self._came(part, count))
            if self._wanted.sha256 is None or part.digest.startswith(self._wanted.sha256):
                return found
            part.restart()
            if not resumed:
                message = f"The file of '{self.source}' is not the one whose checksum (sha256) was given."
                raise RemoteError(message, code="checksum_mismatch")
            facts = None

    def _begun(self, facts: Facts) -> None:
        self._done_bytes = 0
        self._expect(facts.size_bytes or 0, 0)
        self._place.note_part(facts)

    def _expect(self, total_bytes: int, here_bytes: int) -> None:
        self._total_bytes = total_bytes
        check_room(self._place.file.parent, max(0, total_bytes - here_bytes), self.source)

    def _came(self, part: Part, count: int) -> None:
        self._done_bytes = part.size
        self._rate.received(count)

    def _look(self) -> None:
        """See how far the other is who fetches it."""
        self._done_bytes = self._place.kept_bytes

    def _amount(self) -> Amount:
        return Amount(
            files_done=0,
            files_total=1,
            bytes_done=self._done_bytes,
            bytes_total=self._total_bytes,
            bytes_per_s=self._rate.bytes_per_s(),
        )

    async def _watched(self, work: Coroutine[Any, Any, None], watch: Watch, stop: Stop) -> None:
        """Do the work, and tell how far it is; end it when `stop` says so."""
        task = asyncio.ensure_future(work)
        turns = 0
        try:
            while not task.done():
                if stop():
                    raise StoppedError(f"The transfer of '{self.source}' was stopped; what is here of it stays.")
                if turns % round(_SHOW_S / _LOOK_S) == 0:
                    watch(self._amount())
                turns += 1
                await asyncio.wait([task], timeout=_LOOK_S)
        finally:
            task.cancel()
            await settle(task)
        task.result()
