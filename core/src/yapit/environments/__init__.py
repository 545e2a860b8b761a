"""Plugins that live in environments of their own: what is read of them when a process starts.

`<data_dir>/plugins/<NAME>` is a virtual environment with one plugin, and `plugin.json` in it says what that plugin
brings, as it was asked there when it was installed. So nothing of it is imported and no process is started to know it.
"""

import os
import shutil
from pathlib import Path

import msgspec
from msgspec import Struct

from yapit.catalog import Backend, Model
from yapit.errors import PluginError
from yapit.hookspecs import hookimpl

FILE = "plugin.json"


class Description(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plugin as it was asked in the environment where it is installed; `error` and `details` if it does not work."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()
    backends: tuple[Backend, ...] = ()
    error: str | None = None
    details: str | None = None


class Environment(Struct, frozen=True, kw_only=True, eq=False):
    """A plugin's environment; registered in the plugin's place, it answers as the plugin once did.

    Args:
        folder: absolute; it may be replaced as a whole while a server runs.
        plugin: what `plugin.json` says.
    """

    folder: Path
    plugin: Description

    @property
    def python(self) -> str:
        """The interpreter that runs the plugin's models."""
        return str(interpreter(self.folder))

    @hookimpl
    def register_models(self) -> list[Model]:
        """Return the plugin's models, each with the interpreter of this environment."""
        return [msgspec.structs.replace(model, python=self.python) for model in self.plugin.models]

    @hookimpl
    def register_backends(self) -> list[Backend]:
        """Return the plugin's backends."""
        return list(self.plugin.backends)


def interpreter(folder: Path) -> Path:
    """Return where the environment's interpreter is; no link is followed, since what it links to is another one."""
    return folder / "bin" / "python"


def place(data_dir: str) -> Path:
    """Return the folder that holds the environments."""
    return Path(data_dir).absolute() / "plugins"


def read(data_dir: str) -> dict[str, Environment | PluginError]:
    """Return the environments by the name of their plugin; of one that is broken, what is wrong with it."""
    try:
        entries = sorted(place(data_dir).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    # What begins with a dot is the environment that a name links to, or one that is being made.
    return {
        entry.name: _read(entry)
        for entry in entries
        if not entry.name.startswith(".") and (entry.is_symlink() or entry.is_dir())
    }


def put(folder: Path, name: str) -> None:
    """Let the name mean this new environment, in one step, and remove the one that it meant before."""
    link = folder.with_name(name)
    old = link.resolve() if link.is_symlink() else None
    new = folder.with_name(f"{folder.name}.link")
    new.symlink_to(folder.name, target_is_directory=True)
    try:
        new.replace(link)
    except OSError:
        new.unlink()
        raise
    if old is not None and old.parent == folder.parent.resolve():
        shutil.rmtree(old, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove an environment: first from what `read` sees, then from the disk."""
    if not folder.is_symlink():
        shutil.rmtree(folder)
        return
    target = folder.resolve()
    folder.unlink()
    if target.parent == folder.parent.resolve():
        shutil.rmtree(target, ignore_errors=True)


def _read(folder: Path) -> Environment | PluginError:
    again = f"try: yapit plugins install {folder.name} --isolated"
    try:
        plugin = msgspec.json.decode((folder / FILE).read_bytes(), type=Description)
    except OSError as error:
        return PluginError(f"its environment has no {FILE} that can be read ({error.strerror}); {again}")
    except msgspec.MsgspecError as error:
        return PluginError(f"its environment has a {FILE} that is not understood ({error}); {again}")
    if plugin.name != folder.name:
        return PluginError(f"its environment is that of the plugin '{plugin.name}'; {again}")
    if not os.access(interpreter(folder), os.X_OK):
        return PluginError(f"the interpreter of its environment is gone; {again}")
    return Environment(folder=folder, plugin=plugin)
