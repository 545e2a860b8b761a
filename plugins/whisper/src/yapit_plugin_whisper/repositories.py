"""A model's files on this machine: a folder, or a snapshot of the hub; no torch here."""

import json
from pathlib import Path
from typing import Any

from yapit import LoadError, YapitError
from yapit.catalog import folder_of
from yapit.hub import Repository, small_files, snapshot
from yapit_plugin_whisper.needs import CONVERTED, PICKLES, SAFE, wanted

CONFIG = "config.json"


def fetched(source: str, revision: str | None, *, fetch: bool = True) -> Path:
    """Return the folder with a model's files, fetched from the hub if they are not here.

    Args:
        source: a folder or a repo id.
        revision: the newest when None.
        fetch: what is not here is fetched; else it is an error.

    Raises:
        LoadError: there are none, they may not be read, or the hub cannot be reached.
        StorageFullError: the disk has no room for them.
    """
    found = folder_of(source)
    if found is None:
        found = snapshot(Repository(source=source, revision=revision, choose=wanted), fetch=fetch)
    if not _has_weights(found):
        raise LoadError(f"The repository '{source}' has no weights of a Whisper.")
    return found


def config_of(source: str, revision: str | None) -> dict[str, Any]:
    """Return what `config.json` says; of a repository on the hub that small file alone is fetched.

    Raises:
        OSError, ValueError: there is none, it cannot be read, or the hub refuses it or cannot be reached.
    """
    folder = folder_of(source)
    found = json.loads((folder / CONFIG).read_bytes() if folder else _config_from_hub(source, revision))
    return found if isinstance(found, dict) else {}


def _config_from_hub(source: str, revision: str | None) -> bytes:
    try:
        files = small_files(source, revision, [CONFIG])
    except YapitError as error:
        raise OSError(error.message) from error
    if CONFIG not in files:
        raise FileNotFoundError(f"The repository '{source}' has no {CONFIG}.")
    return files[CONFIG]


def _has_weights(folder: Path) -> bool:
    return any(True for pattern in (CONVERTED, SAFE, PICKLES) for _ in folder.glob(pattern))
