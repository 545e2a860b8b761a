"""Whisper's way through a recording, as faster-whisper goes it, over either engine."""

import logging
from typing import Any

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import TranscriptionOptions

from yapit_plugin_whisper.engines.converted import ConvertedWhisper
from yapit_plugin_whisper.engines.facts import Facts, Features
from yapit_plugin_whisper.engines.native import TorchWhisper
from yapit_plugin_whisper.sound import Spectrum

_STRIDE = 2  # frames that are one position of the encoder
_LONGEST = 448  # tokens of prompt and text
_TIME_PRECISION_S = 0.02


class Algorithm(WhisperModel):  # type: ignore[misc]  # faster-whisper has no types
    """faster-whisper's algorithm over an engine that is loaded already; nothing is fetched.

    Args:
        facts: about the model.
        engine: that computes.
    """

    def __init__(self, facts: Facts, engine: TorchWhisper | ConvertedWhisper) -> None:
        # Its own constructor would load the weights itself, and ask the hub for a tokenizer.
        self.logger = logging.getLogger(__name__)
        self.model: Any = engine
        self.hf_tokenizer = facts.tokenizer
        self.suppressed = facts.suppressed()
        self.feat_kwargs = {"feature_size": engine.n_mels} | facts.sound
        self.feature_extractor = Spectrum(**self.feat_kwargs)
        self.input_stride = _STRIDE
        self.num_samples_per_token = self.feature_extractor.hop_length * _STRIDE
        self.frames_per_second = self.feature_extractor.sampling_rate // self.feature_extractor.hop_length
        self.tokens_per_second = self.feature_extractor.sampling_rate // self.num_samples_per_token
        self.time_precision = _TIME_PRECISION_S
        self.max_length = min(_LONGEST, int(facts.config.get("max_target_positions") or _LONGEST))
        self._end = facts.token("<|endoftext|>")
        self._allowed: tuple[str, ...] = ()
        self._probable: list[tuple[int, float]] | None = None
        self._window: tuple[Features, Any] | None = None

    @property
    def window_s(self) -> float:
        """Length of what is listened to at once, in seconds."""
        return float(self.feature_extractor.nb_max_frames * self.feature_extractor.time_per_frame)

    def allow(self, languages: tuple[str, ...]) -> None:
        """Find one of these languages; any when empty."""
        self._allowed = languages

    def note_tokens(self, *, wanted: bool) -> None:
        """Keep how likely each token of a window's text was, or do not."""
        self._probable = [] if wanted else None

    def likelihoods(self, tokens: list[int]) -> list[tuple[int, float]]:
        """Return a segment's tokens that are text, and their probabilities; segments are asked for in their order."""
        text = [token for token in tokens if token < self._end]
        known = self._probable or []
        for begin in range(len(known) - len(text) + 1):
            if [token for token, _ in known[begin : begin + len(text)]] == text:
                self._probable = known[begin + len(text) :]
                return known[begin : begin + len(text)]
        return []

    def forget(self) -> None:
        """Give back the memory of the last window."""
        self._window = None

    def encode(self, features: Features) -> Any:
        """Return what the encoder makes of one or more windows; the same window is not encoded twice running."""
        batch = features.reshape(-1, *features.shape[-2:])
        batch = self._filled(batch)
        if self._window is None or not np.array_equal(self._window[0], batch):
            # A view would be of the whole spectrum.
            self._window = (batch.copy(), self.model.encode(batch))
        return self._window[1]

    def _filled(self, batch: Features) -> Features:
        """Return windows of the model's own length.

        faster-whisper fills each up to 30 s with numbers that sound like a murmur, which OpenAI's models are used to.
        A model with another window was taught with transformers, which fills up with silence.
        """
        frames = self.feature_extractor.nb_max_frames
        if batch.shape[-1] == frames:
            return np.ascontiguousarray(batch, np.float32)
        windows = np.ascontiguousarray(batch[..., :frames], np.float32)
        for window in windows:
            told = np.flatnonzero(window.any(axis=0))
            window[:, told[-1] + 1 if len(told) else 0 :] = window.min()
        return windows

    def detect_language(self, *arguments: Any, **named: Any) -> tuple[str, float, list[tuple[str, float]]]:
        """Return the likeliest language of those that are allowed, its probability, and that of each."""
        best, probability, every = super().detect_language(*arguments, **named)
        among = [pair for pair in every if pair[0] in self._allowed]
        if among:
            best, probability = max(among, key=lambda pair: pair[1])
        return best, probability, every

    def get_prompt(
        self,
        tokenizer: Tokenizer,
        previous_tokens: list[int],
        without_timestamps: bool = False,  # noqa: FBT001, FBT002 - the signature is faster-whisper's
        prefix: str | None = None,
        hotwords: str | None = None,
    ) -> list[int]:
        """Return the prompt of a window; keywords and what was said before are cut so that half the room is left."""
        room = self.max_length // 2 - 1
        if hotwords:
            tokens = tokenizer.encode(" " + hotwords.strip())[:room]
            hotwords = tokenizer.decode(tokens)
            left = room - len(tokens)
            previous_tokens = previous_tokens[-left:] if left > 0 else []
        found: list[int] = super().get_prompt(tokenizer, previous_tokens, without_timestamps, prefix, hotwords)
        return found

    def generate_with_fallback(
        self, encoder_output: Any, prompt: list[int], tokenizer: Tokenizer, options: TranscriptionOptions
    ) -> Any:
        """Return what is written for a window, and keep how likely its tokens were if that was asked for."""
        found = super().generate_with_fallback(encoder_output, prompt, tokenizer, options)
        if self._probable is not None:
            text = [token for token in found[0].sequences_ids[0] if token < self._end]
            frames = self.feature_extractor.nb_max_frames
            (timed,) = self.model.align(encoder_output, tokenizer.sot_sequence, [text], frames) if text else (None,)
            self._probable = list(zip(text, timed.text_token_probs, strict=True)) if timed else []
        return found
