"""The routes of one model: load it, unload it."""

from typing import Any

from litestar import Request, post
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from yapit.engine import Status
from yapit.errors import InvalidInputError
from yapit.server.keys import ADMIN
from yapit.server.loaded import task_named
from yapit.server.managing.answering import REFUSALS
from yapit.server.managing.refusals import unknown_action
from yapit.server.managing.removing import unload
from yapit.server.requests import keep_loaded
from yapit.server.services import services

_ACTIONS = ("load", "unload")


class LoadWish(Struct, frozen=True, kw_only=True):
    """How a model shall be loaded.

    Args:
        task: one of its tasks; all of them when absent.
        keep_alive: how long it stays when idle: seconds, or `10m`; 0 not at all, negative for ever.
    """

    task: str | None = None
    keep_alive: str | float | None = None


class Changed(Struct, frozen=True, kw_only=True):
    """What came of it."""

    success: bool
    message: str
    model_name: str
    status: Status


@post(
    ["/models/{name_and_action:path}", "/api/models/{name_and_action:path}"],
    opt=ADMIN,
    status_code=200,
    tags=["managing"],
    responses=REFUSALS,
)
async def change_model(
    request: Request[Any, Any, Any], name_and_action: FromPath[str], data: JSONBody[LoadWish | None] = None
) -> Changed:
    """Load or unload a model, and answer when that is done: `NAME/load`, `NAME/unload`."""
    engine = services(request).engine
    name, _, action = name_and_action.removeprefix("/").rpartition("/")
    if action not in _ACTIONS:
        raise unknown_action(action, _ACTIONS)
    model, wish = engine.catalog[name], data or LoadWish()
    if action == "load":
        keep_loaded(wish.keep_alive)
        for task in [wish.task] if wish.task else model.tasks:
            await engine.load(task_named(task), model)
    elif not engine.residency.of(model):
        raise InvalidInputError(f"The model '{model.id}' is not loaded.", param="model", code="model_not_loaded")
    else:
        await unload(engine, model)
    return Changed(
        success=True,
        message=f"Model '{model.id}' {action}ed successfully",
        model_name=model.id,
        status=engine.status(model),
    )


ROUTES = [change_model]
