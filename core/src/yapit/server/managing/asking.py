"""The body that asks for a model, and what is answered."""

import datetime as dt
from typing import Any

from msgspec import Struct


class DownloadBody(Struct, frozen=True, kw_only=True):
    """A model that is wanted.

    Args:
        source: where it comes from: huggingface, pytorch_hub, torchvision, url, tts_auto or local.
        model_id: what it is called there: the id of a repository, the name of an architecture, a URL, a folder.
        name: what clients shall call it here.
        task: what it is for, as the hub names it; found out from its files when absent.
        revision: of the source; the newest when absent.
        url: of the file, where `model_id` is something else.
        sha256: of the file of a URL, in hexadecimal.
        architecture: of a file of weights, which does not say it itself.
        auto_convert_tts: if it can speak, serve it as a model that does.
        include_vocoder: what makes sound of its spectrograms shall be fetched as well.
        vocoder_model: which one, instead of the model's own.
        enable_large_model: fetch it although it is larger than `provisioning.large_model`.
        experimental: fetch it although it is known to be experimental.
        custom_settings: options of its backend.
        config: further fields of its entry in the catalog, such as `backend`, `defaults`, `voices`, `keep_alive`.
    """

    source: str
    model_id: str
    name: str
    task: str | None = None
    revision: str | None = None
    url: str | None = None
    sha256: str | None = None
    architecture: str | None = None
    auto_convert_tts: bool = False
    include_vocoder: bool = False
    vocoder_model: str | None = None
    enable_large_model: bool = False
    experimental: bool = False
    custom_settings: dict[str, Any] | None = None
    config: dict[str, Any] | None = None


class DownloadInfo(Struct, frozen=True, kw_only=True):
    """What is fetched.

    Args:
        download_id: of the download.
        model_type: tts, stt, or what it is for.
        description: one line.
        estimated_size_mb: what all its files take, as their host says; null where nobody says.
        supports_voice_cloning: always false: no route takes a sample of a voice.
        vocoder_included: another model, which makes sound of its spectrograms, is fetched with it.
        vocoder_models: which.
        started_at: when the download was asked for.
    """

    download_id: str
    model_type: str
    description: str
    estimated_size_mb: float | None
    supports_voice_cloning: bool
    vocoder_included: bool
    vocoder_models: list[str]
    started_at: dt.datetime | None


class DownloadStarted(Struct, frozen=True, kw_only=True):
    """What came of a wish for a model.

    Args:
        success: always true; refusals have a body of their own.
        download_id: asks how far it is.
        message: one line for people.
        model_name: what clients call the model.
        source: as it was given.
        model_id: as it was given.
        status: `downloading`; `completed` if nothing had to be fetched, `already_exists` if nothing had to be done.
        estimated_time: of the whole download, at the rate of earlier ones: `4 minutes`; `unknown` without any.
        download_info: what is fetched.
        warnings: wishes that mean nothing for this model.
    """

    success: bool
    download_id: str
    message: str
    model_name: str
    source: str
    model_id: str
    status: str
    estimated_time: str
    download_info: DownloadInfo
    warnings: list[str]
