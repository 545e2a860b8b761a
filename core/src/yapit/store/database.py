"""A database that is open: SQLite or PostgreSQL, with its transactions and its errors."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, NullPool
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoneFree

from yapit.errors import CapacityError, SettingsError, StartupError, StorageFullError, YapitError
from yapit.store import schema
from yapit.store.places import Place

_WAIT_S = 10  # for another process's transaction
_MIGRATION_S = 60  # for another process's migration
_MIGRATING = 0x7961706974  # the advisory lock's number: "yapit"
_DISK_FULL = "53100"  # PostgreSQL's code
_DEFAULTS = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,  # milliseconds until a host that is silent counts as gone
    "application_name": "yapit",
    "prepare_threshold": None,  # statements that are prepared get lost behind pgbouncer
}


class DatabaseFailure(Exception):  # noqa: N818 - said of the cause of an error, never raised by itself
    """What a database said, with no secret in it."""


class Database:
    """A database whose tables are the newest.

    Args:
        place: where it is.

    Raises:
        SettingsError: its driver is missing, or its URL is wrong.
        StartupError: it cannot be opened, or a newer yapit made its tables.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        try:
            self._engine = _sqlite(place.file) if place.file is not None else _postgresql(place.url or "")
            self._migrate()
        except (SQLAlchemyError, sqlite3.Error, OSError, Timeout) as error:
            self.close()
            # Not from the error, whose text may hold what the URL does.
            raise StartupError(f"the database '{place.shown}' cannot be opened: {self._said(error)}") from None
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection whose statements see one state.

        Raises:
            CapacityError: the database does not answer.
        """
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection whose changes are all kept at the end, or none of them if an error leaves the block.

        Raises:
            CapacityError: the database does not answer.
            StorageFullError: its disk is full.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def close(self) -> None:
        """Close the connections."""
        engine: Engine | None = getattr(self, "_engine", None)
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection.execution_options(yapit_begin=begin)
                with connection.begin():
                    yield connection
        except (DBAPIError, NoneFree, sqlite3.Error) as error:
            raise self._failed(error) from DatabaseFailure(self._said(error))

    def _migrate(self) -> None:
        """Bring the tables to the newest version; of several processes one does it, and the others wait."""
        with self._engine.connect() as connection:
            if schema.version(connection) == schema.NEWEST:
                return
        if self._place.file is None:
            with self._engine.begin() as connection:
                connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({_MIGRATING})"))
                schema.migrate(connection)
            return
        with FileLock(f"{self._place.file}.lock", timeout=_MIGRATION_S):
            with self._engine.connect() as connection:
                connection.connection.cursor().execute("PRAGMA journal_mode = WAL")  # outside of a transaction
            with self._engine.connect() as connection:
                connection.execution_options(yapit_begin="BEGIN IMMEDIATE")
                with connection.begin():
                    schema.migrate(connection)

    def _failed(self, error: Exception) -> YapitError:
        original = getattr(error, "orig", error)
        code = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorcode", None)
        if code in (_DISK_FULL, sqlite3.SQLITE_FULL):
            return StorageFullError("The disk of the database has no room.")
        return CapacityError("The database does not answer now.", code="database_unavailable", retry_after_s=5)

    def _said(self, error: Exception) -> str:
        """Return what the database said, in one line, without the password."""
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        for secret in _secrets(self._place.url or ""):
            said = said.replace(secret, "…")
        return said


def _sqlite(file: Path) -> Engine:
    """Return the engine for a file, which is made if it is missing: for its owner alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    # Each transaction has a connection of its own: it costs 0.2 ms, and none is left in a process that forks or ends.
    url = sqlalchemy.URL.create("sqlite", database=str(file))
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": _WAIT_S})
    sqlalchemy.event.listen(engine, "connect", _prepare)
    sqlalchemy.event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
    """Take the transactions from the driver, which would begin them too late, and end them before a table is made."""
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    # One that will write says so at once: if it first read, it could not wait for another one that writes.
    connection.exec_driver_sql(connection.get_execution_options().get("yapit_begin", "BEGIN"))


def _postgresql(url: str) -> Engine:
    try:
        import psycopg  # noqa: F401 - here, so that what is missing is known by its name
    except ImportError as error:
        raise SettingsError("database: PostgreSQL needs its driver; try: pip install 'yapit[postgresql]'") from error
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("database: this is no URL; expected postgresql://user:password@host/name") from None
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in parsed.query}
    return sqlalchemy.create_engine(
        parsed, pool_size=2, pool_timeout=_WAIT_S, pool_pre_ping=True, hide_parameters=True, connect_args=defaults
    )


def _secrets(url: str) -> list[str]:
    """Return what of the URL must not be seen, as it is written and as it is meant; the longest first."""
    from urllib.parse import parse_qsl, unquote

    _, _, rest = url.partition("://")
    found: set[str] = set()
    access, at, _ = rest.rpartition("@")
    if at:
        password = access.partition(":")[2]
        found |= {password, unquote(password), *password.split("@")}
    query = rest.partition("?")[2]
    found |= {value for name, value in parse_qsl(query) if "pass" in name or "key" in name}
    return sorted(found - {""}, key=len, reverse=True)
