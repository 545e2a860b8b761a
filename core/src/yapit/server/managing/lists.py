"""The bodies that list models."""

import datetime as dt

from msgspec import Struct

from yapit.server.models import ModelInfo


class ModelSummary(Struct, frozen=True, kw_only=True):
    """A model in few words; `enabled` says whether an installed plugin serves it."""

    display_name: str
    task: str
    category: str
    enabled: bool
    tts_enabled: bool


class Specialized(Struct, frozen=True, kw_only=True):
    """The ids of the models by what they are for."""

    tts_models: list[str]
    stt_models: list[str]
    image_classification: list[str]
    text_classification: list[str]
    text_generation: list[str]
    feature_extraction: list[str]
    text_ranking: list[str]


class SpeechModel(Struct, frozen=True, kw_only=True):
    """Where a model that speaks comes from."""

    type: str
    model_name: str
    description: str


class AudioModels(Struct, frozen=True, kw_only=True):
    """The models that speak, and those of all that speak or listen that are loaded."""

    tts_detailed: dict[str, SpeechModel]
    loaded_audio_models: list[str]


class Deployment(Struct, frozen=True, kw_only=True):
    """The models that the settings warm up, and those that are never evicted."""

    auto_load_models: list[str]
    high_priority_models: list[str]


class Models(Struct, frozen=True, kw_only=True):
    """The models that are served, for clients of several kinds: `object` and `data` are as OpenAI has them."""

    success: bool
    timestamp: dt.datetime
    total_models: int
    available_models: list[str]
    models_info: dict[str, ModelSummary]
    specialized_models: Specialized
    audio_models: AudioModels
    model_groups: dict[str, list[str]]
    deployment_info: Deployment
    object: str
    data: list[ModelInfo]


class SpeechFeatures(Struct, frozen=True, kw_only=True):
    """What is known of how a model speaks.

    Args:
        supports_tts: it speaks.
        quality: always null: nobody has measured it.
        speed: `fast`, `medium` or `slow`, as it was on this server; null if it has not spoken here yet.
        seconds_per_second: of speech that it has made here.
        vocoder_required: another model makes sound of its spectrograms.
        supports_voice_cloning: always false: no route takes a sample of a voice.
        supports_emotions: always false: nothing says it of any model.
        voices: how many it has.
    """

    supports_tts: bool
    quality: str | None
    speed: str | None
    seconds_per_second: float | None
    vocoder_required: bool
    supports_voice_cloning: bool
    supports_emotions: bool
    voices: int


class Available(Struct, frozen=True, kw_only=True):
    """A model that is here or may be fetched; `size_mb` is what it takes on the disk, null if it is not there."""

    name: str
    source: str
    model_id: str
    task: str
    description: str
    size_mb: float | None
    memory_mb: float | None
    downloaded: bool
    licence: str | None
    tags: list[str]
    tts_features: SpeechFeatures


class Categories(Struct, frozen=True, kw_only=True):
    """The ids of the models that speak, and of the others."""

    tts_models: list[str]
    general_models: list[str]


class Recommendations(Struct, frozen=True, kw_only=True):
    """Models that speak, by what is known of them.

    Args:
        beginners: those that need no more than 1 GB of memory.
        advanced: those that need more.
        fast_setup: those that are here, or need nothing.
        highest_quality: always empty: nobody has measured it.
    """

    beginners: list[str]
    advanced: list[str]
    fast_setup: list[str]
    highest_quality: list[str]


class AvailableModels(Struct, frozen=True, kw_only=True):
    """The models that are here or may be fetched; the popular ones have been asked for most, here and by now."""

    available_models: dict[str, Available]
    total_available: int
    categories: Categories
    popular_tts_models: list[str]
    download_recommendations: Recommendations
