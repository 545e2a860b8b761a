"""The version of the tables, and the way to the newest."""

from typing import TYPE_CHECKING

import sqlalchemy

from yapit.errors import StartupError

if TYPE_CHECKING:
    from sqlalchemy import Connection

NEWEST = "0001"  # known here, so that alembic is imported only where something is to be done
VERSION_TABLE = "yapit_version"
_FOLDER = "yapit.store:migrations"


def version(connection: "Connection") -> str | None:
    """Return the version of the tables; None if there are none."""
    if not sqlalchemy.inspect(connection).has_table(VERSION_TABLE):
        return None
    statement = sqlalchemy.text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
    found: str | None = connection.execute(statement).scalar()
    return found


def migrate(connection: "Connection") -> None:
    """Bring the tables to the newest version, within the connection's transaction.

    Raises:
        StartupError: a newer yapit made them.
    """
    found = version(connection)
    if found == NEWEST:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", _FOLDER)
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StartupError(
            f"the database has tables of version {found}, made by a newer yapit, and this one knows {NEWEST}: "
            "install the newer one, or name another database"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
