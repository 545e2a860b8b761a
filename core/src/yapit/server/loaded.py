"""What is loaded, and loading and unloading by hand."""

import datetime as dt
from typing import Any, Literal

from litestar import Request, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Struct, field

from yapit.engine import Event, Resident, Status
from yapit.errors import InvalidInputError, did_you_mean
from yapit.server.keys import ADMIN
from yapit.server.moments import moment
from yapit.server.problems import PROBLEMS
from yapit.server.requests import keep_loaded
from yapit.server.services import services
from yapit.tasks import TASKS, Task


class Details(Struct, frozen=True, kw_only=True):
    """What Ollama's clients show of a model."""

    format: str = ""
    family: str
    families: list[str]
    parameter_size: str = ""
    quantization_level: str = ""


class LoadedModel(Struct, frozen=True, kw_only=True):
    """A model that is loaded for one task, in Ollama's fields and in ours.

    `size` and `memory_bytes` are the same, `size_vram` is the part of a GPU. `state` is loading, loaded or unloading.
    """

    name: str
    model: str
    size: int
    digest: str = ""
    details: Details
    expires_at: dt.datetime | None
    size_vram: int
    context_length: int | None
    task: str
    state: Literal["loading", "loaded", "unloading"]
    device: str
    memory_bytes: int
    memory_is_measured: bool
    pid: int | None
    running: int
    queued: int
    pinned: bool
    loaded_at: dt.datetime | None
    idle_since: dt.datetime | None
    waits_for: str | None


class ModelEvent(Struct, frozen=True, kw_only=True):
    """What happened to a model, when and why."""

    at: dt.datetime
    model: str
    task: str
    event: Literal["loaded", "unloaded", "expired", "evicted", "refused", "failed", "died"]
    reason: str


class DeviceMemory(Struct, frozen=True, kw_only=True):
    """What models take of a device, and what they may take; null = no limit is known."""

    device: str
    taken_bytes: int
    budget_bytes: int | None


class Loaded(Struct, frozen=True, kw_only=True):
    """The loaded models, the memory, and the last events, newest first."""

    models: list[LoadedModel]
    devices: list[DeviceMemory]
    events: list[ModelEvent]


class LoadBody(Struct, frozen=True, kw_only=True):
    """Which model to load or unload.

    Args:
        model: id or alias.
        task: one of its tasks; all of them when absent.
        keep_alive: how long it stays when idle: seconds, or `10m`; 0 not at all, negative for ever.
    """

    model: str
    task: str | None = None
    keep_alive: str | float | None = None


class Done(Struct, frozen=True, kw_only=True):
    """What came of it."""

    success: bool = True
    model: str
    status: Status


class Cancelled(Struct, frozen=True, kw_only=True):
    """How many requests of an id were stopped."""

    id: str
    object: str = field(default="request.cancelled")
    cancelled: int


@get("/api/ps", sync_to_thread=False, tags=["models"], responses=PROBLEMS)
def list_loaded(request: Request[Any, Any, Any]) -> Loaded:
    """List what is loaded, where, how long still, and what happened lately and why."""
    residency = services(request).engine.residency
    residents = residency.all()
    taken: dict[str, int] = {}
    for resident in residents:
        taken[resident.device] = taken.get(resident.device, 0) + resident.memory_bytes
    return Loaded(
        models=[loaded_model(resident) for resident in residents],
        devices=[
            DeviceMemory(device=device, taken_bytes=count, budget_bytes=residency.budget(device))
            for device, count in sorted(taken.items())
        ],
        events=[_event(event) for event in residency.history],
    )


@post(["/v1/models/load", "/models/load"], opt=ADMIN, status_code=200, tags=["models"], responses=PROBLEMS)
async def load_model(request: Request[Any, Any, Any], data: JSONBody[LoadBody]) -> Done:
    """Load a model and answer when it is loaded; it stays for `keep_alive`."""
    engine = services(request).engine
    model = engine.catalog[data.model]
    keep_loaded(data.keep_alive)
    for name in [data.task] if data.task else model.tasks:
        await engine.load(task_named(name), model)
    return Done(model=model.id, status=engine.status(model))


@post(["/v1/models/unload", "/models/unload"], opt=ADMIN, status_code=200, tags=["models"], responses=PROBLEMS)
async def unload_model(request: Request[Any, Any, Any], data: JSONBody[LoadBody]) -> Done:
    """Unload a model that is idle, and answer when its memory has been given back."""
    engine = services(request).engine
    model = engine.catalog[data.model]
    loaded = [resident.task for resident in engine.residency.of(model)]
    for task in [task_named(data.task)] if data.task else loaded or [TASKS[model.tasks[0]]]:
        await engine.unload(task, model)
    return Done(model=model.id, status=engine.status(model))


@delete(["/v1/requests/{request_id:str}", "/requests/{request_id:str}"], status_code=200, responses=PROBLEMS)
async def cancel_request(request: Request[Any, Any, Any], request_id: FromPath[str]) -> Cancelled:
    """Stop the requests with this `x-request-id`, wherever they are; their clients get status 499."""
    return Cancelled(id=request_id, cancelled=services(request).desk.stop(request_id))


def task_named(name: str) -> Task:
    """Return the task, or raise `InvalidInputError` naming near ones."""
    if name not in TASKS:
        raise InvalidInputError(f"There is no task '{name}'. {did_you_mean(name, [*TASKS])}", param="task")
    return TASKS[name]


def loaded_model(resident: Resident) -> LoadedModel:
    """Return what is loaded, in Ollama's fields and in ours."""
    model = resident.model
    return LoadedModel(
        name=model.id,
        model=model.id,
        size=resident.memory_bytes,
        details=Details(family=model.backend, families=[model.backend]),
        expires_at=moment(resident.expires_at),
        size_vram=resident.memory_bytes if resident.device.startswith("cuda") else 0,
        context_length=model.context_length,
        task=resident.task.name,
        state=resident.state,
        device=resident.device,
        memory_bytes=resident.memory_bytes,
        memory_is_measured=resident.measured,
        pid=resident.pid,
        running=resident.running,
        queued=resident.queued,
        pinned=model.pin,
        loaded_at=moment(resident.loaded_at),
        idle_since=None if resident.users or resident.state != "loaded" else moment(resident.used_at),
        waits_for=resident.waits_for or None,
    )


def _event(event: Event) -> ModelEvent:
    at = dt.datetime.fromtimestamp(event.at, dt.UTC)
    return ModelEvent(at=at, model=event.model, task=event.task, event=event.event, reason=event.reason)


ROUTES = [list_loaded, load_model, unload_model, cancel_request]
