"""Times as they are written in JSON."""

import datetime as dt


def moment(stamp: float | None) -> dt.datetime | None:
    """Return a Unix time as it is written in JSON."""
    return None if stamp is None else dt.datetime.fromtimestamp(stamp, dt.UTC)
