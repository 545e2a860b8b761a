"""`yapit models rm` and `yapit models register`: models that go, and models that come."""

import sys

import rich_click as click

from yapit.catalog import Model, entry_of
from yapit.cli.naming import Named, options_of, registered
from yapit.cli.parts import Parts, opened
from yapit.cli.remote import base_of, loaded_by
from yapit.cli.tables import show, show_json
from yapit.errors import ConflictError
from yapit.provisioning import provisioner_of
from yapit.provisioning.presence import presence
from yapit.provisioning.sources import KINDS
from yapit.quantities import written


@click.command()
@click.argument("name", metavar="ID")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
def rm(name: str, *, yes: bool, as_json: bool) -> None:
    """Remove the weights of the model ID from this machine, and the model itself if it was registered.

    A model that a server at the address of the settings has loaded is refused.
    """
    with opened() as parts:
        model = parts.catalog[name]
        _check_not_loaded(parts, model)
        is_registered = parts.registry.is_registered(model.id)
        held = presence(model, parts.plugins, parts.settings)
        if not (yes or _is_confirmed(parts, model, held.bytes, registered=is_registered)):
            raise click.Abort
        provisioner = provisioner_of(model, parts.plugins, parts.settings)
        # First, as it may be refused.
        if is_registered:
            parts.registry.unregister(model.id)
        freed = sum(transfer.delete() for transfer in provisioner.transfers)
    if as_json:
        show_json({"model": model.id, "bytes_freed": freed, "unregistered": is_registered})
        return
    gone = f"{written(freed)} are free now" if freed else "none of its weights were here"
    click.echo(f"{model.id}: {gone}{', and it is not registered any more' if is_registered else ''}")


@click.command()
@click.argument("name")
@click.option("--source", required=True, help="Repository, URL or folder.")
@click.option("--kind", type=click.Choice(KINDS), help="What the source is, if it does not say so itself.")
@click.option("--backend", help="What runs the model; found out from the source if it is not said.")
@click.option("--task", "tasks", multiple=True, help="What the model does; may be said several times.")
@click.option("--revision", help="Branch, tag or commit of the repository.")
@click.option("--sha256", help="Checksum of the file of a URL, in hexadecimal.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the backend; JSON, or text.")
@click.option("--replace", is_flag=True, help="Take the place of a registered model of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print the complete entry.")
def register(  # noqa: PLR0913, PLR0917 - a command has the options it has
    name: str,
    source: str,
    kind: str | None,
    backend: str | None,
    tasks: tuple[str, ...],
    revision: str | None,
    sha256: str | None,
    options: tuple[str, ...],
    *,
    replace: bool,
    as_json: bool,
) -> None:
    """Register the model NAME: it is served from now on, also by servers that run already.

    Its weights are fetched when it is first asked for, or by `yapit pull NAME`.
    """
    named = Named(
        source=source,
        kind=kind,
        name=name,
        revision=revision,
        tasks=tasks,
        sha256=sha256,
        backend=backend,
        options=options_of(options),
    )
    with opened(level="error") as parts:
        model = registered(parts, named, replace=replace)
    if as_json:
        show_json(entry_of(model))
        return
    show(("id", "tasks", "backend", "source"), [(model.id, ",".join(model.tasks), model.backend, model.source)])


def _check_not_loaded(parts: Parts, model: Model) -> None:
    if any(each["name"] == model.id for each in loaded_by(parts.settings.server) or ()):
        raise ConflictError(
            f"the server at {base_of(parts.settings.server)} has loaded '{model.id}'; "
            f"first: yapit models unload {model.id}"
        )


def _is_confirmed(parts: Parts, model: Model, count: int, *, registered: bool) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("Say --yes, as nobody can be asked.")
    others = [each.id for each in parts.catalog if each.id != model.id and each.source == model.source is not None]
    shared = f" They are those of {', '.join(others)} too." if others and count else ""
    what = f"the registered model '{model.id}' and its weights" if registered else f"the weights of '{model.id}'"
    return click.confirm(f"Remove {what} ({written(count)})?{shared}", err=True)
