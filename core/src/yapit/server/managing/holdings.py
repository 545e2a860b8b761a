"""What of the models is on this machine: looked up on the disk, and in the engine."""

import asyncio
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from yapit.catalog import Model, folder_of
from yapit.engine import Status
from yapit.errors import YapitError
from yapit.provisioning.parameters import parameters
from yapit.provisioning.presence import presence
from yapit.server.managing.telling import DownloadStatus, told
from yapit.server.managing.words import megabytes, source_of, task_of
from yapit.server.moments import moment
from yapit.server.services import Services
from yapit.weights import file_of, is_url


class Holding(Struct, frozen=True, kw_only=True):
    """What of a model is on the disk.

    Args:
        here: all of it.
        size_bytes: that it takes; parts of what is not whole too.
        folder: where the model's own files are; None if they are not whole.
        commit: of the source.
        parameters: None where they cannot be counted.
        modified_at: Unix time of what came last.
    """

    here: bool
    size_bytes: int = 0
    folder: Path | None = None
    commit: str | None = None
    parameters: int | None = None
    modified_at: float | None = None


class ModelInfo(Struct, frozen=True, kw_only=True):
    """What is known of a model, its files, and its last download."""

    source: str
    model_id: str | None
    revision: str | None
    commit: str | None
    task: str
    tasks: tuple[str, ...]
    backend: str
    description: str | None
    licence: str | None
    registered: bool
    downloaded: bool
    size_mb: float
    path: str | None
    parameters: int | None
    modified_at: dt.datetime | None
    status: Status
    download: DownloadStatus | None


class Disk:
    """What is on the disk now; looked at once for all models. Blocks.

    Args:
        parts: of the server.
    """

    def __init__(self, parts: Services) -> None:
        # Imported here: huggingface_hub takes 0.2 s, and most of what a server does needs none of it.
        from yapit import hub

        self._parts = parts
        self._data_dir = Path(parts.settings.data_dir)
        self.repositories = {found.source: found for found in hub.cached()}
        self.needed = set[str]()  # sources that models were found to need

    def touched(self, model: Model) -> bool:
        """Tell whether anything of a model's source is here."""
        source = model.source
        if source is None:
            return False
        if is_url(source):
            return file_of(source, self._data_dir).parent.exists()
        return source in self.repositories or folder_of(source) is not None

    def holding(self, model: Model) -> Holding | None:
        """Return what of a model is here; None if nothing is, or it needs nothing."""
        if not self.touched(model):
            return None
        own = folder_of(model.source or "")
        if own is not None:
            return Holding(here=True, size_bytes=_bytes_in(own), folder=own, parameters=_counted([own]))
        try:
            found = presence(model, self._parts.engine.plugins, self._parts.settings)
        except YapitError:
            return Holding(here=False)
        self.needed.update(found.commits)
        first = next(iter(found.folders), None)
        return Holding(
            here=found.state == "here",
            size_bytes=found.bytes,
            folder=first,
            commit=found.commits.get(model.source or ""),
            parameters=_counted(found.folders[:1]),
            modified_at=first.stat().st_mtime if first is not None else None,
        )

    def size_bytes(self) -> int:
        """Return what all weights take, those of no model of the catalog and parts included."""
        whole = sum(found.size_bytes + found.partial_bytes for found in self.repositories.values())
        return whole + _bytes_in(self._data_dir / "files")


def _bytes_in(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _counted(places: Sequence[Path]) -> int | None:
    try:
        return parameters(places)
    except (OSError, ValueError):
        return None


def held(parts: Services) -> tuple[Disk, dict[str, Holding]]:
    """Return the disk, and what of each model is on it, by its id. Blocks."""
    disk = Disk(parts)
    found = {model.id: disk.holding(model) for model in parts.engine.catalog}
    return disk, {name: holding for name, holding in found.items() if holding is not None}


async def model_info(parts: Services, model: Model) -> ModelInfo:
    """Return what is known of a model."""
    holding = await asyncio.to_thread(lambda: Disk(parts).holding(model)) or Holding(here=model.source is None)
    download = parts.downloads.of(model)
    return ModelInfo(
        source=source_of(model),
        model_id=model.source,
        revision=model.revision,
        commit=holding.commit,
        task=task_of(model),
        tasks=model.tasks,
        backend=model.backend,
        description=model.description,
        licence=model.licence,
        registered=parts.registry.is_registered(model.id),
        downloaded=holding.here,
        size_mb=megabytes(holding.size_bytes) or 0.0,
        path=None if holding.folder is None else str(holding.folder),
        parameters=holding.parameters,
        modified_at=moment(holding.modified_at),
        status=parts.engine.status(model),
        download=None if download is None else told(download),
    )
