"""What Whisper may write next, for transformers: its rules for times, and tokens that never come."""

from types import SimpleNamespace
from typing import Any

import torch
from msgspec import Struct
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from yapit_plugin_whisper.engines.facts import Facts


class Tally(LogitsProcessor):  # type: ignore[misc]  # its types are not looked at
    """Makes log-probabilities of what the rules leave, and adds up those of the tokens that are taken.

    Args:
        end: the token after a text.
        begin: length of the prompt.
        beams: sentences that are followed at once.
    """

    def __init__(self, end: int, begin: int, beams: int) -> None:
        self._end = end
        self._begin = begin
        # Of each beam, a search goes on with its best continuations only; all would be 50,000 numbers a step.
        self._kept = 2 * beams if beams > 1 else 0
        self._steps: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._last: torch.Tensor | None = None
        self._total: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities; what was taken of the last ones stands at the end of `input_ids`."""
        logprobs = scores.float().log_softmax(-1)
        if self._kept:
            best = logprobs.topk(min(self._kept, logprobs.shape[-1]))
            self._steps.append((best.values, best.indices))
        else:
            self._count(input_ids)
            self._last = logprobs
        return logprobs

    def totals(self, sequences: torch.Tensor, beam_indices: torch.Tensor | None) -> list[float]:
        """Return the sum for each sequence.

        Args:
            sequences: with their prompts.
            beam_indices: the beam of each step, as transformers returns them; None without beams.
        """
        if self._kept and beam_indices is not None:
            texts = sequences[:, self._begin :].tolist()
            return [self._of_beam(text, row) for text, row in zip(texts, beam_indices.tolist(), strict=True)]
        self._count(sequences)
        self._last = None
        return [0.0] * len(sequences) if self._total is None else self._total.tolist()

    def _of_beam(self, text: list[int], row: list[int]) -> float:
        total = 0.0
        for (values, indices), token, beam in zip(self._steps, text, row, strict=False):
            if beam < 0:
                break
            total += float(values[beam][indices[beam] == token].sum())
        return total

    def _count(self, sequences: torch.Tensor) -> None:
        if self._last is None:
            return
        gained = self._last.gather(-1, sequences[:, -1:])[:, 0]
        # A sentence that has ended is filled up with its end.
        gained = gained.masked_fill((sequences[:, self._begin : -1] == self._end).any(-1), 0.0)
        self._total = gained if self._total is None else self._total + gained


class Rules(Struct, frozen=True, kw_only=True):
    """The tokens that are no text, and those a text does not begin with."""

    start: int
    end: int
    no_timestamps: int
    no_speech: int
    never_first: tuple[int, ...]

    @classmethod
    def of(cls, facts: Facts, generation: Any) -> "Rules":
        """Return the rules of a model.

        Args:
            facts: about it.
            generation: its configuration for generating; what older ones lack is found out.
        """
        end = facts.token("<|endoftext|>")
        blank = facts.tokenizer.encode(" ", add_special_tokens=False).ids
        return cls(
            start=facts.token("<|startoftranscript|>"),
            end=end,
            no_timestamps=facts.token("<|notimestamps|>"),
            no_speech=facts.token("<|nospeech|>", "<|nocaptions|>"),
            never_first=tuple(getattr(generation, "begin_suppress_tokens", None) or [*blank[:1], end]),
        )

    def processors(
        self, prompt: list[int], never: tuple[int, ...], latest: int, *, begin: bool, beams: int
    ) -> LogitsProcessorList:
        """Return what is applied to the logits of each step.

        Args:
            prompt: of one window; with the token for no times in it, none are written.
            never: tokens that are not written.
            latest: number of the latest time a text may begin with.
            begin: keep a text from beginning with a space, or its end.
            beams: sentences that are followed at once.
        """
        found: list[Any] = []
        never = tuple(token for token in never if token >= 0)
        if never:
            found.append(SuppressTokensLogitsProcessor(list(never)))
        if begin:
            found.append(SuppressTokensAtBeginLogitsProcessor(list(self.never_first), len(prompt)))
        if self.no_timestamps not in prompt:
            settings: Any = SimpleNamespace(
                no_timestamps_token_id=self.no_timestamps,
                eos_token_id=self.end,
                bos_token_id=self.end,
                max_initial_timestamp_index=latest,
            )
            found.append(WhisperTimeStampLogitsProcessor(settings, begin_index=len(prompt)))
        return LogitsProcessorList([*found, Tally(self.end, len(prompt), beams)])

    def text(self, tokens: list[int]) -> list[int]:
        """Return what stands before the end."""
        return tokens[: tokens.index(self.end)] if self.end in tokens else tokens
