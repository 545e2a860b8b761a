"""Where the database is."""

from pathlib import Path

from msgspec import Struct

from yapit.errors import SettingsError
from yapit.settings import Settings
from yapit.urls import masked_url

FILE = "yapit.db"


class Place(Struct, frozen=True, kw_only=True):
    """Where the database is.

    Args:
        file: of SQLite; None with PostgreSQL.
        url: of PostgreSQL; None with SQLite.
        shown: either, for people: without a password.
    """

    file: Path | None = None
    url: str | None = None
    shown: str

    @classmethod
    def of(cls, settings: Settings) -> "Place":
        """Return the place that the settings name.

        Raises:
            SettingsError: the URL is of no database that can be used here.
        """
        if settings.database is None:
            file = Path(settings.data_dir).absolute() / FILE
            return cls(file=file, shown=str(file))
        scheme, separator, rest = settings.database.partition("://")
        kind = scheme.partition("+")[0].casefold()
        if not separator or kind not in ("postgresql", "postgres", "sqlite"):
            found = f"'{scheme}'" if separator else "no URL"
            raise SettingsError(
                "database: expected postgresql://user:password@host/name, sqlite:///file, or nothing for a file in "
                f"data_dir; this is {found}"
            )
        if kind != "sqlite":
            # Whichever driver the URL names for other programs: this one has its own.
            return cls(url=f"postgresql+psycopg://{rest}", shown=masked_url(f"postgresql://{rest}"))
        name = rest.partition("?")[0].removeprefix("/")
        if not rest.startswith("/") or name in ("", ":memory:"):
            raise SettingsError("database: the URL of SQLite names no file; expected sqlite:///file")
        return cls(file=Path(name).absolute(), shown=name)
