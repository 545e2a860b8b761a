"""Whether a model may be loaded: its weights are here, or are fetched for the request that needs them."""

import asyncio
import time
from contextlib import aclosing

from yapit.catalog import Model
from yapit.errors import CapacityError, LoadError
from yapit.provisioning.downloads import RUNNING, Downloads
from yapit.quantities import written
from yapit.settings import ProvisioningSettings
from yapit.store.downloads import Download

_RETRY_S = 30.0  # a download that failed is not begun again by a request before that
_SOON_S, _LATE_S = 1.0, 60.0  # clients honour a `retry-after` of at most a minute


class Arrivals:
    """Sees to it that what is loaded is here.

    Args:
        downloads: what fetches weights.
        settings: whether that is done unasked, and how long a request waits for it.
    """

    def __init__(self, downloads: Downloads, settings: ProvisioningSettings) -> None:
        self._downloads = downloads
        self._settings = settings

    async def ready(self, model: Model) -> None:
        """Return when the model's weights are here.

        Raises:
            CapacityError: they are on their way; says when to try again.
            LoadError: they are not here and cannot be fetched, or must not be.
        """
        if await self._downloads.here(model):
            return
        if not self._settings.auto_download:
            raise LoadError(missing(model), param="model", code="weights_missing")
        last = self._downloads.of(model)
        if last is not None and last.state == "failed" and time.time() - last.updated_at < _RETRY_S:
            raise LoadError(last.message, param="model")
        download = await self._downloads.begin(model)
        download = await self._waited(download)
        if download.state in RUNNING:
            raise CapacityError(
                _on_its_way(model, download),
                param="model",
                code="model_downloading",
                retry_after_s=min(max(download.eta_s or _LATE_S, _SOON_S), _LATE_S),
            )
        if download.state != "completed":
            raise LoadError(download.message or f"The download of '{model.id}' was {download.state}.", param="model")

    async def _waited(self, download: Download) -> Download:
        """Return the download as it is when it has ended, or when a request has waited long enough."""
        try:
            async with asyncio.timeout(self._settings.wait_s), aclosing(self._downloads.watch(download.id)) as changes:
                async for change in changes:
                    download = change
        except TimeoutError:
            pass
        return download


def missing(model: Model) -> str:
    """Return the sentence for a model whose weights are missing and must not be fetched unasked."""
    return f"The weights of '{model.id}' are not on this machine; fetch them with: yapit pull {model.id}"


def _on_its_way(model: Model, download: Download) -> str:
    if not download.bytes_total:
        return f"The weights of '{model.id}' are about to be fetched."
    share = 100 * download.bytes_done // download.bytes_total
    return f"The weights of '{model.id}' are being fetched: {share} % of {written(download.bytes_total)}."
