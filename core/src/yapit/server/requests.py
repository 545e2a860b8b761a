"""Request bodies: JSON, or a 400 that says what is wrong with it."""

import json
import math
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import SerializationException

from yapit.errors import InvalidInputError
from yapit.quantities import seconds
from yapit.tickets import current


class JsonRequest(Request[Any, Any, Any]):
    """Litestar's request, whose broken JSON is an error of ours that names the field, if one is at fault."""

    async def json(self) -> Any:
        """Return the decoded body; of a form, what the route's `opt` of that name makes of it.

        Raises:
            InvalidInputError: the body is not JSON.
        """
        read_form = self.route_handler.opt.get("form")
        if read_form is not None and self.content_type[0] == "multipart/form-data":
            return await read_form(await self.form())
        try:
            return await super().json()
        except (SerializationException, UnicodeDecodeError, RecursionError) as error:
            raise _broken(await self.body(), error) from error


def keep_loaded(wanted: str | float | None) -> None:
    """Let the model of the current request stay loaded after it for as long as its `keep_alive` says, if it has one.

    Raises:
        InvalidInputError: it is no duration.
    """
    try:
        current().keep_alive_s = None if wanted is None else seconds(wanted)
    except ValueError as error:
        raise InvalidInputError(f"Invalid 'keep_alive': {error}.", param="keep_alive") from error


def _broken(body: bytes, error: Exception) -> InvalidInputError:
    for key, value in _leniently(body):
        if isinstance(value, float) and not math.isfinite(value):
            return InvalidInputError(f"Invalid '{key}': expected a finite number.", param=key)
        if isinstance(value, str) and not _is_text(value):
            return InvalidInputError(f"Invalid '{key}': it has a surrogate that stands alone.", param=key)
    reason = f": {error.__cause__}" if isinstance(error.__cause__, msgspec.DecodeError) else ""
    return InvalidInputError(f"The body is not valid JSON{reason}.", code="invalid_json")


def _leniently(body: bytes) -> list[tuple[str, Any]]:
    """Return the fields as Python's own parser reads them: it takes NaN and lone surrogates."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return []
    return list(fields.items()) if isinstance(fields, dict) else []


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
