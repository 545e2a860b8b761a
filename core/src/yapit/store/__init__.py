"""What outlives the process: the models registered at run time, and the downloads. Nothing here waits on a loop."""

import threading
from typing import TYPE_CHECKING

from yapit.catalog import Entry
from yapit.errors import CapacityError, NotFoundError, StartupError
from yapit.settings import Settings
from yapit.store.downloads import Download, DownloadState
from yapit.store.places import Place
from yapit.store.registrations import Registration

if TYPE_CHECKING:
    from yapit.store.database import Database

__all__ = ["Download", "DownloadState", "Registration", "Store"]


class Store:
    """The database. Its methods block; any thread may call them.

    A file of SQLite is made when there is something to keep: nothing is written by a server that has nothing.

    Args:
        place: where the database is.

    Raises:
        SettingsError: its driver is missing, or its URL is wrong.
        StartupError: it cannot be opened, or a newer yapit made its tables.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._database: Database | None = None
        self._opening = threading.Lock()
        if not self._is_empty():
            self._database = self._open()

    @classmethod
    def of(cls, settings: Settings) -> "Store":
        """Open the database that the settings name, and bring its tables to the newest version; raises as `Store`."""
        return cls(Place.of(settings))

    @property
    def shown(self) -> str:
        """Where the database is, for people: without a password."""
        return self._place.shown

    def close(self) -> None:
        """Close the connections; what is asked later opens new ones."""
        if self._database is not None:
            self._database.close()

    def models(self) -> list[Registration]:
        """Return the registered models, oldest first."""
        if self._is_empty():
            return []
        from yapit.store import rows

        with self._opened().reading() as connection:
            return rows.registrations(connection)

    def register(self, entry: Entry, *, replace: bool = False) -> Registration:
        """Keep a registered model, and return it as it is kept.

        Args:
            entry: complete, and sound: nothing of it is checked here.
            replace: it may take the place of one with its id.

        Raises:
            ConflictError: one of this id is registered, and is not to be replaced.
        """
        database = self._opened()
        from yapit.store import rows

        with database.writing() as connection:
            return rows.register(connection, entry, replace=replace)

    def unregister(self, model_id: str) -> None:
        """Keep a registered model no longer.

        Raises:
            NotFoundError: none of this id is registered.
        """
        if self._is_empty():
            raise NotFoundError(f"No model '{model_id}' is registered.", param="model", code="model_not_found")
        from yapit.store import rows

        with self._opened().writing() as connection:
            rows.unregister(connection, model_id)

    def generation(self) -> int:
        """Return a number that grows whenever anybody changes the registered models; it takes one row to know."""
        if self._is_empty():
            return 0
        from yapit.store import rows

        with self._opened().reading() as connection:
            return rows.generation(connection)

    def put(self, download: Download) -> None:
        """Keep what is known of a download, instead of what was known before."""
        database = self._opened()
        from yapit.store import rows

        with database.writing() as connection:
            rows.put(connection, download)

    def downloads(self, node: str | None = None) -> list[Download]:
        """Return the downloads, of one machine or of all, oldest first."""
        if self._is_empty():
            return []
        from yapit.store import rows

        with self._opened().reading() as connection:
            return rows.downloads(connection, node)

    def forget(self, download_id: str) -> None:
        """Keep a download no longer."""
        if self._is_empty():
            return
        from yapit.store import rows

        with self._opened().writing() as connection:
            rows.forget(connection, download_id)

    def _is_empty(self) -> bool:
        """Tell whether there is no database yet, so that it need not be opened to know what it holds."""
        return self._database is None and self._place.file is not None and not self._place.file.exists()

    def _opened(self) -> "Database":
        """Return the database; opened now, if it was not there before."""
        with self._opening:
            if self._database is None:
                try:
                    self._database = self._open()
                except StartupError as error:  # which never reaches a client
                    message = "The database cannot be opened now."
                    raise CapacityError(message, code="database_unavailable", retry_after_s=5) from error
            return self._database

    def _open(self) -> "Database":
        # Imported here: half a second that whatever keeps nothing need not pay.
        from yapit.store.database import Database

        return Database(self._place)
