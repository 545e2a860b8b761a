"""`yapit models load` and `yapit models unload`: what a running server is asked to do."""

import os
from typing import Any

import rich_click as click

from yapit import settings
from yapit.cli.remote import post
from yapit.cli.tables import show_json


@click.command()
@click.argument("name", metavar="ID")
@click.option("--task", help="Only for this task; for all that it does unless said.")
@click.option("--keep-alive", help="How long it stays when idle: seconds, or 10m; negative is for ever.")
@click.option("--url", help="The server [default: the one of the settings].")
@click.option("--json", "as_json", is_flag=True, help="Print what the server answers.")
def load(name: str, task: str | None, keep_alive: str | None, url: str | None, *, as_json: bool) -> None:
    """Let a running server load the model ID, and wait until it has."""
    _do("load", {"model": name, "task": task, "keep_alive": keep_alive}, url, as_json=as_json)


@click.command()
@click.argument("name", metavar="ID")
@click.option("--task", help="Only for this task; for all that it is loaded for unless said.")
@click.option("--url", help="The server [default: the one of the settings].")
@click.option("--json", "as_json", is_flag=True, help="Print what the server answers.")
def unload(name: str, task: str | None, url: str | None, *, as_json: bool) -> None:
    """Let a running server unload the model ID, and wait until its memory is free."""
    _do("unload", {"model": name, "task": task}, url, as_json=as_json)


def _do(what: str, body: dict[str, Any], url: str | None, *, as_json: bool) -> None:
    server = settings.load(os.environ).settings.server
    said = {key: value for key, value in body.items() if value is not None}
    answer = post(server, f"/v1/models/{what}", said, url)
    if as_json:
        show_json(answer)
    else:
        click.echo(f"{answer['model']}: {answer['status']['value']}")
