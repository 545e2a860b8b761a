"""The routes that bring models here, say how far they are, and remove them."""

import asyncio
from typing import Any

from litestar import Request, Response, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Struct

from yapit.errors import ConflictError, InvalidInputError, ModelNotFoundError, YapitError
from yapit.server.keys import ADMIN
from yapit.server.managing.answering import REFUSALS
from yapit.server.managing.asking import DownloadBody, DownloadStarted
from yapit.server.managing.estimating import others_of, started
from yapit.server.managing.holdings import ModelInfo, model_info
from yapit.server.managing.refusals import RefusedError, not_downloaded, not_in_cache, unknown_action
from yapit.server.managing.removing import remove
from yapit.server.managing.telling import DownloadStatus, told
from yapit.server.services import services

_ACTIONS = ("pause", "resume")
_WAS_ALREADY = (ConflictError, InvalidInputError)  # refusals that are no failed download


class ModelDetails(Struct, frozen=True, kw_only=True):
    """What is known of a model."""

    model_name: str
    info: ModelInfo


class Removed(Struct, frozen=True, kw_only=True):
    """What became of a model that was removed.

    Args:
        success: always true; refusals have a body of their own.
        message: one line for people.
        model_name: as it was given.
        bytes_freed: on the disk.
        unregistered: it was registered, and is served no longer.
        shared_with: other models that had the same files.
    """

    success: bool
    message: str
    model_name: str
    bytes_freed: int
    unregistered: bool
    shared_with: list[str]


@post(["/models/download", "/api/models/download"], opt=ADMIN, status_code=202, tags=["managing"], responses=REFUSALS)
async def download_model(request: Request[Any, Any, Any], data: JSONBody[DownloadBody]) -> Response[DownloadStarted]:
    """Register a model if need be, and begin to fetch it; answers 200 if there is nothing to fetch."""
    parts = services(request)
    try:
        begun = await parts.starter.start(data)
    except _WAS_ALREADY:
        raise
    except YapitError as error:
        raise not_downloaded(data.name, error) from error
    running = begun.status == "downloading" and not parts.settings.compat.legacy_status
    others = await asyncio.to_thread(others_of, parts, begun.model)
    return Response(started(parts, data, begun, others), status_code=202 if running else 200)


@get(
    ["/models/download/status/{download_id:str}", "/api/models/download/status/{download_id:str}"],
    sync_to_thread=False,
    tags=["managing"],
    responses=REFUSALS,
)
def download_status(request: Request[Any, Any, Any], download_id: FromPath[str]) -> DownloadStatus:
    """Say how far a download is, or how it ended."""
    return told(services(request).downloads[download_id])


@delete(
    ["/models/download/status/{download_id:str}", "/api/models/download/status/{download_id:str}"],
    opt=ADMIN,
    status_code=200,
    tags=["managing"],
    responses=REFUSALS,
)
async def cancel_download(
    request: Request[Any, Any, Any],
    download_id: FromPath[str],
    keep_partial: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
) -> DownloadStatus:
    """End a download; what has come of it is removed, unless it shall be kept for another time."""
    return told(await services(request).downloads.cancel(download_id, keep=keep_partial))


@post(
    ["/models/download/{id_and_action:path}", "/api/models/download/{id_and_action:path}"],
    opt=ADMIN,
    status_code=200,
    tags=["managing"],
    responses=REFUSALS,
)
async def change_download(request: Request[Any, Any, Any], id_and_action: FromPath[str]) -> DownloadStatus:
    """Pause a download, or go on with it: `ID/pause`, `ID/resume`."""
    downloads = services(request).downloads
    download_id, _, action = id_and_action.removeprefix("/").rpartition("/")
    if action not in _ACTIONS or not download_id:
        raise unknown_action(action, _ACTIONS)
    return told(await (downloads.pause if action == "pause" else downloads.resume)(download_id))


@get(
    ["/models/download/{name_and_info:path}", "/api/models/download/{name_and_info:path}"],
    tags=["managing"],
    responses=REFUSALS,
)
async def download_info(request: Request[Any, Any, Any], name_and_info: FromPath[str]) -> ModelDetails:
    """Say what is known of a model and of its files: `NAME/info`."""
    name = name_and_info.removeprefix("/").removesuffix("/info")
    parts = services(request)
    try:
        model = parts.engine.catalog[name]
    except ModelNotFoundError as error:
        raise RefusedError(error, f"Model not found: {name}", error="Model does not exist") from error
    return ModelDetails(model_name=model.id, info=await model_info(parts, model))


@delete(
    ["/models/download/{model_name:path}", "/api/models/download/{model_name:path}"],
    opt=ADMIN,
    status_code=200,
    tags=["managing"],
    responses=REFUSALS,
)
async def remove_model(request: Request[Any, Any, Any], model_name: FromPath[str]) -> Removed:
    """Unload a model, stop its download, remove its files, and serve it no longer if it was registered.

    Models of plugins and of models files stay in the catalog: a request may fetch them again.
    """
    name = model_name.removeprefix("/")
    parts = services(request)
    try:
        model = parts.engine.catalog[name]
    except ModelNotFoundError:
        raise not_in_cache(name) from None
    gone = await remove(parts, model)
    if gone is None:
        raise not_in_cache(name)
    return Removed(
        success=True,
        message=f"Successfully removed model from cache: {name}",
        model_name=name,
        bytes_freed=gone.bytes_freed,
        unregistered=gone.unregistered,
        shared_with=gone.shared_with,
    )


ROUTES = [
    download_model,
    download_status,
    cancel_download,
    change_download,
    download_info,
    remove_model,
]
