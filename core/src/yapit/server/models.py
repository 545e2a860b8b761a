"""The models and voices that clients may name."""

from typing import Any

from litestar import Request, get
from litestar.params import FromPath, FromQuery
from msgspec import Struct

from yapit.catalog import Model
from yapit.engine import Status
from yapit.server.keys import OPEN
from yapit.server.loaded import LoadedModel, loaded_model
from yapit.server.managing.telling import DownloadStatus, told
from yapit.server.problems import PROBLEMS
from yapit.server.services import Services, services

_STATUS = "/status"


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A model in OpenAI's shape, and what else is known of it."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    tasks: tuple[str, ...]
    languages: tuple[str, ...]
    context_length: int | None
    dimensions: int | None
    status: Status


class ModelState(Struct, frozen=True, kw_only=True):
    """How a model is now: what of it is loaded, for which task; and its last download, if it had one."""

    model_name: str
    status: Status
    loaded: list[LoadedModel]
    download: DownloadStatus | None


class ModelList(Struct, frozen=True, kw_only=True):
    """The models that are served."""

    object: str = "list"
    data: list[ModelInfo]


class SpeechModelList(ModelList, frozen=True, kw_only=True):
    """The models that speak or listen; `models` and `data` are the same, for different clients."""

    models: list[ModelInfo]


class VoiceInfo(Struct, frozen=True, kw_only=True):
    """A voice, and the model that has it."""

    id: str
    name: str
    model: str
    languages: tuple[str, ...]
    gender: str | None


class VoiceList(Struct, frozen=True, kw_only=True):
    """The voices; `voices` and `data` are the same, for different clients."""

    object: str = "list"
    voices: list[VoiceInfo]
    data: list[VoiceInfo]


class VoiceNames(Struct, frozen=True, kw_only=True):
    """The voices' ids alone, as older clients expect them."""

    voices: list[str]


@get("/v1/models", sync_to_thread=False, tags=["models"], responses=PROBLEMS)
def list_models(request: Request[Any, Any, Any], task: FromQuery[str | None] = None) -> ModelList:
    """List the models, or those that do `task`."""
    parts = services(request)
    return ModelList(data=[info(parts, model) for model in parts.engine.catalog if task in (None, *model.tasks)])


@get(
    ["/v1/models/{model_id:path}", "/models/{model_id:path}"], sync_to_thread=False, tags=["models"], responses=PROBLEMS
)
def retrieve_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> ModelInfo | ModelState:
    """Describe one model, by id or alias; ids may contain slashes. `ID/status` says how it is now."""
    parts = services(request)
    name = model_id.removeprefix("/")
    catalog = parts.engine.catalog
    if name not in catalog and name.endswith(_STATUS):
        return _state(parts, catalog[name.removesuffix(_STATUS)])
    return info(parts, catalog[name])


@get(["/v1/audio/models", "/audio/models"], opt=OPEN, sync_to_thread=False, tags=["audio"], responses=PROBLEMS)
def list_audio_models(request: Request[Any, Any, Any]) -> SpeechModelList:
    """List the models that speak or listen; asked without a key by clients that fill a menu."""
    parts = services(request)
    found = [info(parts, m) for m in parts.engine.catalog if {"synthesize", "transcribe"} & set(m.tasks)]
    return SpeechModelList(data=found, models=found)


@get(["/v1/audio/voices", "/audio/voices"], opt=OPEN, sync_to_thread=False, tags=["audio"], responses=PROBLEMS)
def list_voices(
    request: Request[Any, Any, Any],
    model: FromQuery[str | None] = None,
    legacy: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
) -> VoiceList | VoiceNames:
    """List the voices of `model`, or of every model that speaks; asked without a key by clients that fill a menu."""
    catalog = services(request).engine.catalog
    chosen = [catalog[model]] if model else catalog.with_task("synthesize")
    voices = [voice for found in chosen for voice in _voices(found)]
    if legacy:
        return VoiceNames(voices=[voice.id for voice in voices])
    return VoiceList(voices=voices, data=voices)


def info(parts: Services, model: Model) -> ModelInfo:
    """Return a model in OpenAI's shape."""
    return ModelInfo(
        id=model.id,
        created=parts.started_at,
        owned_by=model.backend,
        tasks=model.tasks,
        languages=model.languages,
        context_length=model.context_length,
        dimensions=model.dimensions,
        status=parts.engine.status(model),
    )


def _state(parts: Services, model: Model) -> ModelState:
    download = parts.downloads.of(model)
    return ModelState(
        model_name=model.id,
        status=parts.engine.status(model),
        loaded=[loaded_model(resident) for resident in parts.engine.residency.of(model)],
        download=None if download is None else told(download),
    )


def _voices(model: Model) -> list[VoiceInfo]:
    return [
        VoiceInfo(
            id=voice.id,
            name=voice.name or voice.id,
            model=model.id,
            languages=voice.languages,
            gender=voice.gender,
        )
        for voice in model.voices
    ]


ROUTES = [list_models, retrieve_model, list_audio_models, list_voices]
