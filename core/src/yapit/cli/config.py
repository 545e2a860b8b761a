"""`yapit config`: what is set, and by what."""

import json
import os

import rich_click as click

from yapit import settings
from yapit.cli.tables import show, show_json


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_context
def config(context: click.Context, *, as_json: bool) -> None:
    """Print the effective settings and where each came from."""
    if context.invoked_subcommand is not None:
        return
    rows = list(settings.load(os.environ).rows())
    if as_json:
        show_json([{"path": path, "value": value, "source": source} for path, value, source in rows])
    else:
        show(("setting", "value", "source"), [(path, json.dumps(value), source) for path, value, source in rows])


@config.command()
def schema() -> None:
    """Print the JSON schema of yapit.yaml."""
    show_json(settings.schema())
