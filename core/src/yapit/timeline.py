"""Pieces of speech on one line of time."""

import msgspec
from msgspec import Struct

from yapit import text
from yapit.audio import Joiner, Tempo
from yapit.errors import BackendError
from yapit.schemas import AudioChunk, Word, WordSource


class Part(Struct, frozen=True):
    """A stretch of the encoded response and the words whose times have become known."""

    audio: bytes
    words: tuple[Word, ...] = ()


class Timeline:
    """The pieces of a response joined: their seams, the tempo, and the words' places on the whole.

    Args:
        sample_rate: Hz of the pieces.
        tempo: times which the speech is faster than it was made.
        words: whether anybody wants to know when the words are heard.
    """

    def __init__(self, sample_rate: int, tempo: float, *, words: bool) -> None:
        self._rate = sample_rate
        self._factor = tempo
        self._joiner = Joiner(sample_rate)
        self._tempo = Tempo(sample_rate, tempo)
        self._wanted = words
        self._piece = ""
        self._offset = 0
        self._samples = 0
        self._spoken = self._told = False
        self._last: Word | None = None
        self.word_source: WordSource = "native"

    def begin(self, piece: str, offset: int, *, last: bool) -> None:
        """Start a piece, which stands at `offset` in the whole text."""
        self._joiner.begin(last=last)
        self._piece, self._offset, self._samples = piece, offset, 0
        self._spoken = self._told = False

    def push(self, chunk: AudioChunk) -> Part:
        """Return what of the chunk, and of what was held back, is ready."""
        if chunk.sample_rate != self._rate:
            raise BackendError(f"The model changed its sample rate from {self._rate} to {chunk.sample_rate} Hz.")
        self._samples += len(chunk.pcm) // 2
        self._spoken = self._spoken or not chunk.pause
        audio = self._tempo.process(self._joiner.push(chunk.pcm, pause=chunk.pause))
        if not (self._wanted and chunk.words):
            return Part(audio)
        self._told = True
        if chunk.word_source == "estimated":
            self.word_source = "estimated"
        # The last word waits: where its piece ends is known at the end of the piece.
        known = [] if self._last is None else [self._last]
        known += [self._placed(word) for word in chunk.words]
        self._last = known.pop()
        return Part(audio, tuple(known))

    def end(self) -> tuple[Word, ...]:
        """Return the last word of the piece, or all, estimated, if they are wanted and its model did not say them."""
        if self._last is not None:
            word, self._last = self._last, None
            # Models count the silence after a word as its own; some of it has been cut.
            end_s = round(min(word.end_s, self._joiner.joined_s / self._factor), 3)
            return (msgspec.structs.replace(word, start_s=min(word.start_s, end_s), end_s=end_s),)
        if not self._wanted or self._told or not self._spoken:
            return ()
        self.word_source = "estimated"
        seconds_per_character = self._samples / self._rate / max(1, len(self._piece))
        estimates = (
            Word(
                text=self._piece[start:stop],
                start_s=start * seconds_per_character,
                end_s=stop * seconds_per_character,
                offset=start,
            )
            for start, stop in text.words(self._piece)
        )
        return tuple(self._placed(word) for word in estimates)

    def finish(self) -> bytes:
        """Return what is still held back."""
        return self._tempo.process(self._joiner.finish()) + self._tempo.finish()

    def _placed(self, word: Word) -> Word:
        shift = self._joiner.offset_s
        return Word(
            text=word.text,
            start_s=round(max(0.0, word.start_s + shift) / self._factor, 3),
            end_s=round(max(0.0, word.end_s + shift) / self._factor, 3),
            offset=word.offset + self._offset,
        )
