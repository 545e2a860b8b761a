"""What a catalog entry's `options` may say to a model that writes."""

from typing import Annotated

from msgspec import Meta

from yapit_plugin_hf_generic.generating.chat import ChatOptions


class GenerateOptions(ChatOptions, frozen=True, kw_only=True):
    """Also what is told the chat.

    Args:
        max_batch_size: answers decoded together; 1 decodes one after the other.
        kv_cache_tokens: of all answers together, prompts included; as many as a part of the free memory holds when
            None.
        step_tokens: read in one step; longer prompts take several, between which others go on.
    """

    max_batch_size: Annotated[int, Meta(ge=1)] = 32
    kv_cache_tokens: Annotated[int, Meta(ge=1)] | None = None
    step_tokens: Annotated[int, Meta(ge=1)] | None = None
