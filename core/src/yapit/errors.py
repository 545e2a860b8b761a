"""Every error a plugin may raise and every error a client may see.

YapitError                      code, HTTP status
├─ RequestError            400  the request cannot be served as it is
│  ├─ InvalidInputError    400  a field has a value that is refused
│  ├─ NotFoundError        404  there is no such thing
│  │  └─ ModelNotFoundError 404  no catalog has this model
│  ├─ UnsupportedTaskError 400  the model exists but does not do this
│  ├─ ConflictError        409  the state of the server forbids it now
│  └─ StoppedError         499  it was cancelled while it ran
├─ AccessError
│  ├─ UnauthorizedError    401
│  └─ ForbiddenError       403
├─ CapacityError           503  with Retry-After
├─ RateLimitError          429  with Retry-After
├─ StorageFullError        507  the disk has no room
├─ BackendError            500  the model failed
│  ├─ LoadError            503  the model could not be loaded
│  ├─ OutOfMemoryError     503  the device had no room for the work
│  ├─ WorkerDiedError      502  the process that ran it is gone
│  ├─ RemoteError          502  a remote backend failed
│  └─ DeadlineError        504  it took longer than allowed
└─ StartupError                 never reaches HTTP: one line on stderr, exit 2
   ├─ PluginError
   └─ SettingsError
"""

from difflib import get_close_matches
from typing import ClassVar

_SUGGESTIONS = 3
_LISTED = 12


class YapitError(Exception):
    """Root of all errors yapit raises on purpose.

    Args:
        message: what went wrong, for the person who sent the request; never holds a secret.
        param: the request field at fault, in the client's spelling.
        code: replaces the class's machine-readable code.
        retry_after_s: seconds after which the same request may succeed.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code


class RequestError(YapitError):
    """The request cannot be served as it is."""

    status = 400
    type = "invalid_request_error"


class InvalidInputError(RequestError):
    """A field of the request has a value that is refused."""

    code = "invalid_value"


class NotFoundError(RequestError):
    """There is no such thing."""

    status = 404
    code = "not_found"


class ModelNotFoundError(NotFoundError):
    """No catalog has the model."""

    code = "model_not_found"


class UnsupportedTaskError(RequestError):
    """The model exists but does not do this task."""

    code = "unsupported_task"


class ConflictError(RequestError):
    """The state of the server forbids the request now."""

    status = 409
    code = "conflict"


class StoppedError(RequestError):
    """The request was cancelled while it ran."""

    status = 499
    code = "request_cancelled"


class AccessError(YapitError):
    """The caller may not do this."""

    type = "invalid_request_error"


class UnauthorizedError(AccessError):
    """No key, or a wrong one."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(AccessError):
    """The key is good but does not allow this."""

    status = 403
    code = "forbidden"


class CapacityError(YapitError):
    """The server cannot take the request now; `retry_after_s` says when to try again."""

    status = 503
    code = "overloaded"


def shutting_down() -> CapacityError:
    """Return the error for what comes, or still runs, while the server ends."""
    return CapacityError("The server is shutting down.", code="server_draining", retry_after_s=1)


class RateLimitError(YapitError):
    """The caller, or the model's queue, is over its limit; `retry_after_s` says when to try again."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"


class StorageFullError(YapitError):
    """The disk has no room for what was asked for; nothing of it was kept."""

    status = 507
    code = "storage_full"


class BackendError(YapitError):
    """The model failed; what an adapter raised besides a `YapitError` becomes one of these."""

    code = "backend_error"


class LoadError(BackendError):
    """The model could not be loaded."""

    status = 503
    code = "load_failed"


class OutOfMemoryError(BackendError):
    """The device had no room for the work; a smaller piece of it may fit."""

    status = 503
    code = "out_of_memory"


class WorkerDiedError(BackendError):
    """The process that ran the model is gone."""

    status = 502
    code = "worker_died"


class RemoteError(BackendError):
    """A remote backend failed or cannot be reached."""

    status = 502
    code = "remote_error"


class DeadlineError(BackendError):
    """The work took longer than allowed and was stopped."""

    status = 504
    code = "deadline_exceeded"


class StartupError(YapitError):
    """The server cannot start; shown as one line, exit code 2."""


class PluginError(StartupError):
    """A plugin breaks the hook contract."""


class SettingsError(StartupError):
    """A setting is unknown or has a value that is refused."""


def did_you_mean(wrong: str, known: list[str]) -> str:
    """Return a sentence naming the entries of `known` nearest to `wrong`, or the first few when none is near."""
    by_fold = {name.casefold(): name for name in known}
    near = get_close_matches(wrong.casefold(), by_fold, n=_SUGGESTIONS, cutoff=0.6)
    if near:
        return f"Did you mean {', '.join(repr(by_fold[name]) for name in near)}?"
    if not known:
        return ""
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"Known: {', '.join(known[:_LISTED])}{more}."
