"""What yapit and the hub's cache hold on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from yapit.cli.parts import Parts
from yapit.errors import YapitError
from yapit.provisioning.places import Place
from yapit.weights import file_of

Kind = Literal["repository", "file", "converted", "results"]
_PART = ".incomplete"
_RESULTS = "cache"
_OTHERS = ("files", "plugins", "downloads", _RESULTS)  # folders of `data_dir` that hold no weights that were converted


class Holding(Struct, frozen=True, kw_only=True):
    """Something that takes space.

    Args:
        kind: what it is.
        name: of it: the repo id, the URL without its query, or the folder.
        folder: where it is.
        bytes: that it takes, parts not counted.
        partial_bytes: of transfers that have not come to their end.
        used_at: Unix time at which it was read or written last, as far as the file system says.
        models: ids of the models that need it.
    """

    kind: Kind
    name: str
    folder: str
    bytes: int
    partial_bytes: int
    used_at: float
    models: tuple[str, ...] = ()


def hub_cache() -> Path:
    """Return the folder of the hub's cache."""
    # Imported here: huggingface_hub takes 0.2 s.
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def look(parts: Parts) -> list[Holding]:
    """Return what takes space, the largest first."""
    needed = _needed(parts)
    data_dir = Path(parts.settings.data_dir).absolute()
    found = [*_repositories(needed), *_files(data_dir, needed), *_converted(data_dir), *_results(data_dir)]
    return sorted(found, key=lambda each: (-each.bytes - each.partial_bytes, each.name))


def _needed(parts: Parts) -> dict[str, tuple[str, ...]]:
    """Return the ids of the models that need each source."""
    needed: dict[str, tuple[str, ...]] = {}
    for model in parts.catalog:
        try:
            sources = {each.source for each in parts.plugins.weights(model)}
        except YapitError:
            sources = {model.source or ""}
        for source in sources:
            needed[source] = (*needed.get(source, ()), model.id)
    return needed


def _repositories(needed: dict[str, tuple[str, ...]]) -> Iterator[Holding]:
    from yapit import hub

    for found in hub.cached():
        yield Holding(
            kind="repository",
            name=found.source if found.kind == "model" else f"{found.kind}s/{found.source}",
            folder=str(found.folder),
            bytes=found.size_bytes,
            partial_bytes=found.partial_bytes,
            used_at=found.used_at,
            models=needed.get(found.source, ()),
        )


def _files(data_dir: Path, needed: dict[str, tuple[str, ...]]) -> Iterator[Holding]:
    owners = {file_of(url, data_dir).parent: (url, models) for url, models in needed.items() if "://" in url}
    for folder in _folders(data_dir / "files"):
        url, models = owners.get(folder, ("", ()))
        yield _held("file", folder, Place(url, data_dir).url if url else _url_in(folder), models)


def _url_in(folder: Path) -> str:
    """Return the URL of the file in a folder, as far as it was noted."""
    for note in folder.glob("*.json"):
        try:
            return str(msgspec.json.decode(note.read_bytes())["url"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return folder.name


def _converted(data_dir: Path) -> Iterator[Holding]:
    for plugin in _folders(data_dir):
        if plugin.name not in _OTHERS:
            yield from (_held("converted", folder, f"{plugin.name}/{folder.name}") for folder in _folders(plugin))


def _results(data_dir: Path) -> Iterator[Holding]:
    if (data_dir / _RESULTS).is_dir():
        yield _held("results", data_dir / _RESULTS, "results")


def _held(kind: Kind, folder: Path, name: str, models: tuple[str, ...] = ()) -> Holding:
    states = [(path.name, path.stat()) for path in folder.rglob("*") if path.is_file()]
    partial = sum(state.st_size for name, state in states if name.endswith(_PART))
    return Holding(
        kind=kind,
        name=name,
        folder=str(folder),
        bytes=sum(state.st_size for _, state in states) - partial,
        partial_bytes=partial,
        used_at=max((max(state.st_atime, state.st_mtime) for _, state in states), default=folder.stat().st_mtime),
        models=models,
    )


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, those left out whose names begin with a dot."""
    if not folder.is_dir():
        return []
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
