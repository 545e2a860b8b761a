"""Who is being served: every request gets a ticket, by which it can be stopped wherever it waits."""

import hmac
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from litestar.types import HTTPScope

from yapit.errors import InvalidInputError, NotFoundError, StoppedError, shutting_down
from yapit.quantities import seconds
from yapit.settings import ServerSettings
from yapit.tickets import Ticket, current


class Desk:
    """Issues the tickets and knows those that are in use.

    Args:
        settings: the time a request may take, and whether clients have keys.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._tickets: defaultdict[str, set[Ticket]] = defaultdict(set)

    @property
    def serving(self) -> int:
        """How many requests are being served."""
        return sum(map(len, self._tickets.values()))

    @contextmanager
    def serve(self, scope: HTTPScope, request_id: str) -> Iterator[Ticket]:
        """Bind a ticket to the task that answers this request.

        Raises:
            InvalidInputError: the request asks for a time that is no time.
        """
        headers = dict(scope["headers"])
        timeout_s, firm = self._timeout_s(headers)
        store = b"no-store" not in headers.get(b"cache-control", b"").lower()
        with self._admit(Ticket(request_id, client_of(scope, headers), store=store), timeout_s, firm=firm) as ticket:
            yield ticket

    @contextmanager
    def serve_client(self, client: str, request_id: str) -> Iterator[Ticket]:
        """Bind a ticket to the task that answers a request which did not come over HTTP; `client` names who asks."""
        timeout_s, firm = self._timeout_s({})
        with self._admit(Ticket(request_id, client), timeout_s, firm=firm) as ticket:
            yield ticket

    @contextmanager
    def _admit(self, ticket: Ticket, timeout_s: float | None, *, firm: bool) -> Iterator[Ticket]:
        if timeout_s is not None:
            ticket.within(timeout_s, firm=firm)
        self._tickets[ticket.id].add(ticket)
        try:
            with ticket.bound():
                yield ticket
        finally:
            self._tickets[ticket.id].discard(ticket)
            if not self._tickets[ticket.id]:
                del self._tickets[ticket.id]

    def stop(self, request_id: str) -> int:
        """Stop the requests of this id, other clients' ones excepted where clients have keys; return how many.

        Raises:
            NotFoundError: there is none.
        """
        asking = current()
        mine = [
            ticket
            for ticket in self._tickets.get(request_id, ())
            if ticket is not asking and (not self._settings.api_keys or ticket.client == asking.client)
        ]
        error = StoppedError("The request was cancelled.")
        stopped = sum(ticket.stop(error) for ticket in mine)
        if not stopped:
            raise NotFoundError(f"No request '{request_id}' is being served.", param="request_id")
        return stopped

    def stop_all(self) -> None:
        """Stop every request, because the server ends."""
        for ticket in [ticket for tickets in self._tickets.values() for ticket in tickets]:
            ticket.stop(shutting_down())

    def _timeout_s(self, headers: dict[bytes, bytes]) -> tuple[float | None, bool]:
        """Return the time the request may take: what it asks for, at most what the settings say; and if that is firm.

        What the client has not asked for does not bind a route that knows better how long its work takes.
        """
        limit = self._settings.timeout_s or None
        text = headers.get(b"x-yapit-timeout")
        if text is None:
            return limit, False
        try:
            wanted = seconds(text.decode("latin-1"))
        except ValueError as error:
            raise InvalidInputError(f"Invalid header 'x-yapit-timeout': {error}.", param="x-yapit-timeout") from error
        if wanted <= 0:
            raise InvalidInputError("Invalid header 'x-yapit-timeout': no time is left.", param="x-yapit-timeout")
        return (wanted, True) if limit is None or wanted <= limit else (limit, False)


def key_of(headers: dict[bytes, bytes]) -> bytes:
    """Return the key that a request presents, empty if none."""
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    return given.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def client_of(scope: HTTPScope, headers: dict[bytes, bytes]) -> str:
    """Return a name for who asks: a hash of the key, or the address where there is none."""
    key = key_of(headers)
    if key:
        return hmac.new(b"client", key, "sha256").hexdigest()
    address = scope.get("client")
    return address[0] if address else ""
