"""What is said to the database: each function within a transaction that its caller has begun."""

import time
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from yapit.catalog import Entry
from yapit.errors import ConflictError, NotFoundError
from yapit.store.downloads import Download
from yapit.store.registrations import Registration
from yapit.store.tables import DOWNLOADS, GENERATIONS, MODELS

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def registrations(connection: Connection) -> list[Registration]:
    """Return the registered models, oldest first."""
    found = connection.execute(select(MODELS).order_by(MODELS.c.created_at, MODELS.c.id)).mappings()
    return [Registration(**{**row, "entry": msgspec.json.decode(row["entry"])}) for row in found]


def register(connection: Connection, entry: Entry, *, replace: bool) -> Registration:
    """Keep a registered model.

    Raises:
        ConflictError: one of this id is kept, and is not to be replaced.
    """
    _changed(connection)
    name, now = entry["id"], time.time()
    before = connection.execute(select(MODELS.c.created_at).where(MODELS.c.id == name)).scalar()
    if before is not None and not replace:
        raise ConflictError(f"A model '{name}' is registered already.", param="name", code="model_exists")
    made = Registration(id=name, entry=entry, created_at=now if before is None else before, updated_at=now)
    values = {**msgspec.structs.asdict(made), "entry": msgspec.json.encode(entry).decode()}
    if before is None:
        connection.execute(MODELS.insert(), values)
    else:
        connection.execute(update(MODELS).where(MODELS.c.id == name), values)
    return made


def unregister(connection: Connection, name: str) -> None:
    """Keep a registered model no longer; raises `NotFoundError` if none has this id."""
    _changed(connection)
    if not connection.execute(delete(MODELS).where(MODELS.c.id == name)).rowcount:
        raise NotFoundError(f"No model '{name}' is registered.", param="model", code="model_not_found")


def generation(connection: Connection) -> int:
    """Return how often the registered models were changed."""
    found: int | None = connection.execute(select(GENERATIONS.c.value).where(GENERATIONS.c.name == "models")).scalar()
    return found or 0


def put(connection: Connection, download: Download) -> None:
    """Keep what is known of a download, instead of what was known before."""
    values = {name: _writable(value) for name, value in msgspec.structs.asdict(download).items()}
    statement = _INSERT[connection.dialect.name](DOWNLOADS).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=[DOWNLOADS.c.id], set_=values))


def downloads(connection: Connection, node: str | None) -> list[Download]:
    """Return the downloads, of one machine or of all, oldest first."""
    statement = select(DOWNLOADS).order_by(DOWNLOADS.c.created_at, DOWNLOADS.c.id)
    if node is not None:
        statement = statement.where(DOWNLOADS.c.node == node)
    return [Download(**row) for row in connection.execute(statement).mappings()]


def forget(connection: Connection, download_id: str) -> None:
    """Keep a download no longer."""
    connection.execute(delete(DOWNLOADS).where(DOWNLOADS.c.id == download_id))


def _changed(connection: Connection) -> None:
    """Count a change of the models; who comes later waits here until this one is kept."""
    connection.execute(update(GENERATIONS).where(GENERATIONS.c.name == "models").values(value=GENERATIONS.c.value + 1))


def _writable(value: object) -> object:
    """Return text as every database takes it: names of files may have bytes that are no UTF-8."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "").encode(errors="replace").decode()
