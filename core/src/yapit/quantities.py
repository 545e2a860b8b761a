"""Durations and sizes as people write them: `5m`, `1h30m`, `-1`; `8GB`, `512MiB`, `80%`."""

import math
import re
from decimal import Decimal

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_PARTS = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B?", re.IGNORECASE)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_POWER = {"K": 1, "M": 2, "G": 3, "T": 4}


def seconds(duration: str | float) -> float:
    """Return the seconds of a duration as Ollama reads them: a number, or `10m`, `1h30m`; negative is for ever.

    Raises:
        ValueError: it is not a duration.
    """
    value = _read(duration.strip()) if isinstance(duration, str) else float(duration)
    if math.isnan(value):
        raise ValueError("a duration must be a number")
    return math.inf if value < 0 else value


def size(text: str | int, whole: int | None = None) -> int | None:
    """Return the bytes of a size: a number, `8GB`, `512MiB`, or `80%` of `whole`, which is None when not known.

    Raises:
        ValueError: it is not a size.
    """
    written_out = str(text).strip()
    if (match := _PERCENT.fullmatch(written_out)) is not None:
        return None if whole is None else round(whole * Decimal(match[1]) / 100)
    match = _SIZE.fullmatch(written_out)
    if match is None:
        raise ValueError(f"'{text}' is no size: expected bytes, or text such as '8GB', '512MiB' or '80%'")
    number, prefix, binary = match.groups()
    return round(Decimal(number) * (1024 if binary else 1000) ** _POWER[prefix.upper()] if prefix else Decimal(number))


def written(count: int) -> str:
    """Return the size for people: `4.0 GB`, `12 MB`."""
    for unit, power in (("GB", 3), ("MB", 2)):
        if count >= 1000**power:
            scaled = count / 1000**power
            return f"{scaled:.1f} {unit}" if scaled < 10 else f"{scaled:.0f} {unit}"  # noqa: PLR2004 - two digits
    return f"{count} bytes"


def _read(text: str) -> float:
    unsigned = text.removeprefix("-")
    if _PARTS.fullmatch(unsigned) is not None:
        value = sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(unsigned))
        return value if unsigned == text else -value
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"'{text}' is no duration: expected seconds, or text such as '10m'") from None
