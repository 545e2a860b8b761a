"""PCM in, PCM out: decode uploads, resample, change tempo, join sentences, encode responses.

All PCM is 16-bit signed little-endian mono `bytes`, whole samples, at a stated `sample_rate` in Hz.
Importing this package costs numpy and nothing else; PyAV (FFmpeg) is imported by the first thing that needs a codec.
Nothing here is shared between objects: one object belongs to one thread at a time, any number may run side by side.
"""

from yapit.audio.decoding import decode, decode_chunks
from yapit.audio.encoding import Encoder, encode
from yapit.audio.filters import Resampler, Tempo
from yapit.audio.formats import FORMATS, PCM_RATE, Format
from yapit.audio.seams import Joiner

__all__ = [
    "FORMATS",
    "PCM_RATE",
    "Encoder",
    "Format",
    "Joiner",
    "Resampler",
    "Tempo",
    "decode",
    "decode_chunks",
    "encode",
]
