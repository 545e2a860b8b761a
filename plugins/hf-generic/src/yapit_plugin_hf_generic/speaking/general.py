"""Every other class of transformers that speaks."""

from typing import Annotated, Any

import numpy as np
import torch
import transformers
from msgspec import Meta
from numpy.typing import NDArray
from transformers.models.auto import modeling_auto as auto

from yapit import Context, LoadError, SynthesizeRequest
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.needs import vocoder_of
from yapit_plugin_hf_generic.speaking.speaker import Knobs, Speaker, SpeakingOptions
from yapit_plugin_hf_generic.speaking.vocoding import vocoder
from yapit_plugin_hf_generic.stopping import stop_between_layers

# Hz, of the only recordings it was trained with; its configuration does not say.
_UNSAID = dict.fromkeys(("fastspeech2_conformer", "fastspeech2_conformer_with_hifigan"), 22_050)
_RATES = ("sampling_rate", "sample_rate", "audio_sampling_rate", "audio_sample_rate")
_PARTS = ("vocoder_config", "codec_config", "audio_encoder", "audio_config", "token2wav_config")


class GeneratingKnobs(Knobs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request's `options` may set for a model that writes its sound token by token.

    Args:
        temperature: 0 takes the likeliest.
        top_k: takes from this many of the likeliest.
        top_p: takes from the likeliest that have this probability together.
        guidance_scale: how closely it keeps to the text.
        max_new_tokens: at which it is cut off.
    """

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    guidance_scale: Annotated[float, Meta(ge=1, le=20)] | None = None
    max_new_tokens: Annotated[int, Meta(ge=1, le=10_000)] | None = None


def speaker(loader: Loader, options: SpeakingOptions, context: Context) -> Speaker:
    """Return the adapter of a model by what its class can do.

    Raises:
        LoadError: transformers has no class that speaks with it.
    """
    kind = _kind(loader)
    dtype = torch.float32 if loader.device.type == "cpu" and loader.options.dtype == "auto" else None
    model = loader.weights(kind, dtype=dtype)
    if model.can_generate():
        return GeneratingSpeaker(loader, model)
    sounding = None
    source = vocoder_of(loader.config.get("model_type"), options.vocoder)
    if source is not None and type(model) in auto.MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING.values():
        sounding = vocoder(loader, context, transformers.FastSpeech2ConformerHifiGan, source)
    return ForwardSpeaker(loader, model, sounding)


class ForwardSpeaker(Speaker):
    """Speaks with a model that makes all of its sound in one step, or all of the spectrogram for a vocoder."""

    def __init__(self, loader: Loader, model: Any, sounding: Any = None) -> None:
        super().__init__(loader)
        self._speech, self._vocoder = model, sounding
        self._tokenizer = loader.part(transformers.AutoTokenizer)
        self.sample_rate = _sample_rate(loader, model if sounding is None else sounding)
        stop_between_layers(self.lane, model)

    def sound(self, request: SynthesizeRequest, knobs: Knobs) -> torch.Tensor:
        """Return the whole speech."""
        del knobs  # the seed is set already
        tokens = self._tokenizer(request.text, return_tensors="pt").to(self.device)
        made = self._speech(**tokens)
        sound: torch.Tensor = made.waveform if self._vocoder is None else self._vocoder(made.spectrogram)
        return sound.reshape(-1)


class GeneratingSpeaker(Speaker):
    """Speaks with a model that writes sound token by token, through the pipeline that knows what each class wants.

    A voice that is a number is the speaker's; other voices such a model does not have.
    """

    knobs = GeneratingKnobs

    def __init__(self, loader: Loader, model: Any) -> None:
        super().__init__(loader)
        self._kind: str = loader.config.get("model_type", "")
        placed = {} if loader.options.device_map is not None else {"device": loader.device}
        try:
            processor = transformers.AutoProcessor.from_pretrained(
                loader.repository.folder, trust_remote_code=loader.trusted
            )
        except (OSError, ValueError):
            processor = None  # some have a tokenizer only
        tokenizer = getattr(processor, "tokenizer", None) or loader.part(transformers.AutoTokenizer)
        self._pipeline = transformers.TextToAudioPipeline(
            model=model, tokenizer=tokenizer, processor=processor, **placed
        )
        self.sample_rate = self._pipeline.sampling_rate or _sample_rate(loader, model)
        stop_between_layers(self.lane, model)

    def sound(self, request: SynthesizeRequest, knobs: GeneratingKnobs) -> NDArray[np.float32]:
        """Return the whole speech."""
        text = request.text
        if self._kind == "csm" and request.voice is not None and request.voice.isdigit():
            text = f"[{request.voice}]{text}"
        chosen: dict[str, Any] = {
            name: value
            for name in ("top_k", "top_p", "guidance_scale", "max_new_tokens")
            if (value := getattr(knobs, name)) is not None
        }
        if knobs.temperature is not None:
            chosen |= (
                {"do_sample": True, "temperature": knobs.temperature} if knobs.temperature else {"do_sample": False}
            )
        if self._kind.startswith("seamless_m4t") and request.language is not None:
            chosen["tgt_lang"] = request.language
        sound: NDArray[np.float32] = self._pipeline(text, generate_kwargs=chosen)["audio"]
        channels = sound.reshape(-1, sound.shape[-1])
        return np.asarray(channels.mean(axis=0), dtype=np.float32)


def _kind(loader: Loader) -> Any:
    """Return the class that loads the model."""
    kind = str(loader.config.get("model_type", ""))
    if kind in auto.MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES:
        return transformers.AutoModelForTextToSpectrogram
    if kind in auto.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES:
        return transformers.AutoModelForTextToWaveform
    if kind == "dia":
        return transformers.DiaForConditionalGeneration
    if loader.trusted or loader.options.architecture is not None:
        return transformers.AutoModelForTextToWaveform
    names = sorted({*auto.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES, *auto.MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES})
    message = (
        f"The model '{loader.model.id}' cannot speak: transformers {transformers.__version__} has no class for speech "
        f"of the type '{kind or 'unknown'}'; it has {', '.join([*names, 'dia'])}."
    )
    raise LoadError(message)


def _sample_rate(loader: Loader, model: Any) -> int:
    """Return the sample rate that a configuration, or a part of it, names.

    Raises:
        LoadError: none does.
    """
    config = model.config.to_dict()
    for part in (config, *(config.get(name) or {} for name in _PARTS)):
        for name in _RATES:
            rate = part.get(name)
            if isinstance(rate, int) and rate > 0:
                return rate
    rate = loader.model.sample_rate or _UNSAID.get(str(loader.config.get("model_type", "")))
    if rate is not None:
        return rate
    raise LoadError(f"Nothing says the sample rate of '{loader.model.id}'; set `sample_rate` in its catalog entry.")
