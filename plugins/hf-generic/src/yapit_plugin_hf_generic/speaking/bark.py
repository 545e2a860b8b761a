"""Bark: speech, and noises between the words, from three models one after the other and a codec."""

from typing import Annotated, Any

import torch
import transformers
from msgspec import Meta

from yapit import LoadError, SynthesizeRequest
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.speaking.speaker import Knobs, Speaker, unknown_voice
from yapit_plugin_hf_generic.stopping import stop_between_layers

_Temperature = Annotated[float, Meta(gt=0, le=2)]


class BarkKnobs(Knobs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request's `options` may set; what is None is as the model's generation configuration says.

    Args:
        temperature: of all three models.
        semantic_temperature: of the model that decides what is said.
        coarse_temperature: of the model that decides how it sounds.
        fine_temperature: of the model that adds the details.
        min_eos_p: probability of the end from which on it stops; less silence and fewer made-up words with 0.05.
    """

    temperature: _Temperature | None = None
    semantic_temperature: _Temperature | None = None
    coarse_temperature: _Temperature | None = None
    fine_temperature: _Temperature | None = None
    min_eos_p: Annotated[float, Meta(gt=0, lt=1)] | None = None


class BarkSpeaker(Speaker):
    """Speaks with Bark, up to 13 seconds at once; a voice is one of the presets its repository has."""

    knobs = BarkKnobs

    def __init__(self, loader: Loader) -> None:
        super().__init__(loader)
        dtype = torch.float32 if loader.options.dtype == "auto" else None
        self._bark = loader.weights(transformers.BarkModel, dtype=dtype)
        self._processor = loader.part(transformers.BarkProcessor)
        known = self._processor.speaker_embeddings or {}
        # It names the repository on the hub; the files are here already.
        self._processor.speaker_embeddings = {**known, "repo_or_path": str(loader.repository.folder)}
        self._presets = [name for name in known if name != "repo_or_path"]
        generation = self._bark.generation_config
        if not isinstance(getattr(generation, "semantic_config", None), dict):
            raise LoadError(f"The model '{self.model.id}' has no generation_config.json with its three parts.")
        self._tokens: int = generation.semantic_config.get("max_input_semantic_length", 256)
        # No codec makes sound of no token.
        self._least: int = max(1, generation.semantic_config.get("min_new_tokens") or 0)
        self.sample_rate = generation.sample_rate
        stop_between_layers(self.lane, self._bark)

    def sound(self, request: SynthesizeRequest, knobs: BarkKnobs) -> torch.Tensor:
        """Return the whole speech."""
        preset = request.voice or self.model.voice(None)
        if preset is not None and preset not in self._presets:
            if self._presets:
                raise unknown_voice(self.model.id, preset, self._presets)
            preset = None  # what has no presets draws a voice
        inputs = self._processor(request.text, voice_preset=preset, max_length=self._tokens).to(self.device)
        sounds: torch.Tensor = self._bark.generate(**inputs, semantic_min_new_tokens=self._least, **_chosen(knobs))
        return sounds[0]


def _chosen(knobs: BarkKnobs) -> dict[str, Any]:
    names = ("temperature", "semantic_temperature", "coarse_temperature", "fine_temperature", "min_eos_p")
    return {name: value for name in names if (value := getattr(knobs, name)) is not None}
