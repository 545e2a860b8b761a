"""The routes that say what is kept: models that are loaded or downloaded, and what takes the disk."""

import asyncio
from pathlib import Path
from typing import Any

from litestar import Request, get

from yapit.catalog import Model
from yapit.engine import Resident
from yapit.server.managing.answering import REFUSALS
from yapit.server.managing.holdings import Holding, held
from yapit.server.managing.kept import (
    CachedSpeech,
    CacheInfo,
    CacheOptimization,
    Listed,
    Managed,
    ManagedCategories,
    ManagedModels,
    MemoryUsage,
    SpeechCache,
    Summary,
)
from yapit.server.managing.optimizing import is_optimized
from yapit.server.managing.usage import hit_rate
from yapit.server.managing.words import megabytes, source_of, speaks, tags_of, task_of
from yapit.server.services import Services, services


@get(["/models/managed", "/api/models/managed"], tags=["managing"], responses=REFUSALS)
async def list_managed(request: Request[Any, Any, Any]) -> ManagedModels:
    """List the models that are loaded or downloaded, and what they take."""
    parts = services(request)
    _, holdings = await asyncio.to_thread(held, parts)
    found = []
    for model in parts.engine.catalog:
        residents = [resident for resident in parts.engine.residency.of(model) if resident.state == "loaded"]
        holding = holdings.get(model.id)
        if residents or (holding is not None and holding.here):
            found.append(_managed(parts, model, residents, holding))
    listed = [Listed(name=each.name, loaded=each.loaded, is_tts=each.is_tts) for each in found]
    optimized = [each.name for each in found if each.optimized]
    return ManagedModels(
        total_models=len(found),
        downloaded_models=found,
        categories=ManagedCategories(
            tts_models=[each for each in listed if each.is_tts],
            other_models=[each for each in listed if not each.is_tts],
        ),
        summary=Summary(
            total_loaded=sum(each.loaded for each in found),
            tts_models_count=sum(each.is_tts for each in found),
            optimized_count=len(optimized),
            total_parameters=sum(each.parameters or 0 for each in found),
        ),
        optimized_models=optimized,
        cached_models=[each.name for each in found if each.downloaded],
    )


@get(["/models/cache/info", "/api/models/cache/info"], tags=["managing"], responses=REFUSALS)
async def cache_info(request: Request[Any, Any, Any]) -> CacheInfo:
    """Say what takes the disk, and how well the cache of results does."""
    return await asyncio.to_thread(_cache_info, services(request))


def _managed(parts: Services, model: Model, residents: list[Resident], holding: Holding | None) -> Managed:
    measured = [resident.memory_bytes for resident in residents if resident.measured]
    return Managed(
        name=model.id,
        loaded=bool(residents),
        device=residents[0].device if residents else None,
        is_tts=speaks(model),
        optimized=is_optimized(parts.engine.plugins, model),
        memory_usage=MemoryUsage(
            allocated_mb=megabytes(sum(measured)) if measured else None,
            reserved_mb=megabytes(sum(resident.memory_bytes for resident in residents)) or 0.0,
        ),
        parameters=None if holding is None else holding.parameters,
        downloaded=holding is not None and holding.here,
        size_mb=megabytes(holding.size_bytes) if holding is not None else None,
    )


def _cache_info(parts: Services) -> CacheInfo:
    from huggingface_hub import constants

    disk, holdings = held(parts)
    models = {model.id: model for model in parts.engine.catalog}
    kept = {
        name: holding for name, holding in holdings.items() if holding.size_bytes and source_of(models[name]) != "local"
    }
    speaking = [(models[name], holding) for name, holding in kept.items() if speaks(models[name])]
    # A repository that several models share is counted once.
    shared = {model.source or model.id: holding.size_bytes for model, holding in speaking}
    total, spoken = disk.size_bytes(), sum(shared.values())
    needed = {each.source for each in models.values()} | disk.needed
    return CacheInfo(
        cache_directory=constants.HF_HUB_CACHE,
        files_directory=str((Path(parts.settings.data_dir) / "files").absolute()),
        total_models=len(kept),
        total_size_mb=megabytes(total) or 0.0,
        models=list(kept),
        other_repositories=sorted(set(disk.repositories) - needed),
        tts_specific=SpeechCache(
            tts_models_count=len(speaking),
            tts_models=[
                CachedSpeech(
                    name=model.id,
                    size_mb=megabytes(holding.size_bytes) or 0.0,
                    source=source_of(model),
                    task=task_of(model),
                    tags=tags_of(model),
                )
                for model, holding in speaking
            ],
            tts_total_size_mb=megabytes(spoken) or 0.0,
            tts_percentage=round(100 * spoken / total, 1) if total else 0.0,
        ),
        cache_optimization=CacheOptimization(
            cache_hit_rate=hit_rate(parts.engine),
            optimization_enabled=parts.engine.cache.on,
            auto_cleanup=parts.settings.cache.enabled,
        ),
    )


ROUTES = [list_managed, cache_info]
