"""A model that was registered at run time, as the store keeps it."""

from msgspec import Struct

from yapit.catalog import Entry


class Registration(Struct, frozen=True, kw_only=True):
    """A model that was registered at run time.

    Args:
        id: of the model.
        entry: what an entry of a models file says, complete.
        created_at: when it was registered, in seconds since 1970.
        updated_at: when it was registered last, likewise.
    """

    id: str
    entry: Entry
    created_at: float
    updated_at: float
