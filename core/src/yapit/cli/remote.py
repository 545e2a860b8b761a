"""Questions to a server that runs."""

from typing import Any

from yapit.errors import RemoteError
from yapit.settings import ServerSettings

_TIMEOUT_S = 10.0


def ask(server: ServerSettings, path: str, url: str | None = None) -> Any:
    """Return the JSON that the server answers to a GET, with the first of the settings' keys.

    Raises:
        RemoteError: it cannot be reached, or refuses.
    """
    # Imported here: 130 ms that the other commands need not pay.
    import httpx

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.host, server.host)  # noqa: S104 - compared, not bound
    base = (url or f"http://{host}:{server.port}").rstrip("/")
    headers = {"authorization": f"Bearer {server.api_keys[0]}"} if server.api_keys else {}
    try:
        # No proxy of the environment stands between this machine and itself.
        answer = httpx.get(base + path, headers=headers, timeout=_TIMEOUT_S, trust_env=url is not None)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RemoteError(f"no server answers at {base} ({error})") from error
    if answer.is_error:
        raise RemoteError(f"{base} answered with status {answer.status_code}: {_message(answer)}")
    return answer.json()


def _message(answer: Any) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(answer.reason_phrase)
