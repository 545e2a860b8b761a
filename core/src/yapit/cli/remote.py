"""Questions to a server that runs."""

from typing import Any

from yapit.errors import RemoteError
from yapit.settings import ServerSettings

_ANSWER_S = 10.0
_WORK_S = 900.0  # a model may be fetched and loaded before there is an answer
NOBODY = "no_server"


def ask(server: ServerSettings, path: str, url: str | None = None, timeout_s: float = _ANSWER_S) -> Any:
    """Return the JSON that the server answers to a GET, with a key of the settings.

    Raises:
        RemoteError: it refuses; or, with the code `NOBODY`, cannot be reached.
    """
    return _asked(server, "GET", path, url, timeout=timeout_s)


def post(server: ServerSettings, path: str, body: dict[str, Any], url: str | None = None) -> Any:
    """Return the JSON that the server answers to a POST; raises as `ask`."""
    return _asked(server, "POST", path, url, timeout=_WORK_S, json=body)


def loaded_by(server: ServerSettings, timeout_s: float = _ANSWER_S) -> list[dict[str, Any]] | None:
    """Return what the server of the settings has loaded, as `/api/ps` says it; None if none answers there.

    Raises:
        RemoteError: it refuses.
    """
    try:
        found: list[dict[str, Any]] = ask(server, "/api/ps", timeout_s=timeout_s)["models"]
    except RemoteError as error:
        if error.code == NOBODY:
            return None
        raise
    return found


def base_of(server: ServerSettings) -> str:
    """Return the URL at which this machine reaches the server of the settings."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.host, server.host)  # noqa: S104 - compared, not bound
    return f"http://{host}:{server.port}"


def _asked(server: ServerSettings, method: str, path: str, url: str | None, **how: Any) -> Any:
    # Imported here: 130 ms that the other commands need not pay.
    import httpx

    base = (url or base_of(server)).rstrip("/")
    # One that may do more may also do this.
    keys = (*server.admin_keys, *server.api_keys)
    headers = {"authorization": f"Bearer {keys[0]}"} if keys else {}
    try:
        # No proxy of the environment stands between this machine and itself.
        answer = httpx.request(method, base + path, headers=headers, trust_env=url is not None, **how)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RemoteError(f"no server answers at {base} ({error})", code=NOBODY) from error
    if answer.is_error:
        raise RemoteError(f"{base} answered with status {answer.status_code}: {_message(answer)}")
    try:
        return answer.json()
    except ValueError as error:
        raise RemoteError(f"what answers at {base} is no yapit") from error


def _message(answer: Any) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(answer.reason_phrase)
