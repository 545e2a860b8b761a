"""A download as the store keeps it."""

from typing import Literal

from msgspec import Struct

DownloadState = Literal["pending", "downloading", "paused", "completed", "failed", "cancelled"]


class Download(Struct, frozen=True, kw_only=True):
    """How far the weights of a model have come.

    Args:
        id: 8 hexadecimal digits.
        node: name of the machine that they come to.
        model: id of the model.
        state: what happens to it, or how it ended.
        files_done: files that are here and checked.
        files_total: files that it has; None until that is known.
        bytes_done: bytes that are here.
        bytes_total: bytes that it has; None until that is known.
        bytes_per_s: the rate of late.
        eta_s: seconds that it takes from now at this rate; None while nobody can say.
        commit: of the source that it brings; None until that is known.
        message: one line for people.
        error_code: of the error that ended it, if one did.
        error_status: the HTTP status of that error.
        created_at: when it was asked for, in seconds since 1970.
        updated_at: when this was written, likewise.
        finished_at: when it ended, likewise; None while it has not.
    """

    id: str
    node: str
    model: str
    state: DownloadState
    files_done: int = 0
    files_total: int | None = None
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_s: float = 0.0
    eta_s: float | None = None
    commit: str | None = None
    message: str = ""
    error_code: str | None = None
    error_status: int | None = None
    created_at: float
    updated_at: float
    finished_at: float | None = None
