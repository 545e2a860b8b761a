"""What yapit talks to: the hub, the database, and whoever has its port."""

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from yapit.cli.doctor.findings import Finding
from yapit.cli.remote import ask, base_of
from yapit.errors import RemoteError, SettingsError
from yapit.settings import ServerSettings, Settings
from yapit.store.places import Place
from yapit.urls import masked_url

_ANSWER_S = 5.0
_BROKEN = 500


def hub(settings: Settings) -> Iterator[Finding]:
    """Say whether the hub of models can be reached, and whether there is a token for it."""
    import httpx
    from huggingface_hub import constants, get_token, is_offline_mode

    shown = masked_url(constants.ENDPOINT)
    tokens = "a token is set" if get_token() else "no token is set"
    tokens += f", and {len(settings.provisioning.tokens)} for single sources" if settings.provisioning.tokens else ""
    if is_offline_mode():
        yield Finding("hub", "ok", "offline mode is on (HF_HUB_OFFLINE): nothing is fetched from it")
        return
    try:
        status = httpx.get(f"{constants.ENDPOINT}/api/models?limit=1", timeout=_ANSWER_S).status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        mend = "look at the network, the proxy and HF_ENDPOINT, or set HF_HUB_OFFLINE=1; what is here works without it"
        yield Finding("hub", "warning", f"{shown} cannot be reached ({type(error).__name__}); {tokens}", mend)
        return
    if status >= _BROKEN:
        yield Finding("hub", "warning", f"{shown} answers with status {status}; {tokens}", "try again later")
        return
    yield Finding("hub", "ok", f"{shown} answers; {tokens}")


def database(settings: Settings) -> Iterator[Finding]:
    """Say whether the database opens, and whether its tables are the newest; nothing of it is changed."""
    from yapit.store.schema import NEWEST

    try:
        place = Place.of(settings)
        if place.file is not None and not place.file.exists():
            yield Finding("database", "ok", f"'{place.shown}' will be made when there is something to keep")
            return
        version = _of_sqlite(place) if place.file is not None else _of_postgresql(place)
    except SettingsError as error:
        yield Finding("database", "problem", error.message)
        return
    except (sqlite3.Error, OSError, ImportError) as error:
        yield Finding("database", "problem", f"it cannot be opened: {error}", "look at the setting database")
        return
    if version == NEWEST:
        yield Finding("database", "ok", f"'{place.shown}' has the newest tables ({version})")
    elif version is not None and version > NEWEST:
        mend = "install the newer yapit, or name another database"
        yield Finding("database", "problem", f"'{place.shown}' has tables of a newer yapit ({version})", mend)
    else:
        message = f"'{place.shown}' has {f'tables of version {version}' if version else 'no tables'}"
        yield Finding("database", "warning", message, f"the next start brings them to {NEWEST}")


def port(settings: Settings) -> Iterator[Finding]:
    """Say whether the address of the settings is free, or who has it."""
    server = settings.server
    where = f"{server.host}:{server.port}"
    if server.port == 0 or _is_free(server):
        yield Finding("port", "ok", f"{where} is free" if server.port else "a free one is taken")
        return
    if (answering := _yapit_at(server)) is not None:
        yield Finding("port", "ok", f"a {answering} answers at {base_of(server)}")
        return
    yield Finding("port", "problem", f"{where} cannot be listened on, and no yapit answers there", "set YAPIT_PORT")


def _yapit_at(server: ServerSettings) -> str | None:
    """Return what answers if it is a yapit."""
    try:
        health = ask(server, "/health", timeout_s=_ANSWER_S)
        return f"yapit {health['version']} that is {health['status']}" if "failed_plugins" in health else None
    except (RemoteError, TypeError, KeyError):
        return None


def _is_free(server: ServerSettings) -> bool:
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((server.host, server.port))
        except OSError:
            return False
    return True


def _of_sqlite(place: Place) -> str | None:
    from yapit.store.schema import VERSION_TABLE

    assert place.file is not None  # noqa: S101 - tells mypy
    with closing(sqlite3.connect(f"{place.file.as_uri()}?mode=ro", uri=True, timeout=_ANSWER_S)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if VERSION_TABLE not in tables:
            return None
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608 - a constant
    return str(row[0]) if row else None


def _of_postgresql(place: Place) -> str | None:
    try:
        import psycopg
    except ImportError as error:
        raise SettingsError("PostgreSQL needs its driver; try: pip install 'yapit[postgresql]'") from error
    from yapit.store.schema import VERSION_TABLE

    url = (place.url or "").replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        with psycopg.connect(url, connect_timeout=round(_ANSWER_S)) as connection:
            if connection.execute("SELECT to_regclass(%s)", [VERSION_TABLE]).fetchone() == (None,):
                return None
            row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608 - a constant
    except psycopg.Error as error:
        # What it says may hold a part of the URL.
        raise OSError(f"'{place.shown}' does not answer, or refuses ({type(error).__name__})") from None
    return str(row[0]) if row else None
