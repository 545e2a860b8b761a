"""What of a model's weights is on this machine; nobody else is asked."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from yapit.catalog import Model
from yapit.errors import YapitError
from yapit.plugins import Plugins
from yapit.provisioning.places import Place
from yapit.provisioning.transfers import Transfer, transfer_of
from yapit.settings import Settings
from yapit.weights import Weights

State = Literal["here", "partly", "missing", "none"]


class Presence(Struct, frozen=True, kw_only=True):
    """What of a model's weights is on this machine.

    Args:
        state: `here` is all of it, `partly` some, `none` means that it needs none.
        bytes: that it takes on the disk, parts of what is not whole too.
        files: that are whole.
        folders: where it is, one for each thing that the model needs and that is here.
        commits: of the repositories, by their ids, as far as known.
    """

    state: State
    bytes: int = 0
    files: int = 0
    folders: tuple[Path, ...] = ()
    commits: dict[str, str] = {}


def presence(model: Model, plugins: Plugins, settings: Settings) -> Presence:
    """Return what of a model's weights is on this machine.

    Raises:
        LoadError: its plugin does not know what it needs.
    """
    wanted = plugins.weights(model)
    if not wanted:
        return Presence(state="none")
    folder = Path(settings.data_dir)
    transfers = [transfer_of(each, settings.provisioning, folder) for each in wanted]
    found = [_held(weights, transfer, folder) for weights, transfer in zip(wanted, transfers, strict=True)]
    states = {each.state for each in found}
    state: State = states.pop() if len(states) == 1 else "partly"
    return Presence(
        state=state,
        bytes=sum(each.bytes for each in found),
        files=sum(each.files for each in found),
        folders=tuple(each for one in found for each in one.folders),
        commits={source: commit for each in found for source, commit in each.commits.items()},
    )


def _held(weights: Weights, transfer: Transfer, data_dir: Path) -> Presence:
    found = transfer.here()
    if weights.kind == "file":
        kept = Place(weights.source, data_dir).kept_bytes
        if found is None:
            return Presence(state="partly" if kept else "missing", bytes=kept)
        return Presence(state="here", bytes=found.stat().st_size, files=1, folders=(found,))
    return _snapshot(weights, found)


def _snapshot(weights: Weights, found: Path | None) -> Presence:
    # Imported here: huggingface_hub takes 0.2 s, and most commands need none of it.
    from yapit import hub

    if found is not None:
        sizes = _sizes(found)
        commits = {weights.source: found.name}
        return Presence(state="here", bytes=sum(sizes), files=len(sizes), folders=(found,), commits=commits)
    kind: hub.Kind = "dataset" if weights.kind == "dataset" else "model"
    folder = hub.Repository(source=weights.source, kind=kind).folder if hub.is_repo_id(weights.source) else None
    if folder is None or not folder.is_dir():
        return Presence(state="missing")
    parts = _sizes(folder / "blobs")
    names = [path.name for path in (folder / "snapshots").rglob("*")]
    # What only says what the repository is was fetched to know that.
    some = any(path.stat().st_size for path in folder.glob("blobs/*.incomplete")) or hub.holds_weights(names)
    return Presence(state="partly" if some else "missing", bytes=sum(parts))


def _sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


def absent_altogether(model: Model, plugins: Plugins, settings: Settings) -> bool:
    """Tell whether nothing of a model's weights is on this machine."""
    return presence(model, plugins, settings).state == "missing"


def absent(models: Iterable[Model], plugins: Plugins, settings: Settings) -> list[Model]:
    """Return the models whose weights are not all here, or of which nobody can tell what they need."""

    def is_absent(model: Model) -> bool:
        try:
            return presence(model, plugins, settings).state in ("partly", "missing")
        except YapitError:
            return True

    return [model for model in models if not model.options.get("skip_download") and is_absent(model)]
