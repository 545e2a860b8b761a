"""What a repository's files, and the catalog entry, say about how vectors are made."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import transformers
from msgspec import Meta, Struct, field
from transformers.models.auto import modeling_auto

from yapit import LoadError
from yapit_plugin_hf_generic.describing import front_matter
from yapit_plugin_hf_generic.options import Options
from yapit_plugin_hf_generic.repositories import Repository

Pooling = Literal["mean", "cls", "last_token", "max", "mean_sqrt_len", "weighted_mean"]
# The spellings of sentence-transformers, older and newer; vectors of several poolings are joined in this order.
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last_token",
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
_TRANSFORMER_FILES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_KNOWN = {"Transformer", "Pooling", "Dense", "Normalize", "Dropout"}
_MATRYOSHKA_TAG = "loss:MatryoshkaLoss"  # sentence-transformers writes it into the cards of models so trained


class EmbedOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model that embeds may be told, besides what every one may.

    Args:
        pooling: how the vectors of a text's tokens become one; as the repository says when None.
        normalize: vectors have the length 1; as the repository says when None.
        prompts: what goes before a text, by `input_type`; added to those of the repository.
        default_prompt: the name of the one that is used without an `input_type`.
        max_tokens: a text may have; as the repository says when None.
        matryoshka: vectors may be cut to any length, or to these; as the model's card says when None.
        runtime: what computes; `auto` takes the fastest that is accurate on the device.
        precision: it computes in, likewise; int8 is the fastest, and not accurate.
    """

    pooling: Pooling | None = None
    normalize: bool | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    matryoshka: bool | tuple[Annotated[int, Meta(ge=1)], ...] | None = None
    runtime: Literal["auto", "torch", "openvino"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"


class Layout(Struct, frozen=True, kw_only=True):
    """How vectors are made.

    Args:
        folder: of the transformer, below the repository's.
        poolings: their results are joined.
        include_prompt: the tokens of a prompt are pooled too.
        dense: folders of the layers that follow the pooling.
        normalize: vectors have the length 1.
        prompts: what goes before a text, by name.
        default_prompt: the name of the one that is used if none is asked for.
        max_tokens: a text may have, if the files of sentence-transformers say it.
        lower_case: texts are read in lower case.
        matryoshka: vectors may be cut to any length, or to these.
        cut: the length they are cut to, if none is asked for.
    """

    folder: str = ""
    poolings: tuple[Pooling, ...]
    include_prompt: bool = True
    dense: tuple[str, ...] = ()
    normalize: bool = True
    prompts: Mapping[str, str] = {}
    default_prompt: str | None = None
    max_tokens: int | None = None
    lower_case: bool = False
    matryoshka: bool | tuple[int, ...] = False
    cut: int | None = None


def layout_of(repository: Repository, options: EmbedOptions) -> Layout:
    """Return the layout of a repository with or without the files of sentence-transformers; the options override.

    Raises:
        LoadError: it has parts that are not supported here.
    """
    modules = [(_kind(module), str(module.get("path", ""))) for module in repository.json("modules.json") or []]
    for kind, path in modules:
        if kind not in _KNOWN or PurePosixPath(path).is_absolute() or ".." in path:
            raise LoadError(f"The model '{repository.name}' has a part '{kind}' at '{path}', which is not supported.")
    folder = next((path for kind, path in modules if kind == "Pooling"), "1_Pooling")
    pooling = repository.json(f"{folder}/config.json")
    config = repository.json("config_sentence_transformers.json") or {}
    transformer = next((path for kind, path in modules if kind == "Transformer"), "")
    reading = _reading(repository, transformer)
    normalize = not modules or any(kind == "Normalize" for kind, _ in modules)
    cut = config.get("truncate_dim")
    return Layout(
        folder=transformer,
        poolings=(options.pooling,) if options.pooling else _poolings(repository, pooling),
        include_prompt=bool((pooling or {}).get("include_prompt", True)),
        dense=tuple(path for kind, path in modules if kind == "Dense"),
        normalize=normalize if options.normalize is None else options.normalize,
        prompts={name: text or "" for name, text in (config.get("prompts") or {}).items()} | options.prompts,
        default_prompt=options.default_prompt or config.get("default_prompt_name"),
        max_tokens=reading.get("max_seq_length"),
        lower_case=bool(reading.get("do_lower_case")),
        matryoshka=_matryoshka(repository, options, cut),
        cut=cut,
    )


def reads_forward(config: Mapping[str, Any]) -> bool:
    """Tell whether a model reads from left to right, so that only a text's last token knows all of it."""
    names = config.get("architectures") or [""]
    kind = str(config.get("model_type", ""))
    writes = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return str(names[0]).endswith(("ForCausalLM", "LMHeadModel")) or (
        writes and kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def auto_class(config: Mapping[str, Any]) -> Any:
    """Return the class of transformers that loads what embeds: of a model that also writes, the half that reads."""
    reads = modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(str(config.get("model_type", "")), "")
    return transformers.AutoModelForTextEncoding if reads.endswith("EncoderModel") else transformers.AutoModel


def _kind(module: Mapping[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _poolings(repository: Repository, config: dict[str, Any] | None) -> tuple[Pooling, ...]:
    if config is None:
        return ("last_token",) if reads_forward(repository.config) else ("mean",)
    said = config.get("pooling_mode")
    names = [said] if isinstance(said, str) else said
    if names is None:
        names = [name for name in _POOLINGS if name.startswith("pooling_mode") and config.get(name)]
    unknown = [name for name in names if name not in _POOLINGS]
    if unknown:
        raise LoadError(f"The model '{repository.name}' pools by '{unknown[0]}', which is not supported.")
    return tuple(_POOLINGS[name] for name in names) or ("mean",)


def _reading(repository: Repository, folder: str) -> dict[str, Any]:
    names = (f"sentence_{kind}_config.json" for kind in _TRANSFORMER_FILES)
    paths = (f"{folder}/{name}" if folder else name for name in names)
    return next((found for path in paths if (found := repository.json(path)) is not None), {})


def _matryoshka(repository: Repository, options: EmbedOptions, cut: int | None) -> bool | tuple[int, ...]:
    if options.matryoshka is not None:
        return options.matryoshka
    try:
        card = (repository.folder / "README.md").read_text("utf-8", "replace")
    except OSError:
        card = ""
    tags = front_matter(card).get("tags")
    return cut is not None or (isinstance(tags, list) and _MATRYOSHKA_TAG in tags)
