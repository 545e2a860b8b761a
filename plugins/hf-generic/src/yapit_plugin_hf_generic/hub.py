"""What of a repository transformers needs, from the Hugging Face hub or its cache."""

from pathlib import Path

from yapit import LoadError
from yapit.hub import Kind, Repository, holds_weights
from yapit.hub import snapshot as whole_snapshot
from yapit_plugin_hf_generic.needs import repository


def snapshot(source: str, revision: str | None, kind: Kind, *, fetch: bool) -> Path:
    """Return the folder of the hub's cache with what transformers needs of a repository.

    Args:
        source: its id.
        revision: the newest when None.
        kind: of the repository.
        fetch: what is not here is fetched; else it is an error.

    Raises:
        LoadError: it is not here and cannot be fetched, or has no weights.
        StorageFullError: the disk has no room for it.
    """
    choose = repository(source, revision, kind).choose
    found = whole_snapshot(Repository(source=source, revision=revision, kind=kind, choose=choose), fetch=fetch)
    names = (str(path.relative_to(found)) for path in found.rglob("*"))
    if kind == "model" and not holds_weights(names):
        raise LoadError(f"The repository '{source}' has no weights that transformers can load.")
    return found
