"""The bodies that say what is loaded, and what takes the disk."""

from msgspec import Struct


class MemoryUsage(Struct, frozen=True, kw_only=True):
    """What a loaded model takes.

    Args:
        allocated_mb: as it was measured; null where it was not.
        reserved_mb: what is counted against the device's budget: as measured, or else as the catalog estimates it.
    """

    allocated_mb: float | None
    reserved_mb: float


class Managed(Struct, frozen=True, kw_only=True):
    """A model that is loaded or downloaded; what is null is not known, or not so now.

    `optimized` says that it has options that its plugin offers as faster ones, such as `optimize` finds.
    """

    name: str
    loaded: bool
    device: str | None
    is_tts: bool
    optimized: bool
    memory_usage: MemoryUsage
    parameters: int | None
    downloaded: bool
    size_mb: float | None


class Listed(Struct, frozen=True, kw_only=True):
    """A model, whether it is loaded, and whether it speaks."""

    name: str
    loaded: bool
    is_tts: bool


class ManagedCategories(Struct, frozen=True, kw_only=True):
    """The models that speak, and the others."""

    tts_models: list[Listed]
    other_models: list[Listed]


class Summary(Struct, frozen=True, kw_only=True):
    """How many of the models there are; parameters that cannot be counted are not."""

    total_loaded: int
    tts_models_count: int
    optimized_count: int
    total_parameters: int


class ManagedModels(Struct, frozen=True, kw_only=True):
    """The models that are loaded or downloaded."""

    total_models: int
    downloaded_models: list[Managed]
    categories: ManagedCategories
    summary: Summary
    optimized_models: list[str]
    cached_models: list[str]


class CachedSpeech(Struct, frozen=True, kw_only=True):
    """A model that speaks, on the disk."""

    name: str
    size_mb: float
    source: str
    task: str
    tags: list[str]


class SpeechCache(Struct, frozen=True, kw_only=True):
    """What the models that speak take of the disk."""

    tts_models_count: int
    tts_models: list[CachedSpeech]
    tts_total_size_mb: float
    tts_percentage: float


class CacheOptimization(Struct, frozen=True, kw_only=True):
    """The cache of results.

    Args:
        cache_hit_rate: which part of the calls that asked it got theirs from it; null if it is off, or none asked.
        optimization_enabled: it is on.
        auto_cleanup: it keeps to a size by itself; weights stay until they are removed.
    """

    cache_hit_rate: float | None
    optimization_enabled: bool
    auto_cleanup: bool


class CacheInfo(Struct, frozen=True, kw_only=True):
    """What takes the disk: `models` of the catalog, and `other_repositories` that none of them needs."""

    cache_directory: str
    files_directory: str
    total_models: int
    total_size_mb: float
    models: list[str]
    other_repositories: list[str]
    tts_specific: SpeechCache
    cache_optimization: CacheOptimization
