"""From a wish for a model to its download: registered, planned, begun; or nothing of it, if one of these fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

import structlog
from msgspec import Struct

from yapit.catalog import Entry, Model
from yapit.errors import ConflictError, InvalidInputError, YapitError
from yapit.plugins import Plugins
from yapit.provisioning import RUNNING, Amount, Downloads, Transfer, provisioner_of
from yapit.provisioning.sources import check_complete
from yapit.provisioning.transfers import HubTransfer
from yapit.quantities import size, written
from yapit.registry import Registry
from yapit.server.managing.asking import DownloadBody
from yapit.server.managing.feed import Feed
from yapit.server.managing.wishes import entry_for, is_same, named_task
from yapit.server.managing.words import speaks
from yapit.settings import Settings
from yapit.store import Download

_log = structlog.get_logger(__name__)


class Begun(Struct, frozen=True, kw_only=True):
    """A download that was asked for.

    Args:
        model: whose.
        download: as it is now.
        status: what was done.
        bytes_total: of all that the model needs; None where nobody says.
        bytes_missing: of it, what is not here.
        warnings: wishes that mean nothing for this model.
    """

    model: Model
    download: Download
    status: Literal["downloading", "completed", "already_exists"]
    bytes_total: int | None = None
    bytes_missing: int | None = None
    warnings: tuple[str, ...] = ()


class Starter:
    """Registers models and begins their downloads, one wish for a name after the other.

    Args:
        settings: the effective settings.
        plugins: the registered plugins.
        registry: where models are registered.
        downloads: what fetches their weights.
        feed: told of what was registered.
    """

    def __init__(
        self, settings: Settings, plugins: Plugins, registry: Registry, downloads: Downloads, feed: Feed
    ) -> None:
        self._settings = settings
        self._plugins = plugins
        self._registry = registry
        self._downloads = downloads
        self._feed = feed
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    async def start(self, body: DownloadBody) -> Begun:
        """Begin the download of a model that may have to be registered first.

        Raises:
            ConflictError: another model has the name.
            StorageFullError: the disk has no room for it.
            YapitError: it is no model that can be had, with the status that says why.
        """
        async with self._turn(body.name):
            entry = entry_for(body, Path(self._settings.data_dir))
            task = named_task(body)
            if body.name in self._registry.catalog:
                return await self._known(body, entry, self._registry.catalog[body.name])
            model = await self._registered(entry)
            try:
                if not speaks(model) and body.auto_convert_tts and task not in (None, *model.tasks):
                    model = await self._registered({**entry, "tasks": [task]}, replace=True)
                return await self._begun(body, model)
            except BaseException:
                # Not cancelled in the middle: what is registered and never asked for would stay.
                await asyncio.shield(self.unregister(model))
                raise

    async def plan(self, model: Model, *, enable_large_model: bool = True) -> Amount:
        """Ask what a model needs, and return how much of that is here.

        Raises:
            InvalidInputError: it is large, and that was not meant.
            StorageFullError: the disk has no room for what is missing.
            YapitError: it cannot be had, with the status that says why.
        """
        provisioner = await asyncio.to_thread(provisioner_of, model, self._plugins, self._settings)
        amounts = [await asyncio.to_thread(transfer.plan) for transfer in provisioner.transfers]
        total, done = (sum(getattr(amount, name) for amount in amounts) for name in ("bytes_total", "bytes_done"))
        limit = size(self._settings.provisioning.large_model) or 0
        if total > limit and not enable_large_model:
            raise InvalidInputError(
                f"The weights of '{model.source}' have {written(total)}, and whoever wants more than {written(limit)} "
                "must say 'enable_large_model': true.",
                param="enable_large_model",
                code="large_model",
            )
        for transfer, amount in zip(provisioner.transfers, amounts, strict=True):
            await asyncio.to_thread(self._check_room, transfer, amount)
        return Amount(
            files_done=sum(amount.files_done for amount in amounts),
            files_total=sum(amount.files_total for amount in amounts),
            bytes_done=done,
            bytes_total=total,
        )

    async def unregister(self, model: Model) -> bool:
        """Serve a registered model no longer; return whether it was one."""
        if not self._registry.is_registered(model.id):
            return False
        try:
            await asyncio.to_thread(self._registry.unregister, model.id)
        except YapitError as error:
            _log.warning("model_not_unregistered", model=model.id, reason=error.message)
            return False
        self._feed.look()
        return True

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Keep others from what is done with a name."""
        async with self._turn(name):
            yield

    def _turn(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    async def _registered(self, entry: Entry, *, replace: bool = False) -> Model:
        model = await asyncio.to_thread(lambda: self._registry.register(entry, replace=replace))
        self._feed.look()
        return model

    async def _begun(self, body: DownloadBody, model: Model) -> Begun:
        """Begin the download of a model that has just been registered."""
        if body.vocoder_model is not None and not speaks(model):
            raise InvalidInputError(f"The model '{model.source}' does not speak.", param="vocoder_model")
        amount = await self.plan(model, enable_large_model=body.enable_large_model)
        check_complete(body.source, model)  # after that: what cannot be had is not known either
        here = await self._downloads.here(model)
        return Begun(
            model=model,
            download=await (self._downloads.found(model) if here else self._downloads.begin(model)),
            status="completed" if here else "downloading",
            bytes_total=amount.bytes_total,
            bytes_missing=amount.bytes_total - amount.bytes_done,
            warnings=_warnings(body, model),
        )

    async def _known(self, body: DownloadBody, entry: Entry, model: Model) -> Begun:
        """Begin, or go on with, the download of a model that the catalog has."""
        if not is_same(entry, model):
            raise ConflictError(
                f"The name '{body.name}' is that of another model: '{model.id}' comes from "
                f"{model.source or model.backend!r}{f' at {model.revision}' if model.revision else ''}.",
                param="name",
                code="model_exists",
            )
        if await self._downloads.here(model):
            return Begun(model=model, download=await self._downloads.found(model), status="already_exists")
        last = self._downloads.of(model)
        if last is not None and last.state in RUNNING:
            return Begun(model=model, download=last, status="downloading", bytes_total=last.bytes_total)
        amount = await self.plan(model, enable_large_model=body.enable_large_model)
        return Begun(
            model=model,
            download=await self._downloads.begin(model),
            status="downloading",
            bytes_total=amount.bytes_total,
            bytes_missing=amount.bytes_total - amount.bytes_done,
        )

    def _check_room(self, transfer: Transfer, amount: Amount) -> None:
        from huggingface_hub import constants

        from yapit.hub.transfers import check_room

        hub = isinstance(transfer, HubTransfer)
        folder = Path(constants.HF_HUB_CACHE if hub else self._settings.data_dir).absolute()
        check_room(folder, amount.bytes_total - amount.bytes_done, transfer.source)


def _warnings(body: DownloadBody, model: Model) -> tuple[str, ...]:
    if speaks(model):
        return ()
    wishes = {"auto_convert_tts": body.auto_convert_tts, "include_vocoder": body.include_vocoder}
    return tuple(f"{name} means nothing for this model: it does not speak." for name, said in wishes.items() if said)
