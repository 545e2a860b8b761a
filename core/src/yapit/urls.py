"""URLs that people may see."""

import re

_HIDDEN = "…"
_SECRET = re.compile(r"([?&;][^=&;#]*(?:key|token|secret|pass)[^=&;#]*=)[^&;#\s]*", re.IGNORECASE)


def masked_url(url: str) -> str:
    """Return the URL with the password, and what else may be a secret, masked; all of it if it is no URL.

    It may hide more than the password: one with a character that belongs escaped must not be seen in part.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _HIDDEN
    access, at, place = _SECRET.sub(rf"\1{_HIDDEN}", rest).rpartition("@")
    user, colon, _ = access.partition(":")
    return f"{scheme}://{user}{f':{_HIDDEN}' if colon else ''}{at}{place}"
