"""One thing that comes onto this machine: a repository of the hub, or a file; all of it blocks."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from yapit.settings import ProvisioningSettings
from yapit.weights import Weights

if TYPE_CHECKING:
    from yapit import hub

Stop = Callable[[], bool]


class Amount(Struct, frozen=True, kw_only=True):
    """How much of something is there.

    Args:
        files_done: that are there.
        files_total: that are wanted.
        bytes_done: that are there, kept parts too.
        bytes_total: that are wanted.
        bytes_per_s: that come now.
    """

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    bytes_per_s: float = 0.0


class Transfer(ABC):
    """Something that a model needs, here or not yet."""

    source: str
    commit: str | None = None  # of a repository, once it is known

    @abstractmethod
    def here(self) -> Path | None:
        """Return where it is if all of it is on this machine; nobody else is asked."""

    @abstractmethod
    def plan(self) -> Amount:
        """Ask where it comes from what there is, and return how much of that is here.

        Raises:
            YapitError: it cannot be had, with the status that says why.
        """

    @abstractmethod
    def fetch(self, watch: Callable[[Amount], object], stop: Stop) -> Path:
        """Bring what was planned onto this machine and return where it is.

        Args:
            watch: told how far it is, a few times a second and in the end.
            stop: ends it when true; parts are kept for the next time.

        Raises:
            StorageFullError: the disk has no room; no parts are kept.
            StoppedError: `stop` said so.
            YapitError: it cannot be had, or what came was wrong.
        """

    @abstractmethod
    def discard(self) -> int:
        """Remove the parts of what has not come to its end, and return their bytes."""

    @abstractmethod
    def delete(self) -> int:
        """Remove all of it, and return the bytes that are free now."""


class HubTransfer(Transfer):
    """A repository, into the hub's cache.

    Args:
        weights: which, and what of it.
        settings: tokens, and files at a time.
    """

    def __init__(self, weights: Weights, settings: ProvisioningSettings) -> None:
        # Imported here: huggingface_hub takes 0.2 s, and most commands need none of it.
        from yapit import hub

        self._hub = hub
        self._settings = settings
        self._plan: hub.Plan | None = None
        self.source = weights.source
        self._repository = hub.Repository(
            source=weights.source,
            revision=weights.revision,
            kind="dataset" if weights.kind == "dataset" else "model",
            choose=weights.choose or hub.without_copies,
            token=settings.token_for(weights.source),
        )

    def here(self) -> Path | None:
        """Return the snapshot's folder, if the cache has it."""
        return self._hub.here(self._repository) if self._hub.is_repo_id(self.source) else None

    def plan(self) -> Amount:
        """Ask the hub."""
        found = self._plan = self._hub.plan(self._repository)
        self.commit = found.commit
        return Amount(
            files_done=len(found.here),
            files_total=len(found.files),
            bytes_done=found.bytes_here + found.bytes_kept,
            bytes_total=found.bytes_total,
        )

    def fetch(self, watch: Callable[[Amount], object], stop: Stop) -> Path:
        """Fetch the files."""
        if self._plan is None:
            self.plan()
        assert self._plan is not None  # noqa: S101 - tells mypy

        def told(progress: "hub.Progress") -> None:
            watch(
                Amount(
                    files_done=progress.files_done,
                    files_total=progress.files_total,
                    bytes_done=progress.bytes_done,
                    bytes_total=progress.bytes_total,
                    bytes_per_s=progress.bytes_per_s,
                )
            )

        return self._hub.fetch(self._plan, watch=told, stop=stop, parallel=self._settings.parallel_files)

    def discard(self) -> int:
        """Remove the repository's parts."""
        return self._hub.discard(self._repository)

    def delete(self) -> int:
        """Remove the repository from the cache, or the one revision that is meant."""
        return self._hub.delete(self._repository)


def transfer_of(weights: Weights, settings: ProvisioningSettings, data_dir: Path) -> Transfer:
    """Return what brings something here."""
    if weights.kind == "file":
        from yapit.provisioning.files import FileTransfer

        return FileTransfer(weights, settings, data_dir)
    return HubTransfer(weights, settings)
