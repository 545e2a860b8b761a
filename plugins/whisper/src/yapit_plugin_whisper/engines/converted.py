"""Whisper by CTranslate2: repositories made for it, and those that were converted here."""

from collections.abc import Callable
from typing import Any

import ctranslate2
import numpy as np

from yapit import InvalidInputError
from yapit_plugin_whisper.engines.facts import Facts, Features


class ConvertedWhisper:
    """A model of CTranslate2 that stops where nobody waits any more.

    Args:
        facts: about the model.
        model: that was loaded.
        check: raises where nobody waits any more.
    """

    def __init__(self, facts: Facts, model: Any, check: Callable[[], None]) -> None:
        self._model = model
        self._check = check
        self.languages = facts.languages()
        self.is_multilingual: bool = bool(self.languages)
        self.device: str = model.device
        self.device_index: list[int] = model.device_index
        self.n_mels: int = model.n_mels

    def encode(self, features: Features, *, to_cpu: bool = False) -> Any:
        """Return what the encoder makes of windows, [windows, mels, frames]."""
        self._check()
        return self._model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(features)), to_cpu=to_cpu)

    def generate(self, encoded: Any, prompts: list[list[int]], **options: Any) -> Any:
        """Return what is written for each window."""
        self._check()
        return self._model.generate(encoded, prompts, **options)

    def align(self, encoded: Any, start: list[int], texts: list[list[int]], frames: Any, **options: Any) -> Any:
        """Return when each token of each text was said."""
        self._check()
        return self._model.align(encoded, start, texts, frames, **options)

    def detect_language(self, encoded: Any) -> list[list[tuple[str, float]]]:
        """Return the languages of each window, the likeliest first.

        Raises:
            InvalidInputError: CTranslate2 takes the model for an English one, since its vocabulary has no empty entry,
                as OpenAI's multilingual one has.
        """
        if not self._model.is_multilingual:
            message = "This model cannot tell the language, as it was converted; name it."
            raise InvalidInputError(message, param="language")
        found: list[list[tuple[str, float]]] = self._model.detect_language(encoded)
        return found
