"""`yapit models`: the catalog."""

import os

import rich_click as click

from yapit import log, settings
from yapit.cli.tables import show, show_json
from yapit.plugins import Plugins


@click.group(invoke_without_command=True)
@click.option("--task", help="Only models that do this: synthesize, transcribe, embed, …")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_context
def models(context: click.Context, task: str | None, *, as_json: bool) -> None:
    """List the models: id, tasks, backend, voices, source, state."""
    if context.invoked_subcommand is not None:
        return
    effective = settings.load(os.environ).settings
    log.configure(settings.LogSettings(level="warning", format=effective.log.format))
    plugins = Plugins.installed(effective)
    catalog = plugins.catalog(effective)
    found = [model for model in catalog if task in (None, *model.tasks)]
    states = ["available" if plugins.serves(model) else "unserved" for model in found]
    if as_json:
        show_json(
            [
                {
                    "id": model.id,
                    "tasks": model.tasks,
                    "backend": model.backend,
                    "voices": [voice.id for voice in model.voices],
                    "source": model.source,
                    "state": state,
                }
                for model, state in zip(found, states, strict=True)
            ]
        )
        return
    rows = [
        (m.id, ",".join(m.tasks), m.backend, len(m.voices) or "", m.source, state)
        for m, state in zip(found, states, strict=True)
    ]
    show(("id", "tasks", "backend", "voices", "source", "state"), rows)
