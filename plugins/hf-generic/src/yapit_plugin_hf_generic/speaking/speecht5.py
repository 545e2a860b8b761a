"""SpeechT5: a spectrogram from text and the vector of a voice, and a vocoder that makes sound of it."""

from typing import Annotated

import structlog
import torch
import transformers
from msgspec import Meta

from yapit import Context, SynthesizeRequest
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.needs import vocoder_of
from yapit_plugin_hf_generic.speaking.embeddings import SpeakerEmbeddings
from yapit_plugin_hf_generic.speaking.speaker import Knobs, Speaker, SpeakingOptions, unknown_voice
from yapit_plugin_hf_generic.speaking.vocoding import vocoder
from yapit_plugin_hf_generic.stopping import stop_between_layers

_log = structlog.get_logger(__name__)


class SpeechT5Knobs(Knobs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request's `options` may set.

    Args:
        threshold: probability of the end from which on the model stops.
    """

    threshold: Annotated[float, Meta(gt=0, lt=1)] = 0.5


class SpeechT5Speaker(Speaker):
    """Speaks with SpeechT5; without any embeddings its voice is the one that a vector of zeros gives."""

    knobs = SpeechT5Knobs

    def __init__(self, loader: Loader, options: SpeakingOptions, context: Context) -> None:
        super().__init__(loader)
        self._speech = loader.weights(transformers.SpeechT5ForTextToSpeech, dtype=torch.float32)
        self._tokenizer = loader.part(transformers.SpeechT5Tokenizer)
        source = vocoder_of("speecht5", options.vocoder) or ""
        self._vocoder = vocoder(loader, context, transformers.SpeechT5HifiGan, source)
        self._width = self._speech.config.speaker_embedding_dim
        self._voices = SpeakerEmbeddings.of(loader, options, self._width)
        if not self._voices.names:
            _log.warning("no_speaker_embeddings", model=self.model.id, use="a neutral voice of poor quality")
        self.sample_rate = self._vocoder.config.sampling_rate
        stop_between_layers(self.lane, self._speech, self._vocoder)

    def sound(self, request: SynthesizeRequest, knobs: SpeechT5Knobs) -> torch.Tensor:
        """Return the whole speech."""
        speaker = self._speaker(request.voice)
        # Its alphabet has no digits: they are spelt out, in English, the language of the model.
        spelt = any(character.isdigit() for character in request.text)
        tokens = self._tokenizer(
            request.text,
            normalize=spelt,
            truncation=True,
            max_length=self._speech.config.max_text_positions,
            return_tensors="pt",
        )
        sound: torch.Tensor = self._speech.generate_speech(
            tokens["input_ids"].to(self.device), speaker, threshold=knobs.threshold, vocoder=self._vocoder
        )
        return sound

    def _speaker(self, voice: str | None) -> torch.Tensor:
        names = self._voices.names
        if not names:
            return torch.zeros(1, self._width, device=self.device)
        name = voice or self.model.voice(None) or names[0]
        if name not in names:
            raise unknown_voice(self.model.id, name, names)
        return torch.from_numpy(self._voices[name])[None].to(self.device)
