"""How many tokens a model reads, and what is said of a text that has more."""

from collections.abc import Mapping
from typing import Any

from yapit import InvalidInputError
from yapit_plugin_hf_generic.describing import context_length

_MANY_TOKENS = 1 << 24  # tokenizers without a limit say they have an enormous one
_UNKNOWN_LIMIT = 8192


def token_limit(config: Mapping[str, Any], tokenizer: Any, wanted: int | None) -> int:
    """Return how many tokens a text may have: as many as wanted, or as the tokenizer says, if the model has the places.

    Args:
        config: the model's.
        tokenizer: the model's.
        wanted: by the options, or by a file that knows better.
    """
    places = context_length(config.get("text_config") or config)
    said = wanted or int(tokenizer.model_max_length)
    return min(
        (limit for limit in (said, places) if limit is not None and limit < _MANY_TOKENS), default=_UNKNOWN_LIMIT
    )


def too_long(name: str, count: int, limit: int) -> InvalidInputError:
    """Return the error for the request's field `name`, which has more tokens than the model reads."""
    message = f"Invalid '{name}': it has {count} tokens, and the model reads at most {limit}."
    return InvalidInputError(message, param=name, code="context_length_exceeded")
