"""`yapit ps`: what a running server has loaded, and why something is not."""

import datetime as dt
import os
from typing import Any

import rich_click as click

from yapit import settings
from yapit.cli.remote import ask
from yapit.cli.tables import show, show_json
from yapit.quantities import written

_SHOWN_EVENTS = 10


@click.command()
@click.option("--url", help="The server [default: the one of the settings].")
@click.option("--json", "as_json", is_flag=True, help="Print what GET /api/ps answers.")
def ps(url: str | None, *, as_json: bool) -> None:
    """List what a running server has loaded: where, how much memory, how long still; and what happened, and why."""
    found = ask(settings.load(os.environ).settings.server, "/api/ps", url)
    if as_json:
        show_json(found)
        return
    columns = ("model", "task", "state", "device", "memory", "running", "queued", "idle since", "expires")
    show(columns, [_row(model) for model in found["models"]])
    if found["events"]:
        click.echo()
        events = [
            (_clock(event["at"]), event["model"], event["task"], event["event"], event["reason"])
            for event in found["events"][:_SHOWN_EVENTS]
        ]
        show(("at", "model", "task", "what", "why"), events)


def _row(model: dict[str, Any]) -> tuple[Any, ...]:
    about = "" if model["memory_is_measured"] or not model["memory_bytes"] else "about "
    state = f"{model['state']}: {model['waits_for']}" if model["waits_for"] else model["state"]
    expires = "pinned" if model["pinned"] else _clock(model["expires_at"])
    return (
        *(model["name"], model["task"], state, model["device"], about + written(model["memory_bytes"])),
        *(model["running"], model["queued"], _clock(model["idle_since"]), expires),
    )


def _clock(stamp: str | None) -> str:
    """Return the local time of a stamp, empty if there is none."""
    return "" if stamp is None else dt.datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S")
