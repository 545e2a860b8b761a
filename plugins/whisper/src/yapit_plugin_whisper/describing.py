"""From a repository's `config.json` to a catalog entry: whether it is a Whisper's; no torch here."""

from typing import Any

import structlog

from yapit.catalog import folder_of
from yapit.hub import HTTPError, is_repo_id, line
from yapit_plugin_whisper.repositories import config_of

_log = structlog.get_logger(__name__)
# What a configuration made for CTranslate2 has, which names no type.
_CONVERTED = {"suppress_ids", "suppress_ids_begin", "alignment_heads"}


def describe(source: str, revision: str | None) -> dict[str, Any] | None:
    """Return what a catalog can say of a Whisper before it is loaded; None: it is none, or nobody can tell.

    Of repositories on the hub, only those that are named after Whisper are asked for.
    """
    if folder_of(source) is None and not (is_repo_id(source) and "whisper" in source.casefold()):
        return None
    try:
        config = config_of(source, revision)
    except (OSError, ValueError, HTTPError) as error:
        _log.info("whisper_unknown", source=source, reason=line(error))
        return None
    if config.get("model_type") != "whisper" and not config.keys() >= _CONVERTED:
        return None
    if (config.get("architectures") or ["WhisperForConditionalGeneration"]) != ["WhisperForConditionalGeneration"]:
        return None  # one that tells sounds apart
    return {"tasks": ["transcribe"]}
