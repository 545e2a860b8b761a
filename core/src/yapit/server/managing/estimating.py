"""What is answered to who wants a model: what it is, how large, and how long it will take."""

import statistics

from yapit.catalog import Model
from yapit.errors import YapitError
from yapit.server.managing.asking import DownloadBody, DownloadInfo, DownloadStarted
from yapit.server.managing.starting import Begun
from yapit.server.managing.words import megabytes, span, speaks, type_of
from yapit.server.moments import moment
from yapit.server.services import Services
from yapit.store import Download

_LEAST_BYTES = 1_000_000  # of a download whose rate says something


def rate_bytes_per_s(downloads: list[Download]) -> float | None:
    """Return the rate that downloads have had so far; None if there was none that says anything."""
    rates = [download.bytes_per_s for download in downloads if download.bytes_per_s > 0]
    for download in downloads:
        took_s = (download.finished_at or 0) - download.created_at
        if download.state == "completed" and (download.bytes_total or 0) >= _LEAST_BYTES and took_s > 0:
            rates.append((download.bytes_total or 0) / took_s)
    return statistics.median(rates) if rates else None


def started(parts: Services, body: DownloadBody, begun: Begun, others: list[str]) -> DownloadStarted:
    """Return the answer to who wants a model; `others` are the further models that it needs."""
    model, download = begun.model, begun.download
    rate = rate_bytes_per_s(parts.downloads.all())
    missing = begun.bytes_missing
    eta_s = download.eta_s
    if eta_s is None and missing is not None and rate is not None:
        eta_s = missing / rate
    kind = "TTS model" if speaks(model) else "model"
    messages = {
        "downloading": f"Started downloading {kind} '{body.name}'",
        "completed": f"{kind[0].upper()}{kind[1:]} '{body.name}' is ready to use: nothing had to be downloaded",
        "already_exists": f"Model '{body.name}' already exists and is ready to use",
    }
    return DownloadStarted(
        success=True,
        download_id=download.id,
        message=messages[begun.status],
        model_name=body.name,
        source=body.source,
        model_id=body.model_id,
        status=begun.status,
        estimated_time=span(eta_s) if begun.status == "downloading" else span(0),
        download_info=_info(begun, others),
        warnings=list(begun.warnings),
    )


def others_of(parts: Services, model: Model) -> list[str]:
    """Return the further models that a model needs; its plugin may ask the hub for that."""
    try:
        weights = parts.engine.plugins.weights(model)
    except YapitError:
        return []
    return [each.source for each in weights if each.kind == "model" and each.source != model.source]


def _info(begun: Begun, others: list[str]) -> DownloadInfo:
    model, download = begun.model, begun.download
    vocoders = others if speaks(model) else []
    return DownloadInfo(
        download_id=download.id,
        model_type=type_of(model),
        description=model.description or model.source or model.id,
        estimated_size_mb=megabytes(begun.bytes_total if begun.bytes_total is not None else download.bytes_total),
        supports_voice_cloning=False,
        vocoder_included=bool(vocoders),
        vocoder_models=vocoders,
        started_at=moment(download.created_at),
    )
