"""VITS and MMS-TTS: speech from letters, or from phonemes, in one step."""

from collections.abc import Callable
from typing import Annotated

import torch
import transformers
from msgspec import Meta
from transformers.utils import is_phonemizer_available, is_uroman_available

from yapit import InvalidInputError, LoadError, SynthesizeRequest
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.speaking.speaker import Knobs, Speaker, SpeakingOptions, unknown_voice
from yapit_plugin_hf_generic.stopping import stop_between_layers

_Scale = Annotated[float, Meta(ge=0, le=2)]


class VitsKnobs(Knobs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request's `options` may set; what is None is as the model's configuration says.

    Args:
        noise_scale: how much the sound varies.
        noise_scale_duration: how much the lengths of the sounds vary.
    """

    noise_scale: _Scale | None = None
    noise_scale_duration: _Scale | None = None


class VitsSpeaker(Speaker):
    """Speaks with VITS, at any speed.

    The voices of a model of several speakers are their numbers, or the names that the entry gives them; a model of one
    has its voice under any name.
    """

    knobs = VitsKnobs

    def __init__(self, loader: Loader, options: SpeakingOptions) -> None:
        super().__init__(loader)
        dtype = torch.float32 if loader.options.dtype == "auto" else None
        self._vits = loader.weights(transformers.VitsModel, dtype=dtype)
        self._tokenizer = loader.part(transformers.VitsTokenizer)
        self._romanize = self._romanizer()
        if self._tokenizer.phonemize and not is_phonemizer_available():
            raise LoadError(f"The model '{self.model.id}' reads phonemes; try: pip install phonemizer")
        self._speakers = self._numbers(options)
        self.sample_rate = self._vits.config.sampling_rate
        stop_between_layers(self.lane, self._vits)

    def sound(self, request: SynthesizeRequest, knobs: VitsKnobs) -> torch.Tensor | None:
        """Return the whole speech."""
        speaker = self._speaker(request.voice)
        text = self._romanize(request.text)
        if not self._speakable(text):
            if any(character.isalpha() for character in request.text):
                message = f"The model '{self.model.id}' has none of the letters of: {request.text.strip()[:80]!r}"
                raise InvalidInputError(message, param="input")
            return None
        config = self._vits.config
        self._vits.noise_scale = config.noise_scale if knobs.noise_scale is None else knobs.noise_scale
        self._vits.noise_scale_duration = (
            config.noise_scale_duration if knobs.noise_scale_duration is None else knobs.noise_scale_duration
        )
        tokens = self._tokenizer(text, return_tensors="pt")
        spoken = self._vits(
            **tokens.to(self.device), speaker_id=speaker, speaking_rate=config.speaking_rate * request.speed
        )
        sound: torch.Tensor = spoken.waveform[0]
        return sound

    def _speakable(self, text: str) -> bool:
        """Tell whether the model knows a letter of the text; the tokens do not say, as a blank may be a letter too."""
        tokenizer = self._tokenizer
        if tokenizer.phonemize:
            return True
        prepared: str = tokenizer.prepare_for_tokenization(text)[0]
        return any(character.isalnum() and character in tokenizer.encoder for character in prepared)

    def _romanizer(self) -> Callable[[str], str]:
        """Return what writes a text in Latin letters; the tokenizer would read its tables for each text again."""
        tokenizer = self._tokenizer
        if not tokenizer.is_uroman:
            return str
        if not is_uroman_available():
            message = f"The model '{self.model.id}' reads its language in Latin letters; try: pip install uroman"
            raise LoadError(message)
        from uroman import Uroman  # type: ignore[import-untyped]  # it has no types

        uroman = Uroman()
        tokenizer.is_uroman = False

        def romanize(text: str) -> str:
            lowered: str = tokenizer.normalize_text(text) if tokenizer.normalize else text
            return lowered if lowered.isascii() else str(uroman.romanize_string(lowered))

        return romanize

    def _numbers(self, options: SpeakingOptions) -> dict[str, int]:
        count = self._vits.config.num_speakers
        if count <= 1:
            return {}
        if not options.speakers:
            return {str(number): number for number in range(count)}
        for voice, number in options.speakers.items():
            if not isinstance(number, int) or not 0 <= number < count:
                raise LoadError(f"The speaker '{voice}' of '{self.model.id}' must be a number from 0 to {count - 1}.")
        return {voice: int(number) for voice, number in options.speakers.items()}

    def _speaker(self, voice: str | None) -> int | None:
        """Return the number of a voice; what has one voice has it under any name."""
        if not self._speakers:
            return None
        name = voice or self.model.voice(None) or next(iter(self._speakers))
        if name not in self._speakers:
            raise unknown_voice(self.model.id, name, [*self._speakers])
        return self._speakers[name]
