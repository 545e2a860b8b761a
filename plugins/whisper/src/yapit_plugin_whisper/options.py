"""What a catalog entry's `options` may say to this plugin, and what a request's may."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from yapit import Model
from yapit.options import entry_options, request_options

Share = Annotated[float, Meta(ge=0, le=1)]


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a catalog entry may say.

    Args:
        engine: what computes; `auto` takes CTranslate2 on a CPU and for converted repositories, else transformers.
        compute_type: as CTranslate2 names them (`int8`, `float32`, …); the `dtype` when None.
        dtype: of the weights; `auto` takes float32 on a CPU and half precision on a GPU.
        attn_implementation: as transformers names them (`sdpa`, `eager`, `flash_attention_2`, …).
        threads: that compute on a CPU; as many as there are cores when None.
        tokenizer: folder or repo id of the tokenizer, where a converted repository has none.
        translates: to English; found out from the model when None.
        chapter_s: of a long recording that are in memory at once.
        skip_download: the weights must be here already.
    """

    engine: Literal["auto", "ctranslate2", "transformers"] = "auto"
    compute_type: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: str | None = None
    threads: Annotated[int, Meta(ge=1)] | None = None
    tokenizer: str | None = None
    translates: bool | None = None
    chapter_s: Annotated[float, Meta(ge=60)] = 600.0
    skip_download: bool = False


class Knobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request's `options`, or else the entry's `defaults`, may set.

    Args:
        beam_size: sentences that are followed at once where the likeliest tokens are taken; 1 is the fastest.
        best_of: sentences that are tried where tokens are drawn at random.
        patience: how long better sentences are looked for; 1 ends with the first `beam_size`.
        length_penalty: above 0 favours long sentences.
        repetition_penalty: makes tokens less likely that were written; 1 changes nothing.
        no_repeat_ngram_size: as many tokens never come twice in the same order; any may with 0.
        condition_on_previous_text: what was written goes before each window as its prompt.
        compression_ratio_threshold: above it a window is decoded again, since it repeats itself.
        log_prob_threshold: average log-probability below which a window is decoded again.
        no_speech_threshold: probability from which on an unlikely window counts as silence.
        hallucination_silence_threshold: seconds of silence that are left out around unlikely words; needs word times.
        batched: stretches of speech are decoded together: faster, and each without what was said before.
        batch_size: stretches at once.
        vad: only what is speech is listened to; when None, all of a recording in which there is any.
    """

    beam_size: Annotated[int, Meta(ge=1, le=32)] = 5
    best_of: Annotated[int, Meta(ge=1, le=32)] = 5
    patience: Annotated[float, Meta(gt=0, le=8)] = 1.0
    length_penalty: Annotated[float, Meta(ge=-2, le=4)] = 1.0
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] = 1.0
    no_repeat_ngram_size: Annotated[int, Meta(ge=0, le=64)] = 0
    condition_on_previous_text: bool = True
    compression_ratio_threshold: Annotated[float, Meta(gt=0)] | None = 2.4
    log_prob_threshold: Annotated[float, Meta(le=0)] | None = -1.0
    no_speech_threshold: Share | None = 0.6
    hallucination_silence_threshold: Annotated[float, Meta(gt=0)] | None = None
    batched: bool = False
    batch_size: Annotated[int, Meta(ge=1, le=64)] = 8
    vad: bool | None = None


def options_of(model: Model) -> Options:
    """Return what the entry says.

    Raises:
        SettingsError: an option is unknown or has a value that is refused.
    """
    return entry_options(model, Options)


def knobs_of(model: Model, given: dict[str, Any]) -> Knobs:
    """Return what a request says, with the entry's defaults.

    Raises:
        InvalidInputError: an option is unknown or has a value that is refused.
    """
    return request_options(model, given, Knobs)
