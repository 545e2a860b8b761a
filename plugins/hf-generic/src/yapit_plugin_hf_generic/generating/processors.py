"""The processor of a vision-language model, also where torchvision is missing."""

from types import FunctionType
from typing import Any

from transformers import AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import is_torchvision_available

from yapit_plugin_hf_generic.loading import Loader

_VIDEO = "video_processor"


def processor_of(loader: Loader) -> Any:
    """Return the model's processor.

    Many processors also take videos, and for those alone transformers wants torchvision, of which there is no build
    for every torch. Without it, what is returned takes images only.

    Raises:
        LoadError: there is none, or it cannot be loaded here.
    """
    kind = None if is_torchvision_available() else _of_videos(loader)
    return loader.part(AutoProcessor if kind is None else without_videos(kind))


def without_videos(kind: Any) -> Any:
    """Return a processor's class, whose last part takes videos, without that part."""
    parts = [name for name in kind.get_attributes() if name != _VIDEO]
    members = {"get_attributes": classmethod(lambda _: parts), "__init__": _optional(kind.__init__)}
    return type(kind.__name__, (kind,), {**members, "__module__": kind.__module__})


def _optional(start: Any) -> Any:
    """Return a constructor to which nothing must be passed.

    It is the same code, because transformers reads there what may be passed on of a repository's files.
    """
    code, given = start.__code__, start.__defaults__ or ()
    defaults = (None,) * (code.co_argcount - 1 - len(given)) + given
    copy = FunctionType(code, start.__globals__, start.__name__, defaults, start.__closure__)
    copy.__kwdefaults__ = start.__kwdefaults__
    return copy


def _of_videos(loader: Loader) -> Any:
    """Return the class of the model's processor if it has a part that takes videos, and takes it last."""
    import transformers

    configured = loader.repository.json("processor_config.json") or {}
    images = loader.repository.json("preprocessor_config.json") or {}
    name = configured.get("processor_class") or images.get("processor_class")
    name = name or PROCESSOR_MAPPING_NAMES.get(loader.config.get("model_type", ""))
    kind = getattr(transformers, name or "", None)
    if kind is None or kind.get_attributes()[-1:] != [_VIDEO]:
        return None
    return kind
