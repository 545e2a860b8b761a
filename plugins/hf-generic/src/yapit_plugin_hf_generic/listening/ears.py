"""How models are asked what they hear; those that write down a window token by token."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto as auto

from yapit import Segment, TranscribeRequest
from yapit_plugin_hf_generic.listening.windows import Samples, quiet_cuts, sounding
from yapit_plugin_hf_generic.loading import Loader

_TOKENS_PER_S = {"moonshine": 6.5}  # its authors' limit: it repeats itself for ever otherwise
_MOST_TOKENS_PER_S = 16.0


class Ear(ABC):
    """A loaded model and how it is asked.

    Args:
        loader: of the model.
        auto_class: of transformers, that loads it.
        window_s: of a recording that are heard at once.
    """

    translates = False

    def __init__(self, loader: Loader, auto_class: Any, window_s: float) -> None:
        dtype = torch.float32 if loader.device.type == "cpu" and loader.options.dtype == "auto" else None
        self.model = loader.weights(auto_class, dtype=dtype)
        self.device = loader.device
        self.kind = str(loader.config.get("model_type", ""))
        self.window_s = window_s
        self.extractor = loader.part(transformers.AutoFeatureExtractor)
        self.tokenizer = loader.part(transformers.AutoTokenizer)
        self.sample_rate: int = self.extractor.sampling_rate
        tags = loader.model.languages
        self._language = tags[0] if len(tags) == 1 else None

    @abstractmethod
    def hear(self, samples: Samples, request: TranscribeRequest) -> Iterator[Segment]:
        """Yield the segments of a recording."""

    def language(self, request: TranscribeRequest) -> str | None:
        """Return what is spoken, if it is known."""
        return request.language or self._language

    def inputs(self, samples: Samples) -> dict[str, torch.Tensor]:
        """Return what the model takes of a window."""
        features = self.extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt")
        # A model made of two calls its input by another name than its extractor.
        wanted: str = self.model.main_input_name
        found = next(name for name in (wanted, "input_features", "input_values") if name in features)
        made = {wanted: features[found].to(self.device, self.model.dtype)}
        mask = features.get("attention_mask")
        if mask is not None and not mask.all():  # of a window alone, which few extractors fill up
            made["attention_mask"] = mask.to(self.device)
        return made


class GeneratingEar(Ear):
    """Hears with a model that writes a whole window down token by token; windows are cut where it is quiet."""

    def __init__(self, loader: Loader, auto_class: Any, window_s: float) -> None:
        super().__init__(loader, auto_class, window_s)
        languages = getattr(self.model.generation_config, "lang_to_id", None)
        self.translates = self.kind == "whisper" and languages is not None
        self._chooses = languages is not None

    def hear(self, samples: Samples, request: TranscribeRequest) -> Iterator[Segment]:
        """Yield a segment for each window."""
        for window in quiet_cuts(samples, self.sample_rate, self.window_s):
            begin, end = sounding(window.samples, self.sample_rate)
            if begin == end:
                continue
            tokens = self._write(window.samples, request)
            text = str(self.tokenizer.decode(tokens, skip_special_tokens=True, **self._decoding())).strip()
            if text:
                yield Segment(
                    text=f" {text}",
                    start_s=(window.start + begin) / self.sample_rate,
                    end_s=(window.start + end) / self.sample_rate,
                    tokens=tuple(tokens),
                    language=self.language(request),
                )

    def _write(self, samples: Samples, request: TranscribeRequest) -> list[int]:
        chosen: dict[str, Any] = self._limit(len(samples) / self.sample_rate)
        if self._chooses and self.kind == "whisper":
            chosen |= {"task": "translate" if request.translate else "transcribe"}
            chosen |= {} if request.language is None else {"language": primary(request.language)}
        with torch.inference_mode():
            made = self.model.generate(**self.inputs(samples), **chosen)
        sequences = made if isinstance(made, torch.Tensor) else made["sequences"]
        return [int(token) for token in sequences[0]]

    def _limit(self, seconds: float) -> dict[str, int]:
        """Return how many tokens are written at most, unless the model says so itself."""
        config = self.model.generation_config
        if config.max_new_tokens is not None or config.max_length is not None:
            return {}
        wanted = int(seconds * _TOKENS_PER_S.get(self.kind, _MOST_TOKENS_PER_S)) + 8
        room = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        return {"max_new_tokens": wanted if room is None else max(1, min(wanted, room - 8))}

    def _decoding(self) -> dict[str, bool]:
        # A transducer names each token once: equal neighbours are two.
        return {"group_tokens": False} if self.kind in auto.MODEL_FOR_TDT_MAPPING_NAMES or self._transduces else {}

    @property
    def _transduces(self) -> bool:
        return self.kind in auto.MODEL_FOR_RNNT_MAPPING_NAMES


def primary(tag: str) -> str:
    """Return the language of a tag such as `en-US`."""
    return tag.replace("_", "-").partition("-")[0].casefold()
