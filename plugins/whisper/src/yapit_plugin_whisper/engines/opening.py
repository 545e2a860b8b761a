"""From a catalog entry to an engine: which one computes, in which precision, converted first if that is faster."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ctranslate2
import structlog
import torch
import transformers

from yapit import Context, LoadError, Model, OutOfMemoryError
from yapit.computing import device_of
from yapit.hub import line
from yapit_plugin_whisper.engines.converted import ConvertedWhisper
from yapit_plugin_whisper.engines.facts import Facts
from yapit_plugin_whisper.engines.native import TorchWhisper
from yapit_plugin_whisper.engines.shelf import Shelf
from yapit_plugin_whisper.options import Options
from yapit_plugin_whisper.repositories import fetched

EngineT = TypeVar("EngineT", TorchWhisper, ConvertedWhisper)
_log = structlog.get_logger(__name__)


class Opener:
    """Loads one model.

    Args:
        model: the catalog entry.
        context: the device, and where converted weights are kept.
        options: what the entry says.
        check: raises where nobody waits any more.

    Raises:
        LoadError: the weights are not here and cannot be fetched, or there is no such device.
    """

    def __init__(self, model: Model, context: Context, options: Options, check: Callable[..., None]) -> None:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        source = model.source or model.id
        self._options = options
        self._check = check
        self._device = device_of(context.device)
        fetch = not options.skip_download
        folder = fetched(source, model.revision, fetch=fetch)
        tokenizer = None if options.tokenizer is None else _folder(options.tokenizer, fetch=fetch)
        self.facts = Facts.of(source, folder, tokenizer)
        self._shelf = Shelf(context.data_dir / "whisper", self.facts)

    def open(self) -> TorchWhisper | ConvertedWhisper:
        """Return the engine, loaded.

        Raises:
            LoadError: the weights cannot be loaded by the engine that is asked for.
        """
        if self.facts.converted:
            if self._options.engine == "transformers":
                message = f"The weights of '{self.facts.name}' are CTranslate2's; transformers cannot load them."
                raise LoadError(message)
            return self._guarded(lambda: self._converted(self.facts.folder))
        if self._options.engine == "ctranslate2":
            return self._guarded(self._shelved)
        return (self._quicker() if self._options.engine == "auto" else None) or self._guarded(self._native)

    def _quicker(self) -> ConvertedWhisper | None:
        """Return the model of CTranslate2 if that is faster here, and works."""
        fits = self._options.dtype in ("auto", "float32") and self._options.attn_implementation is None
        if self._device.type != "cpu" or not fits:
            return None
        try:
            return self._shelved()
        except Exception as error:  # noqa: BLE001 - whatever it is, transformers can do the same
            _log.warning("whisper_not_converted", model=self.facts.name, reason=line(error))
            return None

    def _shelved(self) -> ConvertedWhisper:
        folder = self._shelf.folder()
        try:
            return self._converted(folder)
        except (RuntimeError, ValueError) as error:
            _log.warning("whisper_conversion_damaged", model=self.facts.name, reason=line(error))
            self._shelf.drop()
            return self._converted(self._shelf.folder())

    def _converted(self, folder: Path) -> ConvertedWhisper:
        on_gpu = self._device.type == "cuda"
        loaded = ctranslate2.models.Whisper(
            str(folder),
            device="cuda" if on_gpu else "cpu",
            device_index=self._device.index or 0 if on_gpu else 0,
            compute_type=self._compute_type(on_gpu=on_gpu),
            intra_threads=self._options.threads or (0 if "OMP_NUM_THREADS" in os.environ else _cores()),
        )
        return ConvertedWhisper(self.facts, loaded, self._check)

    def _compute_type(self, *, on_gpu: bool) -> str:
        if self._options.compute_type is not None:
            return self._options.compute_type
        if self._options.dtype != "auto":
            return self._options.dtype
        # What was quantised by its author stays so.
        return "default" if self.facts.converted else ("float16" if on_gpu else "float32")

    def _native(self) -> TorchWhisper:
        if self._device.type == "cpu" and self._options.threads is not None:
            torch.set_num_threads(self._options.threads)
        chosen = self._options.attn_implementation
        loaded = transformers.WhisperForConditionalGeneration.from_pretrained(
            self.facts.folder,
            dtype=self._dtype(),
            weights_only=True,
            **({} if chosen is None else {"attn_implementation": chosen}),
        )
        placed: Any = loaded.eval()
        return TorchWhisper(self.facts, placed.to(self._device), self._check)

    def _dtype(self) -> torch.dtype:
        if self._options.dtype != "auto":
            found: torch.dtype = getattr(torch, self._options.dtype)
            return found
        if self._device.type == "cpu":
            return torch.float32
        stored = str(self.facts.config.get("dtype") or self.facts.config.get("torch_dtype") or "")
        half = self._device.type == "cuda" and torch.cuda.is_bf16_supported() and stored == "bfloat16"
        return torch.bfloat16 if half else torch.float16

    def _guarded(self, load: Callable[[], EngineT]) -> EngineT:
        """Return what `load` returns; what a library raises becomes one sentence."""
        try:
            return load()
        except (LoadError, OutOfMemoryError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            name = self.facts.name
            said = line(error).replace(str(self.facts.folder), name)
            _log.error("load_failed", model=name, exc_info=error)
            raise LoadError(f"The model '{name}' cannot be loaded: {said}") from error


def _folder(source: str, *, fetch: bool) -> Path:
    return fetched(source, None, fetch=fetch)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
