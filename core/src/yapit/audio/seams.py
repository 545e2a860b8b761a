"""Joins the pieces of a speech, a sentence each, without clicks and without long pauses."""

import math
import sys

import numpy as np
from numpy.typing import NDArray

from yapit.audio.filters import SAMPLE_BYTES

_HELD_S = 10  # silence stored until it is known to lie inside a piece; what exceeds it is counted and given back as 0
_FOREVER = sys.maxsize
_BLOCK = 2048  # samples looked at together
_GLANCE = 8  # samples looked at one by one


class Joiner:
    """Trims the silence at the edges of pieces and lets each fade into the next.

    `begin` a piece, `push` its PCM in any chunks, `begin` the next, and so on; `finish` returns the rest. A seam is an
    equal-power cross-fade, so each one shortens the whole by `fade_ms`. Nothing is faded at the very start and end: a
    single piece without silence at its edges comes out exactly as it went in. Held back are `fade_ms` of sound, the
    silence before a piece until its sound begins, and of the silence after it what exceeds `tail_ms`.

    Silence is every sample of at most `silence_dbfs`. It is trimmed *to* a bound and never inside of a piece (beyond 10
    s of it only its length is kept, not its noise). A piece that is silence throughout keeps at most `lead_ms +
    tail_ms`.

    Args:
        sample_rate: Hz of all pieces.
        fade_ms: length of the cross-fade.
        lead_ms: silence kept before the sound of a piece; `math.inf` keeps all.
        tail_ms: silence kept after the sound of a piece; `math.inf` keeps all.
        silence_dbfs: the loudest peak that counts as silence, in dB of full scale; breath and room noise of a
            synthesizer lie below -50, the softest fricatives above.
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        fade_ms: float = 5,
        lead_ms: float = 50,
        tail_ms: float = 200,
        silence_dbfs: float = -50,
    ) -> None:
        self._sample_rate = sample_rate
        self._fade = _samples(fade_ms, sample_rate)
        self._bounds = _samples(lead_ms, sample_rate), _samples(tail_ms, sample_rate), _HELD_S * sample_rate
        self._level = int(32768 * 10 ** (silence_dbfs / 20))
        self._piece = _Piece(self._level, *self._bounds)
        self._joined = 0  # samples, with those in `_end`
        self._start = 0  # where in them this piece begins
        self._end = b""  # the last samples joined, at most a fade
        self._head = bytearray()  # the first samples of this piece, until they suffice for its seam
        self._seam_open = True
        self._hold = self._fade
        self._ready: list[bytes] = []

    @property
    def offset_s(self) -> float:
        """Seconds to add to a time inside the piece being pushed to get its time in the output.

        Read it after pushing the chunk the time belongs to and before the next `begin`. It counts the output from its
        first sample, and takes the silence cut before the piece and the cross-fades into account. It is final as soon
        as a sample above the silence level was pushed. Of a piece that is shorter than the fade the times are early by
        what it lacks. A time within the silence that was cut maps to before the piece: limit the sum to 0 or to the
        last time reported.
        """
        start = self._joined - len(self._end) // SAMPLE_BYTES if self._seam_open else self._start
        return (start - self._piece.lead_cut) / self._sample_rate

    @property
    def joined_s(self) -> float:
        """Seconds joined so far, with what is held back for the next fade."""
        return self._joined / self._sample_rate

    def begin(self, *, last: bool = False) -> None:
        """Say that the next PCM belongs to a new piece; nothing of the `last` one is held back for a fade."""
        if self._piece.pushed:
            self._end_piece()
            self._piece = _Piece(self._level, *self._bounds)
            self._seam_open = True
        self._hold = 0 if last else self._fade

    def push(self, pcm: bytes, *, pause: bool = False) -> bytes:
        """Take any number of samples of the current piece and return those that are ready, perhaps none.

        A `pause` is silence that is never trimmed.
        """
        self._accept(self._piece.pause(pcm) if pause else self._piece.push(pcm))
        return self._take()

    def finish(self) -> bytes:
        """End the last piece and return all that was held back."""
        self._end_piece()
        self._ready.append(self._end)
        self._end = b""
        return self._take()

    def _take(self) -> bytes:
        taken = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
        self._ready.clear()
        return taken

    def _end_piece(self) -> None:
        self._accept(self._piece.finish())
        if self._seam_open and self._head:
            self._close_seam()

    def _accept(self, pcm: bytes) -> None:
        if not self._seam_open:
            self._append(pcm)
            return
        if not (self._end or self._head) and pcm:
            # The first piece has no seam: its samples pass through uncopied.
            self._seam_open = False
            self._start = self._joined
            self._append(pcm)
            return
        self._head += pcm
        if self._head and len(self._head) >= len(self._end):
            self._close_seam()

    def _close_seam(self) -> None:
        """Fade the end of what is joined into the head of the piece; the shorter of the two gives the length."""
        end, head = self._end, bytes(self._head)
        size = min(len(end), len(head))
        self._joined -= len(end) // SAMPLE_BYTES
        self._end = b""
        self._head.clear()
        self._seam_open = False
        self._start = self._joined
        self._append(end[: len(end) - size] + _cross_fade(end[len(end) - size :], head[:size]) + head[size:])

    def _append(self, pcm: bytes) -> None:
        self._joined += len(pcm) // SAMPLE_BYTES
        joined = self._end + pcm
        split = max(0, len(joined) - self._hold * SAMPLE_BYTES)
        self._ready.append(joined[:split])
        self._end = joined[split:]


class _Piece:
    """Trims the edges of one piece; counts are samples.

    Args:
        level: the highest absolute value of silence.
        lead: silence kept before the sound.
        tail: silence kept after the sound.
        held: silence stored at most, besides what is kept.
    """

    def __init__(self, level: int, lead: int, tail: int, held: int) -> None:
        self._level = level
        self._shift, self._span = np.int16(level), np.uint16(2 * level)
        self._lead, self._tail, self._held = lead, tail, held
        self.pushed = False
        self._leading = lead < _FOREVER
        self._seen = 0  # silence before the sound
        self._run = 0  # silence let through since the last sound
        self._silence = bytearray()  # before the sound: the newest of it; later: what exceeds `tail`
        self._counted = 0  # silence that exceeds even what is stored

    @property
    def lead_cut(self) -> int:
        """Samples left out before the sound, as far as is known."""
        return max(0, self._seen - self._lead)

    def push(self, pcm: bytes) -> bytes:
        """Return what is certain to be kept."""
        self.pushed = True
        samples = np.frombuffer(pcm, "<i2")
        first = self._loud_from(samples) * SAMPLE_BYTES
        if first == len(pcm):
            return self._wait(pcm) if self._leading else self._run_out(pcm)
        end = len(pcm) - self._loud_from(samples[::-1]) * SAMPLE_BYTES
        before, start = self._before(pcm, first)
        if len(pcm) - end <= self._tail * SAMPLE_BYTES:
            # The common case takes no copy: a chunk without long silence is returned as it came.
            self._run = (len(pcm) - end) // SAMPLE_BYTES
            return before + pcm[start:]
        return before + pcm[start:end] + self._run_out(pcm[end:])

    def pause(self, pcm: bytes) -> bytes:
        """Return the silence, which counts as sound."""
        self.pushed = True
        before, _ = self._before(pcm, 0)
        self._run = 0
        return before + pcm

    def _before(self, pcm: bytes, first: int) -> tuple[bytes, int]:
        """Return what was held and now goes out before the chunk, and where in the chunk its kept part starts."""
        if not self._leading:
            return self._resume(), 0
        if self._silence or first > self._lead * SAMPLE_BYTES:
            return self._begin_sound(pcm[:first]), first
        self._seen = first // SAMPLE_BYTES
        self._leading = False
        return b"", 0

    def _loud_from(self, samples: NDArray[np.int16]) -> int:
        """Return how many samples stand before the first loud one; in blocks, since it is mostly near the edge."""
        # In mid-speech it is at the very edge, where looking costs less than calling numpy.
        for index, sample in enumerate(samples[:_GLANCE].tolist()):
            if not -self._level <= sample <= self._level:
                return index
        for start in range(0, len(samples), _BLOCK):
            block = samples[start : start + _BLOCK]
            # One comparison for both signs: as unsigned numbers the silent ones lie side by side.
            loud = (block + self._shift).view(np.uint16) > self._span
            index = int(loud.argmax())
            if loud[index]:
                return start + index
        return len(samples)

    def finish(self) -> bytes:
        """Return what is left of a piece without sound; else all that is left is too much silence."""
        return bytes(self._silence) if self._leading else b""

    def _wait(self, silence: bytes) -> bytes:
        self._seen += len(silence) // SAMPLE_BYTES
        self._silence += silence
        most = max(self._lead, min(self._lead + self._tail, self._held))
        del self._silence[: max(0, len(self._silence) - most * SAMPLE_BYTES)]
        return b""

    def _begin_sound(self, silence: bytes) -> bytes:
        self._wait(silence)
        self._leading = False
        kept = self._silence[max(0, len(self._silence) - self._lead * SAMPLE_BYTES) :]
        self._silence.clear()
        return bytes(kept)

    def _resume(self) -> bytes:
        """Return the silence that turns out to lie inside of the piece."""
        inside = bytes(self._silence) + bytes(self._counted * SAMPLE_BYTES)
        self._silence.clear()
        self._run = self._counted = 0
        return inside

    def _run_out(self, silence: bytes) -> bytes:
        """Let silence through up to the tail's bound, keep what exceeds it, count what exceeds even that."""
        split = (self._tail - self._run) * SAMPLE_BYTES
        kept, rest = silence[:split], silence[split:]
        self._run += len(kept) // SAMPLE_BYTES
        room = self._held * SAMPLE_BYTES - len(self._silence)
        self._silence += rest[:room]
        self._counted += len(rest[room:]) // SAMPLE_BYTES
        return kept


def _samples(duration_ms: float, sample_rate: int) -> int:
    return _FOREVER if math.isinf(duration_ms) else round(duration_ms * sample_rate / 1000)


def _cross_fade(end: bytes, head: bytes) -> bytes:
    """Mix two stretches of one length at constant power; the sum saturates instead of wrapping."""
    fading, rising = np.frombuffer(end, "<i2"), np.frombuffer(head, "<i2")
    angle = (np.arange(len(fading)) + 0.5) * (np.pi / 2 / max(1, len(fading)))
    mixed = fading * np.cos(angle) + rising * np.sin(angle)
    pcm: bytes = mixed.round().clip(-32768, 32767).astype("<i2").tobytes()
    return pcm
