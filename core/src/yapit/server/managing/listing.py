"""The routes that list the models: those that are served, and those that may be fetched."""

import asyncio
import datetime as dt
from typing import Any

from litestar import Request, get
from litestar.params import FromQuery

from yapit.catalog import Catalog, Model
from yapit.server.managing.answering import REFUSALS
from yapit.server.managing.holdings import held
from yapit.server.managing.lists import (
    AudioModels,
    Available,
    AvailableModels,
    Categories,
    Deployment,
    Models,
    ModelSummary,
    Recommendations,
    Specialized,
    SpeechFeatures,
    SpeechModel,
)
from yapit.server.managing.usage import Usage, usage_of
from yapit.server.managing.words import (
    category_of,
    labels_images,
    megabytes,
    source_of,
    speaks,
    tags_of,
    task_of,
)
from yapit.server.models import info
from yapit.server.services import Services, services

_FAST, _SLOW = 5.0, 1.0  # seconds of speech made in one
_SMALL_BYTES = 1_000_000_000  # of memory
_POPULAR = 10


@get(["/models", "/api/models"], sync_to_thread=False, tags=["managing"], responses=REFUSALS)
def list_all(request: Request[Any, Any, Any], task: FromQuery[str | None] = None) -> Models:
    """List the models, or those that do `task`, for clients that manage models and for those of OpenAI."""
    parts = services(request)
    catalog = parts.engine.catalog
    models = [model for model in catalog if task in (None, *model.tasks)]
    groups: dict[str, list[str]] = {}
    for model in models:
        if model.exclusive is not None:
            groups.setdefault(model.exclusive, []).append(model.id)
    return Models(
        success=True,
        timestamp=dt.datetime.now(dt.UTC),
        total_models=len(models),
        available_models=[model.id for model in models],
        models_info={model.id: _summary(parts, model) for model in models},
        specialized_models=_specialized(models),
        audio_models=_audio(parts, models),
        model_groups=groups,
        deployment_info=_deployment(parts, catalog),
        object="list",
        data=[info(parts, model) for model in models],
    )


@get(["/models/available", "/api/models/available"], tags=["managing"], responses=REFUSALS)
async def list_available(request: Request[Any, Any, Any]) -> AvailableModels:
    """List the models that are here or may be fetched, with what is known of each."""
    parts = services(request)
    models = list(parts.engine.catalog)
    _, holdings = await asyncio.to_thread(held, parts)
    usage = usage_of(parts.engine)
    found = {}
    for model in models:
        holding = holdings.get(model.id)
        found[model.id] = Available(
            name=model.id,
            source=source_of(model),
            model_id=model.source or model.id,
            task=task_of(model),
            description=_described(model),
            size_mb=megabytes(holding.size_bytes) if holding is not None and holding.here else None,
            memory_mb=megabytes(model.memory_bytes),
            downloaded=model.source is None or (holding is not None and holding.here),
            licence=model.licence,
            tags=tags_of(model),
            tts_features=_features(model, usage.get(model.id)),
        )
    speaking = [model.id for model in models if speaks(model)]
    asked = sorted(speaking, key=lambda name: -usage[name].calls if name in usage else 0)
    return AvailableModels(
        available_models=found,
        total_available=len(found),
        categories=Categories(tts_models=speaking, general_models=[model.id for model in models if not speaks(model)]),
        popular_tts_models=asked[:_POPULAR],
        download_recommendations=_recommended([model for model in models if speaks(model)], found),
    )


def _described(model: Model) -> str:
    return model.description or model.id


def _summary(parts: Services, model: Model) -> ModelSummary:
    return ModelSummary(
        display_name=_described(model),
        task=task_of(model),
        category=category_of(model),
        enabled=parts.engine.plugins.serves(model),
        tts_enabled=speaks(model),
    )


def _specialized(models: list[Model]) -> Specialized:
    def those(task: str) -> list[str]:
        return [model.id for model in models if task in model.tasks]

    images = [model.id for model in models if labels_images(model)]
    return Specialized(
        tts_models=those("synthesize"),
        stt_models=those("transcribe"),
        image_classification=images,
        text_classification=[name for name in those("classify") if name not in images],
        text_generation=those("generate"),
        feature_extraction=those("embed"),
        text_ranking=those("rerank"),
    )


def _audio(parts: Services, models: list[Model]) -> AudioModels:
    detailed = {
        model.id: SpeechModel(type=source_of(model), model_name=model.source or model.id, description=_described(model))
        for model in models
        if speaks(model)
    }
    audible = [model for model in models if category_of(model) == "audio"]
    loaded = [model.id for model in audible if parts.engine.status(model).value == "loaded"]
    return AudioModels(tts_detailed=detailed, loaded_audio_models=loaded)


def _deployment(parts: Services, catalog: Catalog) -> Deployment:
    warm = parts.settings.engine
    named = [catalog[name].id for name in (*warm.warm_up, *warm.warm_up_optional) if name in catalog]
    return Deployment(auto_load_models=named, high_priority_models=[model.id for model in catalog if model.pin])


def _features(model: Model, usage: Usage | None) -> SpeechFeatures:
    rate = usage.audio_rate if usage is not None and speaks(model) else None
    speed = None if rate is None else "fast" if rate >= _FAST else "slow" if rate < _SLOW else "medium"
    return SpeechFeatures(
        supports_tts=speaks(model),
        quality=None,
        speed=speed,
        seconds_per_second=None if rate is None else round(rate, 2),
        vocoder_required=bool(model.options.get("vocoder")),
        supports_voice_cloning=False,
        supports_emotions=False,
        voices=len(model.voices),
    )


def _recommended(models: list[Model], found: dict[str, Available]) -> Recommendations:
    small = [model.id for model in models if model.memory_bytes is not None and model.memory_bytes <= _SMALL_BYTES]
    large = [model.id for model in models if model.memory_bytes is not None and model.memory_bytes > _SMALL_BYTES]
    return Recommendations(
        beginners=small,
        advanced=large,
        fast_setup=[model.id for model in models if found[model.id].downloaded],
        highest_quality=[],
    )


ROUTES = [list_all, list_available]
