"""Models that name a letter, or none, for each 20 ms or so (connectionist temporal classification)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import transformers
from msgspec import Struct
from numpy.typing import NDArray

from yapit import Segment, TranscribeRequest, Word
from yapit_plugin_hf_generic.listening.ears import Ear
from yapit_plugin_hf_generic.listening.windows import SILENCE, Samples, Window, overlapping
from yapit_plugin_hf_generic.loading import Loader

_MARKS = ("\u2581", "\u0120")  # a token that begins with one begins a word
_PROBE_S = 10
_PAUSE_S, _LONGEST_S = 0.8, 15.0  # what ends a segment


class Token(Struct):
    """A letter or a piece of a word: the frames in which it was heard, and the sum of their log-probabilities."""

    id: int
    start: int
    end: int
    logprob: float

    @property
    def average(self) -> float:
        """Log-probability of a frame."""
        return self.logprob / (self.end - self.start)


class Speller:
    """Makes words of the likeliest token of each frame, which may come in portions.

    Args:
        tokenizer: of the model.
        pause: frames without a sound that end a word, whatever follows.
    """

    def __init__(self, tokenizer: Any, pause: int) -> None:
        self._pause = pause
        self._blank: int = tokenizer.pad_token_id
        pieces: dict[str, int] = tokenizer.get_vocab()
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        self._delimiter = None if delimiter is None else pieces.get(delimiter)
        self._special = {*tokenizer.all_special_ids, self._blank} - {self._delimiter}
        self._beginnings = {number for piece, number in pieces.items() if piece.startswith(_MARKS)}
        # Without either, as in Chinese, a pause is all that parts words.
        self.spaced = self._delimiter is not None or bool(self._beginnings)
        self._word: list[Token] = []
        self._previous = self._blank

    def hear(self, ids: NDArray[np.int64], logprobs: NDArray[np.float32], first: int) -> Iterator[list[Token]]:
        """Take further frames, whose first has the number `first`, and yield the words that have ended."""
        frame = first
        for frame, (token, logprob) in enumerate(zip(ids.tolist(), logprobs.tolist(), strict=True), first):
            repeated, self._previous = token == self._previous, token
            if token in self._special:
                continue
            if token == self._delimiter:
                yield from self.finish()
            elif repeated and self._word:
                self._word[-1].end, self._word[-1].logprob = frame + 1, self._word[-1].logprob + logprob
            else:
                if token in self._beginnings or (not self.spaced and self._paused(frame)):
                    yield from self.finish()
                self._word.append(Token(token, frame, frame + 1, logprob))
        if self._paused(frame):
            yield from self.finish()

    def finish(self) -> Iterator[list[Token]]:
        """Yield the word that has begun, if one has."""
        word, self._word = self._word, []
        if word:
            yield word

    def _paused(self, frame: int) -> bool:
        return bool(self._word) and frame - self._word[-1].end >= self._pause


class CTCEar(Ear):
    """Hears with a model that names a letter, or none, for each frame.

    Windows overlap, and the frames in their middles are put together, as transformers' pipeline does.
    """

    def __init__(self, loader: Loader, window_s: float) -> None:
        super().__init__(loader, transformers.AutoModelForCTC, window_s)
        self._frame = self._samples_of_frame()  # windows are whole frames
        self._frame_s = self._frame / self.sample_rate

    def hear(self, samples: Samples, request: TranscribeRequest) -> Iterator[Segment]:
        """Yield a segment for each stretch between pauses, or that ends with its window."""
        speller = Speller(self.tokenizer, round(_PAUSE_S / self._frame_s))
        length_s = len(samples) / self.sample_rate
        for window, last in overlapping(samples, self._whole(self.window_s), self._whole(self.window_s / 6)):
            words = [*speller.hear(*self._frames(window)), *(speller.finish() if last else ())]
            for group in self._grouped(words):
                yield self._segment(group, request, length_s, " " if speller.spaced else "")

    def _samples_of_frame(self) -> int:
        """Return how many samples are one step of the model's output; where nothing says, by trying."""
        hop: int = getattr(self.extractor, "hop_length", 1)
        ratio: int | None = getattr(self.model.config, "inputs_to_logits_ratio", None)
        if ratio is not None:
            return ratio * hop if self.kind == "lasr_ctc" else ratio
        silence = np.zeros(_PROBE_S * self.sample_rate, np.float32)
        with torch.inference_mode():
            frames: int = self.model(**self.inputs(silence)).logits.shape[1]
        return round(len(silence) / frames / hop) * hop

    def _whole(self, seconds: float) -> int:
        return round(seconds / self._frame_s) * self._frame

    def _frames(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.float32], int]:
        """Return the likeliest token of each frame and its log-probability, and the number of the first frame."""
        length = len(window.samples)
        total = round(length / self._frame)
        before, after = (round(part / length * total) for part in (window.before, window.after))
        first = window.start // self._frame + before
        if np.abs(window.samples).max() < SILENCE:
            count = total - before - after
            return np.full(count, self.tokenizer.pad_token_id), np.zeros(count, np.float32), first
        with torch.inference_mode():
            # The last window has a frame for what is less than one.
            logits = self.model(**self.inputs(window.samples)).logits[0, before : total - after if after else None]
            best = logits.float().log_softmax(-1).max(-1)
        return best.indices.cpu().numpy(), best.values.cpu().numpy(), first

    def _grouped(self, words: list[list[Token]]) -> Iterator[list[list[Token]]]:
        """Yield the words between two pauses, or as many as are spoken in a while."""
        group: list[list[Token]] = []
        for word in words:
            if group:
                pause_s = (word[0].start - group[-1][-1].end) * self._frame_s
                whole_s = (word[-1].end - group[0][0].start) * self._frame_s
                if pause_s >= _PAUSE_S or whole_s > _LONGEST_S:
                    yield group
                    group = []
            group.append(word)
        if group:
            yield group

    def _segment(self, group: list[list[Token]], request: TranscribeRequest, length_s: float, space: str) -> Segment:
        text, words = "", list[Word]()
        for tokens in group:
            word = str(self._spelt(tokens))
            if word:
                start_s, end_s = tokens[0].start * self._frame_s, min(tokens[-1].end * self._frame_s, length_s)
                words.append(Word(text=word, start_s=start_s, end_s=end_s, offset=len(text) + len(space)))
                text += space + word
        every = [token for tokens in group for token in tokens]
        return Segment(
            text=text,
            start_s=every[0].start * self._frame_s,
            end_s=min(every[-1].end * self._frame_s, length_s),
            words=tuple(words) if request.word_times else (),
            language=self.language(request),
            tokens=tuple(token.id for token in every),
            average_logprob=sum(token.average for token in every) / len(every),
        )

    def _spelt(self, tokens: list[Token]) -> str:
        # Grouped already: what stands twice was heard twice.
        spelt: str = self.tokenizer.decode([token.id for token in tokens], group_tokens=False).strip()
        return spelt
