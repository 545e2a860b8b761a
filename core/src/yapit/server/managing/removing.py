"""A model leaves: unloaded, its download ended, its files gone, its name free."""

import asyncio
from contextlib import aclosing, suppress

from msgspec import Struct

from yapit.catalog import Model
from yapit.engine import Engine
from yapit.errors import ConflictError, InvalidInputError
from yapit.provisioning import RUNNING, provisioner_of
from yapit.schemas import ProvisionRequest
from yapit.server.managing.holdings import Disk
from yapit.server.managing.words import source_of
from yapit.server.services import Services
from yapit.tasks import TASKS


class Gone(Struct, frozen=True, kw_only=True):
    """What removing a model has done.

    Args:
        bytes_freed: on the disk.
        unregistered: it was registered.
        shared_with: other models that had the same files.
    """

    bytes_freed: int
    unregistered: bool
    shared_with: list[str]


async def remove(parts: Services, model: Model) -> Gone | None:
    """Remove what of a model is here; None if nothing is.

    Raises:
        ConflictError: it serves requests; nothing is removed then.
        CapacityError: the database does not answer.
    """
    async with parts.starter.turn(model.id):
        await unload(parts.engine, model)
        download = parts.downloads.of(model)
        if download is not None and download.state in (*RUNNING, "paused", "failed"):
            with suppress(ConflictError):  # it has just ended
                await parts.downloads.cancel(download.id)
        # A folder that somebody else has put there is not ours to remove.
        ours = source_of(model) != "local"
        touched = ours and await asyncio.to_thread(lambda: Disk(parts).touched(model))
        freed = await _free(parts, model) if touched else 0
        registered = await parts.starter.unregister(model)
        parts.engine.catch_up()
        if not touched and not registered:
            return None
        others = [
            other.id
            for other in parts.engine.catalog
            if other.source is not None and other.source == model.source and other.id != model.id
        ]
        return Gone(bytes_freed=freed, unregistered=registered, shared_with=others if freed else [])


async def unload(engine: Engine, model: Model) -> None:
    """Unload a model for all of its tasks; return when it is gone.

    Raises:
        ConflictError: it serves requests; then it stays loaded for all of its tasks.
    """
    residents = engine.residency.of(model)
    busy = [resident for resident in residents if resident.users]
    for resident in [*busy, *residents]:
        with suppress(InvalidInputError):  # it has just gone by itself
            await engine.unload(TASKS[resident.task.name], model)


async def _free(parts: Services, model: Model) -> int:
    """Remove the files that a model needs, and return their bytes."""
    provisioner = await asyncio.to_thread(provisioner_of, model, parts.engine.plugins, parts.settings)
    freed = 0
    async with aclosing(provisioner.provision(ProvisionRequest(action="remove"))) as states:
        async for state in states:
            freed += state.details.get("bytes_freed", 0)
    return freed
