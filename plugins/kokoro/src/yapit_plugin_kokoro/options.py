"""What a catalog entry's `options` may say to this plugin, what the settings may, and what a request may."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from yapit import Context, Model, SynthesizeRequest
from yapit.options import entry_options, request_options

PLUGIN = "kokoro"
Lexicon = dict[Annotated[str, Meta(min_length=1, max_length=100)], Annotated[str, Meta(min_length=1, max_length=200)]]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `plugin_settings.kokoro` of yapit.yaml.

    Args:
        markup: pauses and phonemes written in the text are obeyed; if not, no request can change that.
    """

    markup: bool = True


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model may be told.

    Args:
        dtype: in which the sound is made; `auto` takes the fastest whose sound is that of float32.
        threads: that compute on a CPU; as many as there are cores when None.
        markup: as in the settings, for this model.
        lexicon: words, and the phonemes that are said for them.
        skip_download: the weights must be here already.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    threads: Annotated[int, Meta(ge=1)] | None = None
    markup: bool = True
    lexicon: Lexicon = {}
    skip_download: bool = False


class Knobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request's `options`, or else the entry's `defaults`, may set.

    Args:
        lang_code: how the text is read: a letter of Kokoro's (`a`, `b`, …) or a language tag.
        seed: makes the same sound, byte for byte, of the same request.
        markup: false says what stands in brackets as it stands there.
        lexicon: words, and the phonemes that are said for them.
    """

    lang_code: str | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    markup: bool = True
    lexicon: Annotated[Lexicon, Meta(max_length=1000)] = {}


def settings_of(context: Context) -> Settings:
    """Return the plugin's settings."""
    return context.settings(PLUGIN, Settings)


def options_of(model: Model) -> Options:
    """Return the model's options.

    Raises:
        SettingsError: an option is unknown or has a value that is refused.
    """
    return entry_options(model, Options)


def knobs_of(model: Model, request: SynthesizeRequest) -> Knobs:
    """Return what a request sets, over the entry's defaults.

    Raises:
        InvalidInputError: an option is unknown or has a value that is refused.
    """
    return request_options(model, request.options, Knobs)
