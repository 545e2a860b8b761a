"""What all that speak have in common: a lane to compute on, a seed, checked options, and whole numbers as sound."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated, Any, ClassVar

import numpy as np
import structlog
import torch
from msgspec import Meta, Struct, field
from numpy.typing import NDArray

from yapit import AudioChunk, BackendError, InvalidInputError, Lane, Synthesizer, SynthesizeRequest
from yapit.errors import did_you_mean
from yapit.options import request_options
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import Options

_log = structlog.get_logger(__name__)


class SpeakingOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a catalog entry may say to a model that speaks.

    Args:
        vocoder: folder or repo id of the model that makes sound of spectrograms, where that is another one.
        speaker_embeddings: folder, zip file, or repo id of a data set, with a file for each voice; the model's own
            repository when None.
        speakers: voices, and the file, or the number inside the model, that each stands for. A file may be named by
            how its name begins. All files are voices, and all numbers, when empty.
    """

    vocoder: str | None = None
    speaker_embeddings: str | None = None
    speakers: dict[str, str | int] = field(default_factory=dict)


class Knobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request's `options`, or else the entry's `defaults`, may set for any model that speaks.

    Args:
        seed: makes the same speech of the same request.
    """

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


class Speaker(Synthesizer):
    """A loaded model that makes all the sound of a piece of text at once, as transformers' classes do.

    Its calls run one after the other on one thread. What is cut short stops before the model's next layer.

    Args:
        loader: of the model.
    """

    knobs: ClassVar[type[Knobs]] = Knobs
    sample_rate: int  # Hz

    def __init__(self, loader: Loader) -> None:
        self.model = loader.model
        self.device = loader.device
        self.lane = Lane(f"speak-{loader.model.id}")

    async def synthesize(self, request: SynthesizeRequest) -> AsyncIterator[AudioChunk]:
        """Yield the speech in one chunk, or nothing for a text without words.

        Raises:
            InvalidInputError: the voice or an option is unknown, or the text is in a script the model cannot read.
        """
        knobs = request_options(self.model, request.options, self.knobs)
        if not any(character.isalnum() for character in request.text):
            return
        async with aclosing(self.lane.stream(lambda: self._speak(request, knobs))) as chunks:
            async for chunk in chunks:
                yield chunk

    def close(self) -> None:
        """End the thread."""
        self.lane.close()

    @abstractmethod
    def sound(self, request: SynthesizeRequest, knobs: Any) -> torch.Tensor | NDArray[np.float32] | None:
        """Return the speech as floats in [-1, 1] at `sample_rate`, None if the text has nothing to say."""

    def _speak(self, request: SynthesizeRequest, knobs: Knobs) -> Iterator[AudioChunk]:
        with seeded(knobs.seed, self.device), torch.inference_mode():
            sound = self.sound(request, knobs)
        if sound is not None:
            yield AudioChunk.from_samples(self._finite(sound), self.sample_rate)

    def _finite(self, sound: torch.Tensor | NDArray[np.float32]) -> NDArray[np.float32]:
        samples = sound.detach().float().cpu().numpy() if isinstance(sound, torch.Tensor) else np.asarray(sound)
        good = np.isfinite(samples)
        if good.all():
            return samples
        if not good.any():
            raise BackendError(
                f"The model '{self.model.id}' made numbers that are no sound; its dtype may be too small."
            )
        _log.warning("sound_broken", model=self.model.id, samples=int(np.count_nonzero(~good)))
        return np.where(good, samples, np.float32(0))


def unknown_voice(model_id: str, voice: str, known: list[str]) -> InvalidInputError:
    """Return the error that lists the voices there are."""
    message = f"The model '{model_id}' has no voice '{voice}'. {did_you_mean(voice, known)}"
    return InvalidInputError(message, param="voice")


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw the same random numbers each time, and leave those of others as they were."""
    if seed is None:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
