"""`yapit pull`: weights onto this machine, before anybody asks for them."""

import sys
from collections.abc import Sequence

import rich_click as click
from msgspec.structs import replace

from yapit.catalog import Model
from yapit.cli.fetching import fetch, reason_to_skip
from yapit.cli.naming import Named, model_named, options_of
from yapit.cli.parts import Parts, opened
from yapit.cli.views import View, view_of
from yapit.errors import LoadError
from yapit.provisioning.presence import absent_altogether
from yapit.provisioning.sources import KINDS
from yapit.store.downloads import Download

_FAILED = 1


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--all", "all_models", is_flag=True, help="All models that are served.")
@click.option("--source", "kind", type=click.Choice(KINDS), help="Where MODEL is, if it does not say so itself.")
@click.option("--revision", help="Branch, tag or commit of the repository.")
@click.option("--name", help="Register the model under this name.")
@click.option("--task", help="What the model does, if nobody can find it out: synthesize, transcribe, embed, …")
@click.option("--sha256", help="Checksum of the file of a URL, in hexadecimal.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of its backend; JSON, or text.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print an object for each step, one a line.")
def pull(  # noqa: PLR0913, PLR0917 - a command has the options it has
    models: tuple[str, ...],
    kind: str | None,
    revision: str | None,
    name: str | None,
    task: str | None,
    sha256: str | None,
    options: tuple[str, ...],
    *,
    all_models: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fetch the weights of each MODEL that are not on this machine; go on where an earlier transfer stopped.

    MODEL is a name of the catalog; or a repository, a URL or a folder, which is registered. Without MODEL, those of the
    setting `models`.
    """
    asked = Named(
        source="",
        kind=kind,
        name=name,
        revision=revision,
        tasks=(task,) if task else (),
        sha256=sha256,
        options=options_of(options),
    )
    if asked != Named(source="") and len(models) != 1:
        raise click.UsageError("--source, --revision, --name, --task, --sha256 and --option are for one MODEL.")
    if models and all_models:
        raise click.UsageError("Name the models, or say --all.")
    view = view_of(quiet=quiet, as_json=as_json)
    # Without the setting `models`: what it names in vain is as wrong here as what the command line names.
    with opened(all_models=True, level="error") as parts:
        served = parts.settings.models
        if models:
            found = [model_named(parts, replace(asked, source=source)) for source in models]
            wanted, new = [model for model, _ in found], {model.id for model, is_new in found if is_new}
        elif served or all_models:
            wanted, new = [parts.catalog[each] for each in served] or list(parts.catalog), set[str]()
        else:
            raise click.UsageError("Name the models, or say --all; MODELS=a,b names them too.")
        ended = fetch(parts, _without_weights(parts, wanted, view, named=bool(models)), view)
        failed = [download for download in ended if download.state != "completed"]
        for download in failed:
            _say_failed(parts, download, new)
    if failed:
        sys.exit(_FAILED)


def _without_weights(parts: Parts, models: Sequence[Model], view: View, *, named: bool) -> list[Model]:
    """Return the models that have weights, each once; say why the others are left out."""
    wanted: dict[str, Model] = {}
    for model in models:
        reason = reason_to_skip(parts, model)
        if reason is None:
            wanted[model.id] = model
        elif named and not parts.plugins.serves(model):
            raise LoadError(parts.plugins.unserved(model), param="model")
        else:
            view.note(model, "skipped", f"skipped: {reason}")
    return list(wanted.values())


def _say_failed(parts: Parts, download: Download, new: set[str]) -> None:
    """Say why; a model that was registered for this, and of which nothing is here, is none."""
    click.echo(f"yapit: {download.model}: {download.message}", err=True)
    if download.model in new and absent_altogether(parts.catalog[download.model], parts.plugins, parts.settings):
        parts.registry.unregister(download.model)
