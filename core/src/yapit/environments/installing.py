"""Installing plugins with pip: beside yapit, or each in an environment of its own.

Started as `python -m yapit.environments.installing DISTRIBUTION FILE` it describes the plugins of an installed
distribution into the file: only the interpreter of an environment can tell what a plugin brings there.
"""

import importlib
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from msgspec import Struct

from yapit import environments
from yapit.catalog import entry_of, merge
from yapit.environments import Description, Environment
from yapit.environments.requirements import NAME, PREFIX, InstallError, canonical, means, named, requirement, same_yapit
from yapit.errors import SettingsError, did_you_mean
from yapit.plugins import GROUP, Plugins

_GRACE_S = 10.0  # that an interrupted pip has to end
_FOREIGN = ("PYTHONPATH", "PYTHONHOME")  # what they name belongs to the environment of yapit


class Installed(Struct, frozen=True, kw_only=True):
    """What an installation brought, and what pip says no longer fits together in the environment."""

    plugins: list[Description]
    conflicts: list[str] = []


class _Named(Struct, frozen=True):
    name: str


class _Item(Struct, frozen=True):
    metadata: _Named
    requested: bool = False


class _Report(Struct, frozen=True):
    """What is read of pip's installation report."""

    install: list[_Item]


def install(wanted: str, *, upgrade: bool = False) -> Installed:
    """Install a plugin beside yapit; pip prints what it does.

    Raises:
        InstallError: pip failed, or what it installed is no plugin.
    """
    wanted = requirement(wanted)
    with TemporaryDirectory() as scratch:
        file = Path(scratch, "report.json")
        _pip("install", "--report", str(file), *_upgrade(upgrade), wanted)
        report = msgspec.json.decode(file.read_bytes(), type=_Report)
    distribution = _requested(report, wanted)
    found = _describe(sys.executable, "-P", distribution=distribution)
    if not found:
        raise InstallError(
            f"'{distribution}' is installed and brings no plugin; pip uninstall {distribution} removes it"
        )
    changed = {canonical(name) for name in (distribution, *(item.metadata.name for item in report.install))}
    return Installed(plugins=found, conflicts=_conflicts(changed))


def install_apart(wanted: str, data_dir: str, *, upgrade: bool = False) -> Description:
    """Install a plugin and the yapit that runs now into a new environment; pip prints what it does.

    The environment takes its name, or the place of an older one, when all is done. Until then nothing else changes,
    and whatever goes wrong, nothing of it stays.

    Raises:
        InstallError: pip failed, or what it installed does not work there.
    """
    wanted = requirement(wanted)
    parent = environments.place(data_dir)
    parent.mkdir(parents=True, exist_ok=True)
    # Made where it stays: an environment has its path written into it in many places.
    folder = parent / f".{secrets.token_hex(4)}"
    try:
        venv.create(folder, symlinks=True)
        plugin = _fill(folder, wanted, upgrade=upgrade)
        (folder / environments.FILE).write_bytes(msgspec.json.encode(plugin))
        environments.put(folder, plugin.name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return plugin


def uninstall(wanted: str, data_dir: str) -> str:
    """Remove a plugin, first the one in an environment of its own, and return its name.

    Raises:
        InstallError: there is no such plugin, it is a part of yapit, or pip failed.
    """
    apart = environments.read(data_dir)
    for name, found in apart.items():
        distribution = found.plugin.distribution if isinstance(found, Environment) else f"{PREFIX}{name}"
        if means(wanted, name, distribution):
            environments.remove(environments.place(data_dir) / name)
            return name
    here = {entry.name: entry.dist.name for entry in metadata.entry_points(group=GROUP) if entry.dist}
    for name, distribution in here.items():
        if means(wanted, name, distribution):
            _uninstall_here(name, distribution)
            return name
    known = sorted({*apart, *(name for name, distribution in here.items() if distribution != "yapit")})
    raise InstallError(f"there is no such plugin. {did_you_mean(wanted, known)}".rstrip())


def describe(name: str, distribution: str) -> Description:
    """Import one plugin of this environment and return what it brings."""
    plugins = Plugins.load([name])
    models, backends = plugins.models().get(name, []), plugins.backends()
    (plugin,) = plugins.listing()
    error = plugin.error
    try:
        merge(entry_of(model) for model in models)
    except SettingsError as wrong:
        error = wrong.message
    return Description(
        name=name,
        distribution=distribution,
        version=metadata.version(distribution),
        hooks=plugin.hooks,
        models=tuple(models),
        backends=tuple(backends.values()),
        error=error,
        details=plugin.details,
    )


def _fill(folder: Path, wanted: str, *, upgrade: bool) -> Description:
    """Install yapit and the plugin into the environment, and return what the plugin brings there."""
    python = str(environments.interpreter(folder))
    with TemporaryDirectory() as scratch:
        file = Path(scratch, "report.json")
        yapit = same_yapit(metadata.distribution("yapit"))
        environ = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | {"PIP_USER": "0"}
        # One command line, so that pip finds versions that suit both, or says that there are none.
        arguments = ("--python", python, "install", "--report", str(file), *_upgrade(upgrade), *yapit, wanted)
        _pip(*arguments, environ=environ)
        distribution = _requested(msgspec.json.decode(file.read_bytes(), type=_Report), wanted)
    found = _describe(python, "-I", distribution=distribution)
    if len(found) != 1:
        brings = f"several plugins: {', '.join(plugin.name for plugin in found)}" if found else "no plugin"
        raise InstallError(f"'{distribution}' brings {brings}, and an environment is for one")
    (plugin,) = found
    if plugin.error is not None:
        raise InstallError(f"the plugin '{plugin.name}' does not work in its environment: {plugin.error}")
    if not NAME.fullmatch(plugin.name):
        raise InstallError(f"the plugin's name '{plugin.name}' cannot be that of a folder")
    return plugin


def _pip(*arguments: str, environ: Mapping[str, str] | None = None) -> None:
    if importlib.util.find_spec("pip") is None:
        raise InstallError(f"there is no pip beside yapit; try: {sys.executable} -m ensurepip")
    with subprocess.Popen([sys.executable, "-P", "-m", "pip", *arguments], env=environ) as process:  # noqa: S603 - pip
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # It has been interrupted too, and must have ended before what it made is removed.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
            process.kill()
            raise
    if code:
        raise InstallError(f"pip ended with exit code {code}; what it printed says why")


def _upgrade(upgrade: bool) -> list[str]:  # noqa: FBT001 - it is what the option says
    return ["--upgrade"] if upgrade else []


def _requested(report: _Report, wanted: str) -> str:
    """Return the distribution that was asked for; pip reports nothing of one that was there already."""
    asked = (item.metadata.name for item in report.install if item.requested)
    return next((name for name in asked if canonical(name) != "yapit"), None) or named(wanted)


def _describe(*python: str, distribution: str) -> list[Description]:
    """Let an interpreter describe the plugins of a distribution."""
    with TemporaryDirectory() as scratch:
        # Not by standard output, where a library may greet.
        file = Path(scratch, "plugins.json")
        command = [*python, "-m", "yapit.environments.installing", distribution, str(file)]
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603 - our own
        if not file.exists():
            raise InstallError(f"Python ended with exit code {code} when it imported the plugin")
        return msgspec.json.decode(file.read_bytes(), type=list[Description])


def _conflicts(changed: set[str]) -> list[str]:
    """Return what `pip check` says about the distributions of these names."""
    command = [sys.executable, "-P", "-m", "pip", "check"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout  # noqa: S603 - our own
    return [line for line in said.splitlines() if changed & {canonical(name) for name in NAME.findall(line)}]


def _uninstall_here(name: str, distribution: str) -> None:
    if canonical(distribution) == "yapit":
        raise InstallError(f"the plugin '{name}' is a part of yapit and cannot be uninstalled")
    _pip("uninstall", "--yes", distribution)
    importlib.invalidate_caches()
    # Of what another environment lends to this one, pip says that it leaves it, and ends well.
    if any(metadata.distributions(name=distribution)):
        raise InstallError(f"pip left '{distribution}' where it is; what it printed says why")


def main() -> None:
    """Write what the plugins of the distribution bring into the file."""
    distribution, file = sys.argv[1:]
    names = [entry.name for entry in metadata.distribution(distribution).entry_points.select(group=GROUP)]
    Path(file).write_bytes(msgspec.json.encode([describe(name, distribution) for name in names]))


if __name__ == "__main__":
    main()
