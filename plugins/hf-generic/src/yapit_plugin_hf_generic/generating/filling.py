"""Prompts that fill in the middle, in the form of each family of models."""

import re
from collections.abc import Collection

from yapit import InvalidInputError
from yapit_plugin_hf_generic.generating.parsing.styles import bars

_BEGIN, _HOLE, _END = bars("fim begin"), bars("fim hole"), bars("fim end")
# The tokens that a vocabulary must have, and the prompt of them.
_FORMS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>",
    ),
    (("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>"),
    (("<fim-prefix>", "<fim-suffix>", "<fim-middle>"), "<fim-prefix>{prefix}<fim-suffix>{suffix}<fim-middle>"),
    (
        (_BEGIN, _HOLE, _END),
        _BEGIN + "{prefix}" + _HOLE + "{suffix}" + _END,
    ),
    (("▁<PRE>", "▁<SUF>", "▁<MID>"), "▁<PRE>{prefix}▁<SUF>{suffix}▁<MID>"),
    (("<PRE>", "<SUF>", "<MID>"), "<PRE> {prefix} <SUF>{suffix} <MID>"),
    (("[SUFFIX]", "[PREFIX]"), "[SUFFIX]{suffix}[PREFIX]{prefix}"),
    (
        ("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),
        "<[fim-suffix]>{suffix}<[fim-prefix]>{prefix}<[fim-middle]>",
    ),
)


def form_of(words: Collection[str], option: str | None) -> str | None:
    """Return the form of prompts with a suffix, None if the vocabulary has no tokens for it.

    Args:
        words: the vocabulary.
        option: the form, instead of the one that is found.
    """
    if option is not None:
        return option
    return next((form for tokens, form in _FORMS if all(token in words for token in tokens)), None)


def filled(form: str | None, prefix: str, suffix: str) -> str:
    """Return the prompt for what is between `prefix` and `suffix`.

    Raises:
        InvalidInputError: the model cannot.
    """
    if form is None:
        message = "This model does not fill in the middle: its vocabulary has no tokens for that."
        raise InvalidInputError(message, param="suffix")
    values = {"{prefix}": prefix, "{suffix}": suffix}
    # In one pass: code is full of braces.
    return re.sub(r"\{prefix\}|\{suffix\}", lambda found: values[found.group()], form)
