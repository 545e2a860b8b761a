"""What a Kokoro needs on this machine: whoever fetches it asks here, and so do those who load it."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from yapit import Model, Weights
from yapit.catalog import folder_of

_FILES = ("config.json", "*.pth", "voices/*.pt")


def needs(model: Model) -> list[Weights]:
    """Return the repository that has to be here before the model can be loaded; nothing if it is a folder."""
    source = model.source or model.id
    if folder_of(source) is not None or model.options.get("skip_download"):
        return []
    return [Weights(source=source, revision=model.revision, choose=wanted)]


def wanted(names: Iterable[str]) -> list[str]:
    """Return what is fetched of a repository's files."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in _FILES)]
