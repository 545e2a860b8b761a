"""The files of a Kokoro on this machine: a folder, or a snapshot that the hub's cache has; no torch here."""

import json
from pathlib import Path
from typing import Any

from yapit import LoadError, Model
from yapit.catalog import folder_of
from yapit.hub import Repository, line, snapshot
from yapit_plugin_kokoro.describing import is_kokoro
from yapit_plugin_kokoro.needs import wanted


class Files:
    """The files of a model.

    Args:
        name: what the catalog calls the source.
        folder: where they are.

    Raises:
        LoadError: there is no configuration of a Kokoro, no weights, or no voice.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        try:
            self.config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            raise LoadError(f"The file 'config.json' of '{name}' cannot be read: {line(error)}") from error
        if not is_kokoro(self.config):
            raise LoadError(f"The repository '{name}' is no Kokoro: its 'config.json' says nothing of one.")
        weights = sorted(folder.glob("*.pth"), key=lambda path: (not path.name.startswith("kokoro"), path.name))
        if not weights:
            raise LoadError(f"The repository '{name}' has no weights: expected a file such as 'kokoro-v1_0.pth'.")
        self.weights = weights[0]
        self.voices = {path.stem: path for path in sorted((folder / "voices").glob("*.pt"))}
        if not self.voices:
            raise LoadError(f"The repository '{name}' has no voices: expected files such as 'voices/af_heart.pt'.")

    @classmethod
    def of(cls, model: Model, *, fetch: bool = True) -> "Files":
        """Return the model's files, fetched from the hub if they are not here and may be.

        Raises:
            LoadError: they are not here and cannot be fetched.
            StorageFullError: the disk has no room for them.
        """
        source = model.source or model.id
        repository = Repository(source=source, revision=model.revision, choose=wanted)
        return cls(source, folder_of(source) or snapshot(repository, fetch=fetch))
