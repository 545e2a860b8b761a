"""`yapit plugins`: what is installed, and what of it works; installing and removing."""

import os
from typing import TYPE_CHECKING

import rich_click as click

from yapit import environments, settings
from yapit.cli.tables import show, show_json
from yapit.plugins import Plugins

if TYPE_CHECKING:
    from yapit.environments import Description
    from yapit.settings import Settings

_COLUMNS = ("name", "version", "environment", "hooks", "models", "error")


@click.group(invoke_without_command=True)
@click.option("-v", "--verbose", is_flag=True, help="Print the traceback of each plugin that failed.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_context
def plugins(context: click.Context, *, verbose: bool, as_json: bool) -> None:
    """List the plugins: version, environment, hooks, models, and the error of those that failed."""
    if context.invoked_subcommand is not None:
        return
    effective = settings.load(os.environ).settings
    found = Plugins.installed(effective).listing()
    if as_json:
        show_json([{key: getattr(plugin, key) for key in _COLUMNS} for plugin in found])
        return
    rows = [(p.name, p.version, p.environment, ",".join(p.hooks), ",".join(p.models), p.error) for p in found]
    show(_COLUMNS, rows)
    for plugin in found:
        if verbose and plugin.details:
            click.echo(f"\n{plugin.name}:\n{plugin.details}", err=True)


@plugins.command()
@click.argument("name")
@click.option("--isolated", is_flag=True, help="Into an environment of its own, whatever else is installed.")
@click.option("-U", "--upgrade", is_flag=True, help="Also if an older version is installed.")
def install(name: str, *, isolated: bool, upgrade: bool) -> None:
    """Install a plugin with pip.

    NAME is a plugin's name, a distribution, a requirement, a path or a URL.
    """
    # Imported here and below: what the other commands need not pay.
    from yapit.environments import installing
    from yapit.environments.requirements import InstallError

    effective = settings.load(os.environ).settings
    if isolated:
        _say_installed(effective, [installing.install_apart(name, effective.data_dir, upgrade=upgrade)])
        return
    done = installing.install(name, upgrade=upgrade)
    for conflict in done.conflicts:
        _warn(f"{conflict.rstrip('.')}. With --isolated it would have an environment of its own.")
    for plugin in done.plugins:
        if plugin.error is not None:
            raise InstallError(f"the plugin '{plugin.name}' is installed and does not work: {plugin.error}")
        if plugin.name in environments.read(effective.data_dir):
            _warn(
                f"'{plugin.name}' also has an environment of its own, and that one is used. "
                f"yapit plugins uninstall {plugin.name} removes it."
            )
    _say_installed(effective, done.plugins)


@plugins.command()
@click.argument("name")
def uninstall(name: str) -> None:
    """Remove a plugin: its environment if it has one, else its distribution."""
    from yapit.environments import installing

    removed = installing.uninstall(name, settings.load(os.environ).settings.data_dir)
    click.echo(f"uninstalled {removed}")


def _say_installed(effective: "Settings", found: "list[Description]") -> None:
    for plugin in found:
        if effective.plugins is not None and plugin.name not in effective.plugins:
            _warn(f"the setting 'plugins' does not name '{plugin.name}', so it is not loaded.")
    rows = [(plugin.name, plugin.version, ",".join(model.id for model in plugin.models)) for plugin in found]
    show(("name", "version", "models"), rows)


def _warn(text: str) -> None:
    click.echo(f"yapit: warning: {text}", err=True)
