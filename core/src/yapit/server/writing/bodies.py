"""What clients may ask for: the fields that chat, completions and responses have in common, and their limits."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from yapit.errors import InvalidInputError

Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1)]
Stops = Annotated[list[str], Meta(max_length=4)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Fields = dict[str, Any]
_BIAS = 100
_DIGITS = 10  # no vocabulary is larger
_FORMS = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")


class StreamOptions(Struct, frozen=True, kw_only=True):
    """How to stream; `include_usage` asks for a last chunk with the usage."""

    include_usage: bool | None = None


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is chosen, and what else every request may say; a null field counts as absent.

    Args:
        model: id or alias of a model that writes.
        stream: answer with events while the text is made.
        temperature: 0 takes the likeliest token.
        top_p: takes from the likeliest tokens that have this probability together.
        top_k: takes from this many of the likeliest tokens; from all with 0 or -1.
        min_p: takes from the tokens that have this share of the likeliest one's probability.
        repetition_penalty: divides the logits of tokens that were read or written.
        structured_outputs: what form the text has: `json`, `regex`, `choice` or `grammar`, as vLLM's clients ask.
        guided_json: a JSON schema, as they once asked; likewise the three below.
        guided_regex: a regular expression.
        guided_choice: one of these texts.
        guided_grammar: a grammar in Lark's form.
        options: the model's own parameters.
        keep_alive: how long the model stays loaded after this, when idle: seconds, or `10m`.
    """

    model: str
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    structured_outputs: Fields | None = None
    guided_json: Fields | str | bool | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    options: Fields | None = None
    keep_alive: str | float | None = None


class Choosing(Sampling, frozen=True, kw_only=True):
    """What chat and completions share beyond that.

    Args:
        n: answers.
        stop: texts that end an answer and are not part of it.
        seed: makes the answer the same each time.
        frequency_penalty: taken from a token's logit for each time it was written.
        presence_penalty: taken from a token's logit if it was written.
        logit_bias: added to the logits of these tokens, by id.
        stream_options: how to stream.
    """

    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | Stops | None = None
    seed: Seed | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    stream_options: StreamOptions | None = None


def sampled(body: Sampling) -> Fields:
    """Return what a body says of the choice of tokens in the words of `GenerateRequest`."""
    return {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k is None else max(0, body.top_k),
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
    }


def options_of(body: Sampling, *further: str) -> Fields:
    """Return the options for the adapter: those of the body, and of its fields the ones that only some models know."""
    named = {name: value for name in (*_FORMS, *further) if (value := getattr(body, name)) is not None}
    return (body.options or {}) | named


def chosen(body: Choosing) -> Fields:
    """Return the same of a body with stops, penalties and biases.

    Raises:
        InvalidInputError: options for a stream without one, or a bias of something that is no token.
    """
    if body.stream_options is not None and not body.stream:
        message = "Invalid 'stream_options': it is only allowed when 'stream' is true."
        raise InvalidInputError(message, param="stream_options")
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or ()
    return sampled(body) | {
        "frequency_penalty": body.frequency_penalty,
        "presence_penalty": body.presence_penalty,
        "logit_bias": _biases(body.logit_bias or {}),
        # An empty one would end every answer before it begins.
        "stop": tuple(text for text in stops if text),
        "seed": body.seed,
    }


def wants_usage(body: Choosing) -> bool:
    """Tell whether the stream shall end with the usage."""
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def _biases(given: dict[str, float]) -> dict[int, float]:
    for key, bias in given.items():
        if not (key.isascii() and key.isdecimal() and len(key) < _DIGITS):
            raise InvalidInputError(f"Invalid 'logit_bias': {key!r} is no id of a token.", param="logit_bias")
        if abs(bias) > _BIAS:
            message = f"Invalid 'logit_bias': the bias of {key} is {bias:g}; it may be -{_BIAS} to {_BIAS}."
            raise InvalidInputError(message, param="logit_bias")
    return {int(key): bias for key, bias in given.items()}
