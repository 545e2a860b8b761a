"""Text from speech: the models of transformers that write down sound, long recordings window by window."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Annotated

import transformers
from msgspec import Meta
from transformers.models.auto import modeling_auto as auto

from yapit import Context, InvalidInputError, Lane, LoadError, Model, Segment, Transcriber, TranscribeRequest
from yapit_plugin_hf_generic.listening.ctc import CTCEar
from yapit_plugin_hf_generic.listening.ears import Ear, GeneratingEar, primary
from yapit_plugin_hf_generic.listening.windows import SHORTEST_S, resampled
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import Options, options_of
from yapit_plugin_hf_generic.stopping import stop_between_layers


class ListeningOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a catalog entry may say to a model that listens.

    Args:
        window_s: of a recording that are heard at once.
    """

    window_s: Annotated[float, Meta(ge=1, le=120)] = 30.0


class HFTranscriber(Transcriber):
    """Writes down speech, one segment or more for each window of the recording, as soon as the window is heard.

    Raises:
        LoadError: the model cannot be loaded, or transformers has nothing that listens with it.
    """

    def __init__(self, model: Model, context: Context) -> None:
        options = options_of(model, ListeningOptions)
        loader = Loader(model, context, options)
        self.model = model
        self._ear = _ear(loader, options)
        self._lane = Lane(f"listen-{model.id}")
        stop_between_layers(self._lane, self._ear.model)

    async def transcribe(self, request: TranscribeRequest) -> AsyncIterator[Segment]:
        """Yield the segments; none for silence.

        Raises:
            InvalidInputError: the model does not know the language, or cannot translate.
        """
        self._check(request)
        async with aclosing(self._lane.stream(lambda: self._segments(request))) as segments:
            async for segment in segments:
                yield segment

    def close(self) -> None:
        """End the thread."""
        self._lane.close()

    def _segments(self, request: TranscribeRequest) -> Iterator[Segment]:
        samples = resampled(request.samples(), request.sample_rate, self._ear.sample_rate)
        if len(samples) >= SHORTEST_S * self._ear.sample_rate:
            yield from self._ear.hear(samples, request)

    def _check(self, request: TranscribeRequest) -> None:
        if request.translate and not self._ear.translates:
            message = f"The model '{self.model.id}' does not translate; it writes down what it hears."
            raise InvalidInputError(message, param="translate")
        known = {primary(tag) for tag in self.model.languages}
        if request.language is not None and known and primary(request.language) not in known:
            message = f"The model '{self.model.id}' knows no '{request.language}'; it knows {', '.join(sorted(known))}."
            raise InvalidInputError(message, param="language")


def _ear(loader: Loader, options: ListeningOptions) -> Ear:
    """Return how the class that `config.json` names listens."""
    kind = str(loader.config.get("model_type", ""))
    names = loader.config.get("architectures") or [""]
    if kind in auto.MODEL_FOR_CTC_MAPPING_NAMES:
        return CTCEar(loader, options.window_s)
    if kind in auto.MODEL_FOR_TDT_MAPPING_NAMES:
        return GeneratingEar(loader, transformers.AutoModelForTDT, options.window_s)
    if kind in auto.MODEL_FOR_RNNT_MAPPING_NAMES:
        return GeneratingEar(loader, transformers.AutoModelForRNNT, options.window_s)
    if kind in auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES and names != ["DiaForConditionalGeneration"]:
        return GeneratingEar(loader, transformers.AutoModelForSpeechSeq2Seq, options.window_s)
    message = (
        f"The model '{loader.model.id}' cannot listen: transformers {transformers.__version__} has no class that "
        f"writes down speech for the type '{kind or 'unknown'}'."
    )
    raise LoadError(message)
