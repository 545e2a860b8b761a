"""Pocket TTS: small enough for a CPU, and in the voice of a recording."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
from msgspec import Meta
from numpy.typing import NDArray
from safetensors.torch import load_file

from yapit import LoadError, SynthesizeRequest, YapitError
from yapit.audio import decode
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.repositories import Repository
from yapit_plugin_hf_generic.speaking.speaker import Knobs, Speaker, SpeakingOptions, unknown_voice
from yapit_plugin_hf_generic.stopping import stop_between_layers

_RECORDINGS = {".wav", ".flac", ".mp3", ".ogg"}
_LONGEST_S = 60.0  # of a recording that a voice is taken from


class PocketKnobs(Knobs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request's `options` may set; what is None is as the model's generation configuration says.

    Args:
        temperature: how much the sound varies; 0 does not.
        num_flow_steps: for each 80 ms; more take longer and may sound better.
    """

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    num_flow_steps: Annotated[int, Meta(ge=1, le=16)] | None = None


class PocketSpeaker(Speaker):
    """Speaks with Pocket TTS; a voice is a recording, or its latents, in the folder `voices` or where the entry says.

    Without any voices each piece of text is in another one.
    """

    knobs = PocketKnobs

    def __init__(self, loader: Loader, options: SpeakingOptions) -> None:
        super().__init__(loader)
        dtype = torch.float32 if loader.options.dtype == "auto" else None
        self._pocket = loader.weights(transformers.PocketTTSForConditionalGeneration, dtype=dtype)
        self._processor = loader.part(transformers.PocketTTSProcessor)
        if getattr(self._processor, "audio_tokenizer", None) is None:
            raise LoadError(f"The model '{self.model.id}' has no audio tokenizer to make sound with.")
        self._processor.audio_tokenizer.to(self.device).eval()
        self._files = _voices(loader, options)
        self._latents: dict[str, torch.Tensor] = {}
        self.sample_rate = self._processor.feature_extractor.sampling_rate
        stop_between_layers(self.lane, self._pocket, self._processor.audio_tokenizer)

    def sound(self, request: SynthesizeRequest, knobs: PocketKnobs) -> torch.Tensor:
        """Return the whole speech."""
        processor = self._processor
        said = [{"role": "user", "content": [{"type": "text", "text": request.text}]}]
        prompt: str = processor.apply_chat_template(said, tokenize=False)
        voice = self._voice(request.voice)
        if voice is None:
            inputs = processor(text=prompt, return_tensors="pt")
        else:
            prompt = f"{processor.audio_prompt_bos_token or ''}{processor.audio_token}{prompt}"
            inputs = processor(text=prompt, audio_prompt_latents=[voice], return_tensors="pt")
        made = self._pocket.generate(**inputs.to(self.device), return_dict_in_generate=True, **_chosen(knobs))
        sound: torch.Tensor = processor.decode(made.audio_latents, made.audio_latents_mask)[0]
        return sound

    def _voice(self, voice: str | None) -> torch.Tensor | None:
        if not self._files:
            return None
        name = voice or self.model.voice(None) or next(iter(self._files))
        if name not in self._files:
            raise unknown_voice(self.model.id, name, [*self._files])
        if name not in self._latents:
            try:
                self._latents[name] = self._read(self._files[name])
            except (OSError, ValueError, RuntimeError, YapitError) as error:
                message = f"The voice '{name}' of '{self.model.id}' cannot be read: {error}"
                raise LoadError(message) from error
        return self._latents[name]

    def _read(self, path: Path) -> torch.Tensor:
        """Return the latents of a voice: frames by numbers."""
        if path.suffix == ".safetensors":
            (latents,) = (each.float() for each in load_file(path).values())
            return latents.reshape(-1, latents.shape[-1])
        pcm = decode(path, sample_rate=self.sample_rate, max_seconds=_LONGEST_S)
        samples: NDArray[np.float32] = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
        codec = self._processor.audio_tokenizer
        heard = self._processor.feature_extractor(samples, sampling_rate=self.sample_rate).to(self.device)
        encoded = codec.encode(heard["input_values"].to(codec.dtype), heard["padding_mask"])
        made: torch.Tensor = encoded.latents[0][encoded.latents_mask[0].bool()].float().cpu()
        return made


def _voices(loader: Loader, options: SpeakingOptions) -> dict[str, Path]:
    """Return the files of the voices by their names.

    Raises:
        LoadError: a speaker's file is not there, or the data set cannot be fetched.
    """
    source = options.speaker_embeddings
    folder = loader.repository.folder if source is None else Path(source).expanduser()
    if source is not None and not folder.is_dir():
        folder = Repository.at(source, fetch=not options.skip_download, kind="dataset").folder
    if not options.speakers:
        kept = folder / "voices" if source is None else folder
        found = sorted(path for path in kept.glob("*") if path.suffix in {".safetensors", *_RECORDINGS})
        return {path.stem: path for path in found}
    files = {voice: folder / str(name) for voice, name in options.speakers.items()}
    for voice, path in files.items():
        if not path.is_file():
            raise LoadError(f"There is no file '{options.speakers[voice]}' for the voice '{voice}' in '{folder}'.")
    return files


def _chosen(knobs: PocketKnobs) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if knobs.num_flow_steps is not None:
        chosen["num_flow_steps"] = knobs.num_flow_steps
    if knobs.temperature is not None:
        chosen |= {"do_sample": knobs.temperature > 0, "temperature": knobs.temperature or None}
    return chosen
