"""The model itself: its weights, its noise, and what it makes of phonemes."""

import io
import pickle
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import structlog
import torch
from kokoro import KModel
from loguru import logger
from torch.overrides import TorchFunctionMode

from yapit import BackendError, Context, Lane, LoadError, Model, OutOfMemoryError
from yapit.computing import device_of
from yapit_plugin_kokoro import precision
from yapit_plugin_kokoro.hub import Files
from yapit_plugin_kokoro.options import Options

_log = structlog.get_logger(__name__)
_PARTS = ("bert", "bert_encoder", "predictor", "text_encoder", "decoder")
_PROBE = "həlˈO wˈɜɹld."  # noqa: RUF001 - phonemes are meant


class Sound(NamedTuple):
    """What the model made: samples in [-1, 1] at 24 kHz, and the frames of 600 of them for each phoneme it knows.

    The first and the last frames are those of the silence around the phonemes.
    """

    samples: torch.Tensor
    frames: list[int]


class Voicebox:
    """A loaded Kokoro.

    Args:
        model: the catalog entry.
        context: the device.
        options: of the entry.
        files: of the model.
        lane: that it computes on, and stops for.

    Raises:
        LoadError: the weights cannot be read, or are another model's; or there is no such device.
    """

    def __init__(self, model: Model, context: Context, options: Options, files: Files, lane: Lane) -> None:
        logger.disable("kokoro")  # it writes what is said
        self._id = model.id
        self.device = device_of(context.device)
        if self.device.type == "cpu" and options.threads is not None:
            torch.set_num_threads(options.threads)
        self._kokoro = _loaded(files).to(self.device).eval()
        self.vocabulary: dict[str, int] = self._kokoro.vocab
        self.dtype = torch.float32
        self._noise = torch.Generator(self.device)
        for module in self._kokoro.modules():
            if isinstance(module, torch.nn.ModuleList):
                for layer in module:
                    layer.register_forward_pre_hook(lane.check)
        for name in _PARTS:
            getattr(self._kokoro, name).register_forward_pre_hook(lane.check)

    def settle(self, wanted: str, style: Callable[[int], torch.Tensor]) -> None:
        """Choose the precision: the first that keeps the sound of a word or two, else float32.

        Args:
            wanted: the option; one that is named is taken unheard.
            style: returns the style of a voice for a count of phonemes.
        """
        tried = precision.candidates(wanted, self.device)
        if not tried:
            return
        plain = self._kokoro.decoder
        ids = [*self.vocabulary]
        probe = "".join(each for each in _PROBE if each in self.vocabulary) or "".join(ids[:8])
        reference = None if wanted != "auto" else self.make(probe, style(len(probe)), 1.0, 0)
        for dtype in tried:
            self._kokoro.decoder = precision.Rounded(plain, dtype)
            if reference is None or self._keeps(dtype, reference, self._rounded(probe, style(len(probe)))):
                self.dtype = dtype
                return
        self._kokoro.decoder = plain

    def make(self, phonemes: str, style: torch.Tensor, speed: float, seed: int | None) -> Sound:
        """Return the sound of at most 510 phonemes.

        Args:
            phonemes: of which the model drops those that it does not know.
            style: of the voice, [1, 256].
            speed: 1.0 as trained.
            seed: of the noise in the sound.

        Raises:
            BackendError: the model made numbers that are no sound.
        """
        if seed is None:
            self._noise.seed()
        else:
            self._noise.manual_seed(seed)
        try:
            with ExitStack() as inside:
                inside.enter_context(torch.inference_mode())
                inside.enter_context(_Drawn(self._noise))
                made = self._kokoro(phonemes, style, speed, return_output=True)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(f"The model '{self._id}' has no memory for the text.") from error
        samples = made.audio.float().reshape(-1)
        if not samples.isfinite().all():
            raise BackendError(f"The model '{self._id}' made numbers that are no sound; its dtype may be too small.")
        return Sound(samples, made.pred_dur.reshape(-1).tolist())

    def _rounded(self, probe: str, style: torch.Tensor) -> Sound | None:
        try:
            return self.make(probe, style, 1.0, 0)
        except BackendError:
            return None

    def _keeps(self, dtype: torch.dtype, reference: Sound, made: Sound | None) -> bool:
        apart = float("inf") if made is None else precision.difference_db(made.samples, reference.samples)
        _log.info("precision", model=self._id, dtype=str(dtype).removeprefix("torch."), difference_db=round(apart, 3))
        return apart <= precision.BOUND_DB


class _Drawn(TorchFunctionMode):  # type: ignore[misc]  # torch's types are not read
    """Draws the random numbers of this thread's model from a generator of its own, as torch's would draw them."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.rand:
            return func(*args, **{**(kwargs or {}), "generator": self._generator})
        if func is torch.randn_like:
            return torch.empty_like(*args, **(kwargs or {})).normal_(generator=self._generator)
        return func(*args, **(kwargs or {}))


def _loaded(files: Files) -> KModel:
    """Return the model with its weights, none of them missing; its own way leaves those at random."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # of old ways to norm weights
            kokoro = KModel(repo_id=files.name, config=files.config, model=empty)
        parts = torch.load(files.weights, map_location="cpu", weights_only=True)
        missing = [name for name in _PARTS if name not in parts]
        for name in _PARTS:
            weights = {key.removeprefix("module."): value for key, value in parts.get(name, {}).items()}
            missing += getattr(kokoro, name).load_state_dict(weights, strict=False).missing_keys
    except pickle.UnpicklingError as error:
        message = f"The weights of '{files.name}' are a pickle that is broken, or holds code, which is not run."
        raise LoadError(message) from error
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise LoadError(f"The model cannot be loaded from '{files.name}': {type(error).__name__}: {said}") from error
    if missing:
        raise LoadError(f"The weights of '{files.name}' lack '{missing[0]}' and {len(missing) - 1} more.")
    return kokoro
