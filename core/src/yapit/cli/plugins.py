"""`yapit plugins`: what is installed, and what of it works."""

import os

import rich_click as click

from yapit import settings
from yapit.cli.tables import show, show_json
from yapit.plugins import Plugins


@click.group(invoke_without_command=True)
@click.option("-v", "--verbose", is_flag=True, help="Print the traceback of each plugin that failed.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_context
def plugins(context: click.Context, *, verbose: bool, as_json: bool) -> None:
    """List the plugins: version, hooks, models, and the error of those that failed."""
    if context.invoked_subcommand is not None:
        return
    found = Plugins.load(settings.load(os.environ).settings.plugins).listing()
    if as_json:
        keys = ("name", "version", "hooks", "models", "error")
        show_json([{key: getattr(plugin, key) for key in keys} for plugin in found])
        return
    rows = [(p.name, p.version, ",".join(p.hooks), ",".join(p.models), p.error) for p in found]
    show(("name", "version", "hooks", "models", "error"), rows)
    for plugin in found:
        if verbose and plugin.details:
            click.echo(f"\n{plugin.name}:\n{plugin.details}", err=True)
