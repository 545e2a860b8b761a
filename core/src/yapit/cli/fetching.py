"""Weights for a command: fetched with their progress shown, kept when somebody stops it."""

import asyncio
import os
import shlex
from collections.abc import Iterable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from yapit.catalog import Model
from yapit.cli.parts import Parts
from yapit.cli.views import View, view_of
from yapit.errors import ConflictError, LoadError
from yapit.provisioning import Downloads, downloads_of, missing, provisioner_of
from yapit.store.downloads import Download


def fetch(parts: Parts, models: Sequence[Model], view: View) -> list[Download]:
    """Fetch what is not here of the models' weights, and return how each download ended.

    Ctrl-C keeps what has come, says how to go on, and raises `KeyboardInterrupt`.

    Raises:
        OSError: `data_dir` cannot be written.
    """
    # Here an error has its path; each download marks itself there.
    (Path(parts.settings.data_dir) / "downloads").mkdir(parents=True, exist_ok=True)
    with view.shown():
        return asyncio.run(_fetch(parts, models, view))


def arrive(parts: Parts, model: Model) -> None:
    """Return when the weights of a model are here that is about to be loaded in this process.

    Raises:
        LoadError: they are not, and must not be fetched unasked.
        YapitError: they cannot be had.
    """
    if reason_to_skip(parts, model) is not None or provisioner_of(model, parts.plugins, parts.settings).here():
        return
    if not parts.settings.provisioning.auto_download:
        raise LoadError(missing(model), param="model", code="weights_missing")
    for download in fetch(parts, [model], view_of()):
        if download.state != "completed":
            raise LoadError(download.message, param="model")


def reason_to_skip(parts: Parts, model: Model) -> str | None:
    """Return why there is nothing to fetch for a model, None if there is.

    Raises:
        LoadError: its plugin failed.
    """
    if model.options.get("skip_download"):
        return "its entry says skip_download"
    if not parts.plugins.serves(model):
        return f"no installed plugin runs its backend '{model.backend}'"
    return None if parts.plugins.weights(model) else "it needs no weights"


def pull_line(models: Iterable[str]) -> str:
    """Return the command that fetches these models."""
    config = ["--config", os.environ["YAPIT_CONFIG"]] if "YAPIT_CONFIG" in os.environ else []
    return shlex.join(["yapit", *config, "pull", *models])


async def _fetch(parts: Parts, models: Sequence[Model], view: View) -> list[Download]:
    known = {model.id: model for model in models}
    downloads = downloads_of(parts.plugins, parts.settings, lambda name: known[name], parts.store, quiet=True)
    left = dict(known)
    await downloads.start(resume=False)
    try:
        for model in list(left.values()):
            if await downloads.here(model):
                view.note(model, "here", "here already")
                del left[model.id]
        begun = [await downloads.begin(model) for model in left.values()]
        async with asyncio.TaskGroup() as group:
            ended = [group.create_task(_followed(downloads, download, view)) for download in begun]
        return [task.result() for task in ended]
    except asyncio.CancelledError:
        for download in [found for model in left.values() if (found := downloads.of(model)) is not None]:
            with suppress(ConflictError):
                view.change(await downloads.pause(download.id))
            if downloads[download.id].state == "completed":
                del left[download.model]
        if left:
            view.end(f"stopped; what has come is kept. To go on: {pull_line(left)}")
        raise
    finally:
        await downloads.close()


async def _followed(downloads: Downloads, download: Download, view: View) -> Download:
    async with aclosing(downloads.watch(download.id)) as changes:
        async for change in changes:
            view.change(change)
            download = change
    return download
