"""What a Whisper needs on this machine: whoever fetches it asks here, and so do those who load it."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from yapit import Model, Weights
from yapit.catalog import folder_of

_TEXTS = ("*.json", "*.txt")
SAFE, PICKLES, CONVERTED = "*.safetensors", "pytorch_model*.bin", "model.bin"
# The same weights in another precision, or for other loaders.
_COPIES = ("*.fp16*", "*.fp32*", "flax_*", "onnx/*", "openvino/*")


def needs(model: Model) -> list[Weights]:
    """Return the repositories that have to be here before the model can be loaded."""
    if model.options.get("skip_download"):
        return []
    sources = [(model.source or model.id, model.revision)]
    if isinstance(tokenizer := model.options.get("tokenizer"), str):
        sources.append((tokenizer, None))
    return [
        Weights(source=source, revision=revision, choose=wanted)
        for source, revision in sources
        if folder_of(source) is None
    ]


def wanted(names: Iterable[str]) -> list[str]:
    """Return what is fetched of a repository's files: the weights once."""
    known = [name for name in names if not _fits(name, _COPIES)]
    weights = next(each for each in (CONVERTED, SAFE, PICKLES) if each == PICKLES or _any_fits(known, each))
    return [name for name in known if _fits(name, (*_TEXTS, weights))]


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _any_fits(names: Iterable[str], pattern: str) -> bool:
    return any(_fits(name, [pattern]) for name in names)
