"""Ears for the tests: pocketsphinx and its bundled English model, with the preparation that synthetic speech needs."""

import functools
import re
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pocketsphinx

_RATE = 16_000
_PAD_S = 0.2
# Digital silence breaks the front end; this much noise brings the error rate down from 0.4 to 0.17.
_DITHER_SIGMA = 3e-4


def hear(pcm: bytes, sample_rate: int) -> str:
    """Return the words that any English speech sounds like, in lower case and without punctuation."""
    return _transcribe(_free_decoder(), pcm, sample_rate)


def hear_one_of(pcm: bytes, sample_rate: int, sentences: list[str]) -> str:
    """Return the one of the sentences that the speech sounds like, normalised; "" if it sounds like none."""
    return _transcribe(_choice_decoder(tuple(map(normalised, sentences))), pcm, sample_rate)


def word_error_rate(reference: str, heard: str) -> float:
    """Return the substitutions, insertions and deletions for each word of the reference."""
    expected, words = normalised(reference).split(), normalised(heard).split()
    row = list(range(len(words) + 1))
    for i, wanted in enumerate(expected, 1):
        above, row[0] = row[:], i
        for j, word in enumerate(words, 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != wanted))
    return row[-1] / len(expected)


def normalised(text: str) -> str:
    """Return the text's words in lower case, single spaces between them."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


@functools.cache
def _free_decoder() -> Any:
    return pocketsphinx.Decoder(samprate=_RATE, loglevel="FATAL")


@functools.cache
def _choice_decoder(sentences: tuple[str, ...]) -> Any:
    decoder = pocketsphinx.Decoder(samprate=_RATE, lm=None, loglevel="FATAL")
    grammar = f"#JSGF V1.0;\ngrammar one;\npublic <one> = {' | '.join(sentences)};\n"
    decoder.add_jsgf_string("one", grammar)
    decoder.activate_search("one")
    return decoder


def _transcribe(decoder: Any, pcm: bytes, sample_rate: int) -> str:
    decoder.start_utt()
    decoder.process_raw(_prepared(pcm, sample_rate), no_search=False, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


def _prepared(pcm: bytes, sample_rate: int) -> bytes:
    speech = _resampled(np.frombuffer(pcm, "<i2"), sample_rate).astype(np.float32) / 32768
    padded = np.pad(speech, round(_PAD_S * _RATE))
    padded += np.random.default_rng(0).normal(0, _DITHER_SIGMA, len(padded)).astype(np.float32)
    return (padded * 32767).clip(-32768, 32767).astype("<i2").tobytes()


def _resampled(samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.int16]:
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = sample_rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray()[0] for part in frames])
