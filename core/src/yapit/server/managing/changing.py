"""The route that does something with a model: fetch it again, bring it to its newest revision, make it faster."""

from typing import Any

from litestar import Request, Response, post
from litestar.params import FromQuery
from msgspec import UNSET, Struct, UnsetType

from yapit.errors import ConflictError
from yapit.provisioning import RUNNING
from yapit.server.keys import ADMIN
from yapit.server.managing.answering import REFUSALS
from yapit.server.managing.optimizing import Optimization, optimize
from yapit.server.managing.refusals import unknown_action
from yapit.server.managing.updating import update
from yapit.server.services import Services, services
from yapit.tickets import current

_ACTIONS = ("optimize", "retry_download", "update")
_DAY_S = 24 * 3600.0


class Managed(Struct, frozen=True, kw_only=True):
    """What was done.

    Args:
        success: always true; refusals have a body of their own.
        message: one line for people.
        action: as it was asked for.
        model_name: likewise.
        download_id: of the download that was begun.
        revision: the commit that is here now, after an update.
        optimization: what was measured.
    """

    success: bool
    message: str
    action: str
    model_name: str
    download_id: str | UnsetType = UNSET
    revision: str | UnsetType = UNSET
    optimization: Optimization | UnsetType = UNSET


@post(["/models/manage", "/api/models/manage"], opt=ADMIN, status_code=200, tags=["managing"], responses=REFUSALS)
async def manage_model(
    request: Request[Any, Any, Any],
    action: FromQuery[str],
    model_name: FromQuery[str],
    force_redownload: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
) -> Response[Managed]:
    """Do something with a model.

    `retry_download` begins the download again, `update` and `optimize` answer when they have ended; how far the
    download of an update is, is told on `/models/events`.
    """
    parts = services(request)
    if action not in _ACTIONS:
        raise unknown_action(action, _ACTIONS)
    model_id = parts.engine.catalog[model_name].id
    if action == "retry_download":
        return await _retry(parts, model_id, model_name, anew=force_redownload)
    current().within(_DAY_S)
    if action == "update":
        updated = await update(parts, parts.engine.catalog[model_id])
        body = Managed(
            success=True, message=updated.message, action=action, model_name=model_name, revision=updated.commit
        )
        return Response(body)
    found = await optimize(parts, parts.engine.catalog[model_id])
    return Response(
        Managed(success=True, message=found.message, action=action, model_name=model_name, optimization=found.figures)
    )


async def _retry(parts: Services, model_id: str, model_name: str, *, anew: bool) -> Response[Managed]:
    model, downloads = parts.engine.catalog[model_id], parts.downloads
    last = downloads.of(model)
    if last is not None and last.state in RUNNING:
        if anew:
            raise ConflictError(f"The weights of '{model_id}' are being fetched.", param="model_name")
        message, download, status = f"Model '{model_name}' is being downloaded", last, 202
    elif not anew and await downloads.here(model):
        message, download, status = f"Model '{model_name}' is downloaded already", await downloads.found(model), 200
    else:
        if not anew:
            await parts.starter.plan(model)
        download = await downloads.begin(model, anew=anew)
        message, status = f"Download of model '{model_name}' started again", 202
    body = Managed(
        success=True, message=message, action="retry_download", model_name=model_name, download_id=download.id
    )
    return Response(body, status_code=200 if parts.settings.compat.legacy_status else status)


ROUTES = [manage_model]
