"""From a recording to what a Whisper hears: its rate, its spectrum, and whether anybody speaks."""

from typing import Any

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.vad import VadOptions, get_speech_timestamps
from numpy.typing import NDArray

from yapit.audio import Resampler

RATE = 16_000
SILENCE = 10 ** (-60 / 20)  # of full scale
Samples = NDArray[np.float32]
_BLOCK = 6_000  # frames whose spectrum is made at once: a minute
_LOOK_S = 30.0  # of a recording that are searched for speech at once
_TAIL_S = 60.0  # of a chapter, in which a pause is looked for
# Far below what counts as speech elsewhere: whispering and singing are something to hear, and noise is not.
_ANY = VadOptions(threshold=0.3, min_speech_duration_ms=100)
_FLOOR = 1e-10


class Spectrum(FeatureExtractor):  # type: ignore[misc]  # faster-whisper has no types
    """Whisper's spectrum, made minute by minute: as faster-whisper makes it, in a tenth of the memory."""

    def __call__(self, waveform: Samples, padding: int = 160, chunk_length: int | None = None) -> Any:
        """Return the spectrum, [mels, frames].

        Args:
            waveform: at 16 kHz.
            padding: samples of silence at the end.
            chunk_length: of a window, in seconds; that of the model when None.
        """
        if len(waveform) + padding <= _BLOCK * self.hop_length:
            return super().__call__(waveform, padding, chunk_length)
        half = self.n_fft // 2
        # As the transform does at both ends.
        whole = np.pad(np.pad(waveform.astype(np.float32), (0, padding)), half, mode="reflect")
        frames = 1 + (len(whole) - self.n_fft) // self.hop_length - 1
        window = np.hanning(self.n_fft + 1)[:-1].astype("float32")
        parts = []
        for first in range(0, frames, _BLOCK):
            count = min(_BLOCK, frames - first)
            part = whole[first * self.hop_length : (first + count - 1) * self.hop_length + self.n_fft]
            transformed = self.stft(part, self.n_fft, self.hop_length, window=window, center=False, return_complex=True)
            power = np.abs(transformed.astype("complex64")) ** 2
            parts.append(np.log10(np.clip(self.mel_filters @ power, a_min=_FLOOR, a_max=None)))
        made = np.concatenate(parts, axis=1)
        made = np.maximum(made, made.max() - 8.0)
        return (made + 4.0) / 4.0


def resampled(samples: NDArray[np.int16], rate: int) -> Samples:
    """Return sound as floats in [-1, 1] at 16 kHz."""
    if rate != RATE:
        resampler = Resampler(rate, RATE)
        samples = np.frombuffer(resampler.process(samples.tobytes()) + resampler.finish(), "<i2")
    return samples.astype(np.float32) / np.float32(32768)


def silent(samples: Samples) -> bool:
    """Tell whether there is nothing to hear."""
    return not len(samples) or float(np.abs(samples).max()) < SILENCE


def anybody_speaks(samples: Samples) -> bool:
    """Tell whether there may be speech; ends where the first is found."""
    length = round(_LOOK_S * RATE)
    parts = (samples[start : start + length] for start in range(0, len(samples), length))
    return any(not silent(part) and get_speech_timestamps(part, _ANY) for part in parts)


def pause_before_end(samples: Samples) -> int:
    """Return the sample before which a chapter ends: in the last pause of its last minute."""
    begin = max(len(samples) // 2, len(samples) - round(_TAIL_S * RATE))
    tail = samples[begin:]
    speech = get_speech_timestamps(tail, VadOptions(min_silence_duration_ms=160, speech_pad_ms=30))
    if not speech or speech[-1]["end"] < len(tail) - RATE // 2:
        return len(samples)
    if len(speech) > 1:
        return int(begin + (speech[-2]["end"] + speech[-1]["start"]) // 2)
    width = RATE // 10
    power = np.convolve(tail**2, np.ones(width, np.float32), "valid")
    return int(begin + power.argmin() + width // 2)
