"""`yapit models`: the catalog, what of it is on this machine, and what is registered beside it."""

import rich_click as click
from msgspec import Struct

from yapit.catalog import Model
from yapit.cli.models.changing import register, rm
from yapit.cli.models.info import info
from yapit.cli.models.loading import load, unload
from yapit.cli.parts import Parts, opened
from yapit.cli.tables import show, show_json
from yapit.errors import YapitError
from yapit.provisioning.presence import Presence, presence
from yapit.quantities import written

_COLUMNS = ("id", "tasks", "backend", "voices", "source", "state", "here")


class _Row(Struct, frozen=True):
    model: Model
    state: str
    held: Presence | None  # nobody knows what it needs


@click.group(invoke_without_command=True)
@click.option("--task", help="Only models that do this: synthesize, transcribe, embed, …")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_context
def models(context: click.Context, task: str | None, *, as_json: bool) -> None:
    """List the models: id, tasks, backend, voices, source, state, and what of their weights is on this machine."""
    if context.invoked_subcommand is not None:
        return
    with opened() as parts:
        found = [_row(parts, model) for model in parts.catalog if task in (None, *model.tasks)]
    if as_json:
        show_json([_object(row) for row in found])
        return
    show(_COLUMNS, [_cells(row) for row in found])


def _row(parts: Parts, model: Model) -> _Row:
    state = "available" if parts.plugins.serves(model) else "unserved"
    try:
        return _Row(model, state, presence(model, parts.plugins, parts.settings))
    except YapitError:
        return _Row(model, state, None)


def _cells(row: _Row) -> tuple[object, ...]:
    model = row.model
    voices = len(model.voices) or ""
    return model.id, ",".join(model.tasks), model.backend, voices, model.source, row.state, _here(row.held)


def _here(held: Presence | None) -> str:
    if held is None:
        return "unknown"
    return {"here": written(held.bytes), "none": "-"}.get(held.state, held.state)


def _object(row: _Row) -> dict[str, object]:
    model, held = row.model, row.held
    return {
        "id": model.id,
        "tasks": model.tasks,
        "backend": model.backend,
        "voices": [voice.id for voice in model.voices],
        "source": model.source,
        "state": row.state,
        "weights": held.state if held is not None else "unknown",
        "bytes": held.bytes if held is not None else None,
    }


for command in (info, rm, register, load, unload):
    models.add_command(command)
