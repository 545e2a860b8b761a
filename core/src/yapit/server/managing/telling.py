"""How far a download is, as clients of this API read it."""

import datetime as dt
from typing import Literal

from msgspec import Struct

from yapit.quantities import written
from yapit.server.moments import moment
from yapit.store.downloads import Download

_WHOLE, _NEARLY = 100, 99


class DownloadStatus(Struct, frozen=True, kw_only=True):
    """How far a download is.

    Args:
        download_id: its id.
        status: what happens to it, or how it ended.
        progress: percent of its bytes that are here; 100 only when all is here and checked.
        eta: seconds that it still takes; null while nobody can say.
        message: one line for people.
        model_name: id of the model.
        files_done: files that are here and checked.
        files_total: files that it has; null until that is known.
        bytes_done: bytes that are here.
        bytes_total: bytes that it has; null until that is known.
        bytes_per_s: the rate of late.
        commit: of the source that it brings; null until that is known.
        error_code: of the error that ended it, if one did.
        started_at: when it was asked for.
        finished_at: when it ended; null while it has not.
    """

    download_id: str
    status: Literal["pending", "downloading", "paused", "completed", "failed", "cancelled"]
    progress: int
    eta: float | None
    message: str
    model_name: str
    files_done: int
    files_total: int | None
    bytes_done: int
    bytes_total: int | None
    bytes_per_s: float
    commit: str | None
    error_code: str | None
    started_at: dt.datetime | None
    finished_at: dt.datetime | None


def told(download: Download) -> DownloadStatus:
    """Return a download in the words of this API."""
    return DownloadStatus(
        download_id=download.id,
        status=download.state,
        progress=_percent(download),
        eta=download.eta_s,
        message=_message(download),
        model_name=download.model,
        files_done=download.files_done,
        files_total=download.files_total,
        bytes_done=download.bytes_done,
        bytes_total=download.bytes_total,
        bytes_per_s=download.bytes_per_s,
        commit=download.commit,
        error_code=download.error_code,
        started_at=moment(download.created_at),
        finished_at=moment(download.finished_at),
    )


def _percent(download: Download) -> int:
    if download.state == "completed":
        return _WHOLE
    if not download.bytes_total:
        return 0
    return min(_NEARLY, _WHOLE * download.bytes_done // download.bytes_total)


def _message(download: Download) -> str:
    match download.state:
        case "pending":
            return "Download queued"
        case "downloading":
            whole = f" of {written(download.bytes_total)}" if download.bytes_total else ""
            return f"Downloading: {written(download.bytes_done)}{whole}"
        case "paused":
            return f"Download paused; {written(download.bytes_done)} are kept"
        case "completed":
            return "Download completed successfully"
        case "cancelled":
            return "Download was cancelled"
        case "failed":
            return download.message or "Download failed"
