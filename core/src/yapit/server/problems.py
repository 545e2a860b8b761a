"""Errors as clients of the OpenAI API read them: `{"error": {"message", "type", "param", "code"}}`, always."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Literal, get_args, get_origin

import msgspec
import msgspec.inspect
import structlog
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi.datastructures import ResponseSpec

from yapit.errors import DeadlineError, InvalidInputError, LoadError, YapitError
from yapit.server.services import services

_log = structlog.get_logger(__name__)
_HTTP_SERVER_ERROR = 500


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong: for people, by kind, by request field, for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(msgspec.Struct, frozen=True):
    """The body of every error."""

    error: Problem


def documented(body: type[msgspec.Struct]) -> dict[int, ResponseSpec]:
    """Return what a route's documentation says of errors, whose body is such a one."""
    statuses = (400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504, 507)
    return {status: ResponseSpec(body, description=HTTPStatus(status).phrase) for status in statuses}


PROBLEMS = documented(ErrorEnvelope)


def envelope(error: YapitError) -> ErrorEnvelope:
    """Return the body for an error of ours."""
    return ErrorEnvelope(Problem(message=error.message, type=error.type, param=error.param, code=error.code))


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorEnvelope]:
    """Answer any exception that reaches the edge; what is not meant for clients stays in the log."""
    if isinstance(error, YapitError):
        return answer(error)
    if isinstance(error, HTTPException) and error.status_code < _HTTP_SERVER_ERROR:
        return _litestars(request, error)
    _log.error("request_failed", exc_info=error)
    failed = _refusal(500, "The server had an error while processing the request.", kind="server_error")
    failed.headers["x-should-retry"] = "false"
    return failed


def answer(error: YapitError) -> Response[ErrorEnvelope]:
    """Return the response for an error of ours."""
    if error.status >= _HTTP_SERVER_ERROR:
        _log.warning("request_refused", status=error.status, code=error.code, reason=error.message)
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    elif error.status == _HTTP_SERVER_ERROR or isinstance(error, DeadlineError | LoadError):
        # The same request would end the same way, and the SDKs repeat what fails with 5xx.
        headers["x-should-retry"] = "false"
    return Response(envelope(error), status_code=error.status, headers=headers, media_type="application/json")


@contextmanager
def spelled(names: Mapping[str, str]) -> Iterator[None]:
    """Let errors name the fields of the request as the client does.

    Args:
        names: the client's name for a field (`inputs`), or for one item of it (`inputs[0]`), as the engine calls it.
    """
    try:
        yield
    except YapitError as error:
        renamed = _respelled(error, names)
        if renamed is error:
            raise
        raise renamed from error


def _respelled(error: YapitError, names: Mapping[str, str]) -> YapitError:
    """Return a copy with the other names: several requests may fail with one and the same error."""
    param = error.param or ""
    field = re.match(r"\w*", param)[0]  # type: ignore[index]  # it matches everything
    name = names.get(param) or names.get(field, field) + param.removeprefix(field)
    if name == param:
        return error
    # A bare `inputs` in a message may be the English word.
    wrong, right = (param, name) if "[" in param else (f"'{param}'", f"'{name}'")
    message = error.message.replace(wrong, right)
    # Not by its class's constructor, which may take other arguments in a plugin.
    copied = type(error).__new__(type(error), message)
    copied.__dict__.update(error.__dict__, message=message, param=name)
    return copied


def _litestars(request: Request[Any, Any, Any], error: HTTPException) -> Response[ErrorEnvelope]:
    target = f"{request.method} {request.url.path}"
    match error:
        case NotFoundException():
            return _refusal(404, f"Invalid URL ({target})", code="unknown_url")
        case MethodNotAllowedException():
            refused = _refusal(405, f"Method not allowed ({target})", code="method_not_supported")
            refused.headers.update(error.headers or {})
            return refused
        case RequestEntityTooLarge():
            limit = services(request).settings.server.max_body_bytes
            # The rest of the body is not read: the connection cannot be used again.
            refused = _refusal(413, f"The body is larger than the limit of {limit} bytes.", code="body_too_large")
            refused.headers["connection"] = "close"
            return refused
        case ValidationException():
            return answer(_invalid(request, error))
    return _refusal(error.status_code, error.detail or "The request cannot be served.")


def _invalid(request: Request[Any, Any, Any], error: ValidationException) -> InvalidInputError:
    """Return the first thing Litestar found wrong, in the client's words."""
    details: Any = error.extra or []
    first: dict[str, Any] = details[0] if isinstance(details, list) and details else {}
    message, param = str(first.get("message", error.detail)), first.get("key")
    missing = re.search(r"[Mm]issing required (?:field|\w+ parameter) [`'](\w+)", message)
    if missing:
        text = f"Missing required parameter: '{missing[1]}'."
        return InvalidInputError(text, param=missing[1], code="missing_required_parameter")
    if param == "data":
        # Litestar's name for the whole body.
        return InvalidInputError("The body is not the object that is expected here.", code="invalid_body")
    allowed = _allowed(request, param)
    if message.startswith("Invalid enum value") and allowed:
        message = f"{message}. Supported values are: {', '.join(map(repr, allowed))}"
    return InvalidInputError(f"{message} - at `{param}`" if param else message, param=param)


def _allowed(request: Request[Any, Any, Any], param: str | None) -> list[Any]:
    """Return the values that the body's field takes, where it is one of a few."""
    body = request.route_handler.parsed_data_field if param else None
    if body is None:
        return []
    bodies = [kind for kind in (body.annotation, *get_args(body.annotation)) if msgspec.inspect.is_struct_type(kind)]
    fields = {item.encode_name: item.type for kind in bodies for item in msgspec.structs.fields(kind)}
    kinds = [fields.get(str(param)), *get_args(fields.get(str(param)))]
    return [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]


def _refusal(
    status: int, message: str, *, code: str | None = None, kind: str = "invalid_request_error"
) -> Response[ErrorEnvelope]:
    body = ErrorEnvelope(Problem(message=message, type=kind, param=None, code=code))
    return Response(body, status_code=status, media_type="application/json")
