"""A model's repository on this machine: a folder, or a snapshot that the hub's cache has; no torch here."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog

from yapit import LoadError, Model, YapitError
from yapit.catalog import folder_of
from yapit.hub import Kind, is_repo_id, line, small_files
from yapit_plugin_hf_generic.describing import FILES, Evidence, describe_files
from yapit_plugin_hf_generic.hub import snapshot

_log = structlog.get_logger(__name__)


class Repository:
    """The files of a model on this machine.

    Args:
        name: what the catalog calls the source.
        folder: where they are.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    @classmethod
    def of(cls, model: Model, *, fetch: bool = True) -> "Repository":
        """Return the model's repository, fetched from the hub if it is not here.

        Raises:
            LoadError: there is none, it may not be read, or the hub cannot be reached.
        """
        return cls.at(model.source or model.id, model.revision, fetch=fetch)

    @classmethod
    def at(cls, source: str, revision: str | None = None, *, fetch: bool = True, kind: Kind = "model") -> "Repository":
        """Return the repository of a folder or of a repo id; raises as `of`."""
        return cls(source, folder_of(source) or snapshot(source, revision, kind, fetch=fetch))

    @cached_property
    def config(self) -> dict[str, Any]:
        """What `config.json` says; empty without one."""
        return self.json("config.json") or {}

    def json(self, name: str) -> Any:
        """Return what a JSON file says, None if there is no such file.

        Raises:
            LoadError: it is no JSON.
        """
        path = self.folder / name
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise LoadError(f"The file '{name}' of '{self.name}' cannot be read: {error}") from error


def describe(source: str, revision: str | None) -> dict[str, Any] | None:
    """Return what a catalog can say of a model before it is loaded: `tasks` above all.

    Only small files are read; those of a repository that is not here are asked of the hub. `tasks` is empty where
    nothing can be found out. None: the source is neither a folder nor the id of a repository.
    """
    folder = folder_of(source)
    if folder is None and not is_repo_id(source):
        return None
    try:
        found = small_files(source, revision, FILES) if folder is None else _files_here(folder)
        return describe_files(source, Evidence.of(found))
    except (OSError, ValueError, YapitError) as error:
        _log.warning("model_unknown", source=source, reason=line(error))
        return {"tasks": []}


def describe_speaking(source: str, revision: str | None, found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found out, and if it speaks, or nobody can tell, what there is to say of its voices."""
    from yapit_plugin_hf_generic.describing_speech import describe_speech

    if found["tasks"] not in ([], ["synthesize"]):
        return found
    try:
        return describe_speech(source, revision)
    except YapitError:
        return found


def _files_here(folder: Path) -> Mapping[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
