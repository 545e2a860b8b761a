"""Work that was done before is not done again, and equal requests that run at the same time are one."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Generic, TypeVar

from msgspec import Struct

from yapit.engine.cache.flights import Flight, weight
from yapit.errors import SettingsError
from yapit.quantities import size
from yapit.settings import CacheSettings
from yapit.tickets import CacheOutcome, Ticket, current

_LARGEST = 10  # a result may take one part in so many of the limit
_WORTH: dict[CacheOutcome | None, int] = {None: 0, "hit": 1, "coalesced": 2, "miss": 3}
Item = TypeVar("Item", bound=Struct)
Note = Callable[[CacheOutcome], None]


class Layer(Generic[Item]):
    """A kind of results.

    Args:
        kind: what a result consists of.
        count: told what the cache had, once for each call.
        outer: whether what makes a result asks the cache itself, and so says what is missing.
    """

    def __init__(self, kind: type[Item], count: Callable[[str], None], *, outer: bool = False) -> None:
        self.kind = kind
        self.count = count
        self.outer = outer


class Cache:
    """Wraps what makes streams of items.

    Args:
        settings: what is wanted of it.
        folder: where results are kept.

    Raises:
        SettingsError: results shall be kept, and the package for that is not installed.
    """

    def __init__(self, settings: CacheSettings, folder: Path) -> None:
        limit_bytes = size(settings.max_size) or 0
        self._largest_bytes = limit_bytes // _LARGEST
        self._results = _results(folder, limit_bytes, self._largest_bytes) if settings.enabled else None
        self._single_flight = settings.single_flight
        self._open: dict[tuple[bytes, bool, bool], Flight[Any]] = {}  # that may be joined
        self._flights = set[Flight[Any]]()

    @property
    def on(self) -> bool:
        """Whether it does anything."""
        return self._single_flight or self._results is not None

    async def has(self, key: bytes | None) -> bool:
        """Tell whether a result is kept, for a request that wants a kept one."""
        return key is not None and self._results is not None and current().store and await self._results.has(key)

    def stream(
        self, key: bytes | None, layer: Layer[Item], make: Callable[[], AsyncGenerator[Item, None]]
    ) -> AsyncGenerator[Item, None]:
        """Return the items kept for `key`, or those of an equal run, or what `make` makes, which is then kept.

        The request's ticket is told which, before the first item.
        """
        kept = self._results is not None and current().store
        if key is None or not (kept or self._single_flight):
            return make()
        if self._single_flight:
            return self._shared(key, layer, make, kept=kept)
        ticket = current()

        def note(outcome: CacheOutcome) -> None:
            layer.count(outcome)
            _note(ticket, outcome)

        return self._made(key, layer, make, note, kept=kept)

    async def close(self) -> None:
        """Stop what runs, and return when everything is written."""
        for flight in list(self._flights):
            await flight.stop()
        if self._results is not None:
            await self._results.close()

    async def _shared(
        self, key: bytes, layer: Layer[Item], make: Callable[[], AsyncGenerator[Item, None]], *, kept: bool
    ) -> AsyncGenerator[Item, None]:
        """Yield the items of the running flight, or of a new one."""
        ticket = current()
        # Who holds a model must not wait for one who waits until that model can be had.
        name = (key, kept, bool(ticket.held))
        flight: Flight[Item] | None = self._open.get(name)
        leads = flight is None
        if flight is None:
            flight = self._start(name, lambda note: self._made(key, layer, make, note, kept=kept))
        noted = False
        async with aclosing(flight.read()) as items:
            async for item in items:
                if not noted:
                    self._note_of(flight, layer, ticket, leads=leads)
                    noted = True
                yield item
        if not noted:
            self._note_of(flight, layer, ticket, leads=leads)
        if leads:
            _note(ticket, flight.ticket.cache)

    def _start(
        self, name: tuple[bytes, bool, bool], work: Callable[[Note], AsyncGenerator[Item, None]]
    ) -> Flight[Item]:
        def full() -> None:
            del self._open[name]

        flight = self._open[name] = Flight(work, self._largest_bytes, full)
        self._flights.add(flight)
        flight.task.add_done_callback(lambda _: self._flights.discard(flight))
        return flight

    def _note_of(self, flight: Flight[Item], layer: Layer[Item], ticket: Ticket, *, leads: bool) -> None:
        ticket.admitted |= flight.ticket.admitted
        found = flight.outcome or flight.ticket.cache
        joined: CacheOutcome = "hit" if found == "hit" else "coalesced"
        counted = flight.outcome if leads else joined
        if counted is not None:
            layer.count(counted)
        _note(ticket, found if leads else joined)

    async def _made(
        self,
        key: bytes,
        layer: Layer[Item],
        make: Callable[[], AsyncGenerator[Item, None]],
        note: Note,
        *,
        kept: bool,
    ) -> AsyncGenerator[Item, None]:
        """Yield what is kept, or what is made; that is kept once it has come to its end."""
        results = self._results if kept else None
        found = await results.get(key, layer.kind) if results is not None else None
        if found is not None:
            note("hit")
            for item in found:
                yield item
            return
        if not layer.outer:
            note("miss")
        made, made_bytes = list[Item](), 0
        async with aclosing(make()) as items:
            async for item in items:
                if results is not None:
                    made_bytes += weight(item)
                    if made_bytes <= self._largest_bytes:
                        made.append(item)
                    else:
                        results = None
                        made.clear()
                yield item
        if results is not None:
            results.put(key, made, made_bytes)


def _note(ticket: Ticket, outcome: CacheOutcome | None) -> None:
    """Tell the ticket; of several calls, the one that took most counts."""
    if _WORTH[outcome] > _WORTH[ticket.cache]:
        ticket.cache = outcome


def _results(folder: Path, limit_bytes: int, largest_bytes: int) -> Any:
    try:
        from yapit.engine.cache.folder import Folder
        from yapit.engine.cache.results import Results
    except ImportError as error:
        if error.name != "diskcache":
            raise
        raise SettingsError("cache.enabled needs the package diskcache: pip install yapit[cache]") from error
    return Results(Folder(folder / "results", limit_bytes), largest_bytes)
