import re
from inspect import getmembers, isclass

import pytest

from yapit import errors
from yapit.errors import BackendError, LoadError, RateLimitError, YapitError, did_you_mean

CLASSES = {
    name: kind for name, kind in getmembers(errors, isclass) if issubclass(kind, YapitError) and kind is not YapitError
}
# name: status, OpenAI's type, code
OVER_HTTP = {
    "RequestError": (400, "invalid_request_error", None),
    "InvalidInputError": (400, "invalid_request_error", "invalid_value"),
    "NotFoundError": (404, "invalid_request_error", "not_found"),
    "ModelNotFoundError": (404, "invalid_request_error", "model_not_found"),
    "UnsupportedTaskError": (400, "invalid_request_error", "unsupported_task"),
    "ConflictError": (409, "invalid_request_error", "conflict"),
    "StoppedError": (499, "invalid_request_error", "request_cancelled"),
    "AccessError": (500, "invalid_request_error", None),
    "UnauthorizedError": (401, "invalid_request_error", "invalid_api_key"),
    "ForbiddenError": (403, "invalid_request_error", "forbidden"),
    "CapacityError": (503, "server_error", "overloaded"),
    "RateLimitError": (429, "requests", "rate_limit_exceeded"),
    "StorageFullError": (507, "server_error", "storage_full"),
    "BackendError": (500, "server_error", "backend_error"),
    "LoadError": (503, "server_error", "load_failed"),
    "OutOfMemoryError": (503, "server_error", "out_of_memory"),
    "WorkerDiedError": (502, "server_error", "worker_died"),
    "RemoteError": (502, "server_error", "remote_error"),
    "DeadlineError": (504, "server_error", "deadline_exceeded"),
    "StartupError": (500, "server_error", None),
    "PluginError": (500, "server_error", None),
    "SettingsError": (500, "server_error", None),
}


@pytest.mark.parametrize("name", sorted(CLASSES.keys() | OVER_HTTP.keys()))
def test_what_a_client_gets(name: str) -> None:
    error = CLASSES[name]("no")
    assert (error.status, error.type, error.code) == OVER_HTTP[name]


def drawn() -> dict[str, tuple[str, int | None]]:
    """Return parent and status of each class in the tree of the module's docstring."""
    found: dict[str, tuple[str, int | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+Error)(?: +(?P<status>\d{3}))?", line)
        if match:
            depth = len(match["branch"]) // 3
            path[depth:] = [match["name"]]
            if depth:
                found[match["name"]] = (path[depth - 1], int(match["status"]) if match["status"] else None)
    return found


def test_the_drawn_tree_is_the_real_one() -> None:
    assert {name: parent for name, (parent, _) in drawn().items()} == {
        name: kind.__bases__[0].__name__ for name, kind in CLASSES.items()
    }


def test_the_drawn_statuses_are_the_real_ones() -> None:
    statuses = {name: status for name, (_, status) in drawn().items() if status is not None}
    assert statuses == {name: CLASSES[name].status for name in statuses}
    assert CLASSES.keys() - statuses.keys() == {"AccessError", "StartupError", "PluginError", "SettingsError"}


def test_an_error_carries_what_the_envelope_needs() -> None:
    error = RateLimitError("Too many.", param="input", code="queue_full", retry_after_s=2.5)
    assert (str(error), error.message, error.param, error.code, error.retry_after_s) == (
        "Too many.",
        "Too many.",
        "input",
        "queue_full",
        2.5,
    )
    assert RateLimitError("again").code == "rate_limit_exceeded", "one error's code must not stay with its class"


def test_a_failed_load_is_the_backend_s_failure() -> None:
    with pytest.raises(BackendError, match="gone"):
        raise LoadError("gone")


MANY = [f"model-{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("wrong", "known", "sentence"),
    [
        ("kokoro-83m", ["whisper", "kokoro-82m"], "Did you mean 'kokoro-82m'?"),
        ("KOKORO", ["kokoro"], "Did you mean 'kokoro'?"),
        ("kokoro", ["Kokoro"], "Did you mean 'Kokoro'?"),
        ("zzz", ["a", "b"], "Known: a, b."),
        ("zzz", [], ""),
        ("zzz", MANY, f"Known: {', '.join(MANY[:12])} and 8 more."),
    ],
)
def test_did_you_mean(wrong: str, known: list[str], sentence: str) -> None:
    assert did_you_mean(wrong, known) == sentence


def test_did_you_mean_names_three_at_most() -> None:
    assert did_you_mean("model-1", MANY).count("'") == 6
