"""A model moves to the newest revision of its source; the one before stays until the new one is known to load."""

import asyncio
import re
from contextlib import aclosing

import structlog
from msgspec import Struct
from msgspec.structs import replace

from yapit.catalog import Model
from yapit.errors import ConflictError, LoadError, NotFoundError, YapitError
from yapit.provisioning import provisioner_of
from yapit.provisioning.transfers import HubTransfer
from yapit.server.managing.removing import unload
from yapit.server.managing.words import source_of
from yapit.server.services import Services
from yapit.store import Download
from yapit.weights import Weights

_COMMIT = re.compile(r"[0-9a-f]{40}")
_log = structlog.get_logger(__name__)


class Updated(Struct, frozen=True, kw_only=True):
    """What came of an update: a line for people, and the commit that is here now."""

    message: str
    commit: str


async def update(parts: Services, model: Model) -> Updated:
    """Bring a model to the newest commit of its branch.

    That is fetched beside the one that is here, loaded on trial, and only then takes its place, whose files go.

    Raises:
        ConflictError: the source has no revisions, or the model is pinned to one; or it serves requests.
        LoadError: the new revision cannot be loaded; the one before stays.
        YapitError: the new revision cannot be had; likewise.
    """
    check(model)
    async with parts.starter.turn(model.id):
        before, newest = await asyncio.to_thread(_commits, parts, model)
        if before == newest and await parts.downloads.here(model):
            return Updated(message=f"Model '{model.id}' is at its newest revision already", commit=newest)
        await _fetched(parts, replace(model, revision=newest))
        if before is not None:
            await _try(parts, replace(model, id=f"{model.id}@{newest[:8]}", aliases=(), revision=newest), before)
        loaded = [resident.task for resident in parts.engine.residency.of(model)]
        # If it is busy, what is new is here whole by now: asked again when it is idle, this takes no time.
        await unload(parts.engine, model)
        await asyncio.to_thread(_refer, parts, model, newest)
        for task in loaded:
            await parts.engine.load(task, model)
        if before not in (None, newest):
            await asyncio.to_thread(_drop, parts, model, before)
        _log.info("model_updated", model=model.id, before=before, commit=newest)
        return Updated(message=f"Model '{model.id}' updated successfully", commit=newest)


def check(model: Model) -> None:
    """Raise `ConflictError` unless a model may have a newer revision."""
    if source_of(model) != "huggingface":
        message = f"The source of '{model.id}' has no revisions; retry_download with force_redownload fetches it anew."
        raise ConflictError(message, param="model_name", code="no_revisions")
    if model.revision is not None and _COMMIT.fullmatch(model.revision):
        message = f"The model '{model.id}' is pinned to the commit {model.revision}: its entry says so."
        raise ConflictError(message, param="model_name", code="revision_pinned")


def _main(parts: Services, model: Model) -> HubTransfer:
    """Return the transfer of the model's own repository."""
    for transfer in provisioner_of(model, parts.engine.plugins, parts.settings).transfers:
        if isinstance(transfer, HubTransfer) and transfer.source == model.source:
            return transfer
    return HubTransfer(Weights(source=model.source or "", revision=model.revision), parts.settings.provisioning)


def _commits(parts: Services, model: Model) -> tuple[str | None, str]:
    """Return the commit that is here, and the newest one."""
    transfer = _main(parts, model)
    here = transfer.here()
    transfer.plan()
    if transfer.commit is None:
        raise NotFoundError(f"The newest revision of '{model.source}' is not known.")
    return None if here is None else here.name, transfer.commit


async def _fetched(parts: Services, pinned: Model) -> Download:
    """Fetch a revision, beside what is here."""
    await parts.starter.plan(pinned)
    download = await parts.downloads.begin(pinned)
    async with aclosing(parts.downloads.watch(download.id)) as changes:
        async for change in changes:
            download = change
    if download.state != "completed":
        message = download.message or f"The download of '{pinned.id}' was {download.state}."
        raise LoadError(message, param="model_name", code="update_failed")
    return download


async def _try(parts: Services, trial: Model, before: str) -> None:
    """Load the new revision beside the one before; if that fails, its files go."""
    try:
        await parts.engine.warm_up(trial)
    except YapitError as error:
        await asyncio.to_thread(_drop, parts, trial, trial.revision or "")
        raise LoadError(
            f"The newest revision of '{trial.source}' cannot be loaded, and {before[:8]} stays: {error.message}",
            param="model_name",
            code="update_failed",
        ) from error
    finally:
        await unload(parts.engine, trial)


def _refer(parts: Services, model: Model, newest: str) -> None:
    """Let the branch lead to the new commit, all of which is here."""
    transfer = _main(parts, model)
    transfer.plan()
    if transfer.commit == newest:
        transfer.fetch(lambda _: None, lambda: False)


def _drop(parts: Services, model: Model, commit: str) -> None:
    """Remove the files of a revision that others do not have."""
    _main(parts, replace(model, revision=commit)).delete()
