"""Tiny Whispers of random weights, in the layout of OpenAI's repositories, with their very tokens."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from tokenizers import AddedToken
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from yapit import Segment, Transcriber, TranscribeRequest

ENGLISH_TEXT, TEXT = 50_256, 50_257  # tokens of OpenAI's tokenizers that are text
ALL = tuple(LANGUAGES)
MULTILINGUAL = ALL[:99]  # those that the models before large-v3 know
RATE = 16_000
# What no model of random weights keeps to.
CARELESS = {
    "vad": False,
    "no_speech_threshold": None,
    "log_prob_threshold": None,
    "compression_ratio_threshold": None,
}
Load = Callable[..., Any]
Say = Callable[..., tuple[bytes, int]]
SMALLEST = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
_TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
_TIMES = 1501
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SYMBOLS = '"#()*+/:;<=>@[\\]^_`{|}~'
_WORDS = ("the", "and", "hello", "world", "this", "is", "speech")


def save_whisper(  # noqa: PLR0913 - what a test may want of a model
    folder: Path,
    *,
    seed: int = 0,
    languages: Sequence[str] = MULTILINGUAL,
    text: int = TEXT,
    mels: int = 80,
    silence: float = 0.0,
    sizes: Mapping[str, int] = SMALLEST,
) -> Path:
    """Save a Whisper with windows of 30 s.

    Args:
        folder: for its files.
        seed: of the weights.
        languages: that it has tokens for.
        text: tokens that are text.
        mels: of its spectrum.
        silence: added to the likelihood that nobody speaks.
        sizes: of its layers.
    """
    tokenizer = _tokenizer(languages, text)
    (end, start, prev, silent, none) = tokenizer.convert_tokens_to_ids(
        ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    )
    torch.manual_seed(seed)
    config = hf.WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=mels,
        **sizes,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
    )
    model = hf.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        decoder = model.model.decoder
        # So that it hears, does not write the same token for ever, and ends.
        decoder.embed_tokens.weight[:text] *= 4
        decoder.embed_positions.weight.normal_(0, 0.4)
        decoder.embed_tokens.weight[silent] += silence
        for layer in decoder.layers:
            layer.encoder_attn.out_proj.weight *= 20
            layer.encoder_attn.v_proj.weight *= 10
    known = {f"<|{code}|>": tokenizer.convert_tokens_to_ids(f"<|{code}|>") for code in languages}
    tasks = {task: tokenizer.convert_tokens_to_ids(f"<|{task}|>") for task in ("transcribe", "translate")}
    multilingual = {"is_multilingual": True, "lang_to_id": known, "task_to_id": tasks}
    model.generation_config = hf.GenerationConfig(
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        max_length=448,
        no_timestamps_token_id=none,
        prev_sot_token_id=prev,
        max_initial_timestamp_index=50,
        return_timestamps=False,
        suppress_tokens=_never(tokenizer),
        begin_suppress_tokens=[*tokenizer.encode(" ", add_special_tokens=False), end],
        alignment_heads=[[1, 0], [1, 1]],
        **(multilingual if text == TEXT else {"is_multilingual": False}),
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    hf.WhisperFeatureExtractor(feature_size=mels).save_pretrained(folder)
    return folder


def _tokenizer(languages: Sequence[str], text: int) -> hf.WhisperTokenizer:
    vocabulary = {letter: number for number, letter in enumerate(sorted(bytes_to_unicode().values()))}
    merges: list[tuple[str, str]] = []
    letters = text - (text == TEXT)

    def merge(left: str, right: str) -> None:
        if left + right not in vocabulary and len(vocabulary) < letters:
            vocabulary[left + right] = len(vocabulary)
            merges.append((left, right))

    for word, space in itertools.product(_WORDS, ("", "\u0120")):
        whole = space or word[0]
        for letter in word if space else word[1:]:
            merge(whole, letter)
            whole += letter
    for symbol in (*_SYMBOLS, "-", "'"):
        merge("\u0120", symbol)
    for length in (2, 3, 4):
        for found in map("".join, itertools.product(_LETTERS, repeat=length)):
            if found[:-1] in vocabulary:
                merge(found[:-1], found[-1])
    if text == TEXT:
        vocabulary[""] = letters  # OpenAI's has it too, and CTranslate2 knows a multilingual model by it
    tokenizer = hf.WhisperTokenizer(vocab=vocabulary, merges=merges)
    special = ["endoftext", "startoftranscript", *languages, *_TASKS]
    tokenizer.add_special_tokens({"extra_special_tokens": [f"<|{name}|>" for name in special]})
    times = (AddedToken(f"<|{number * 0.02:.2f}|>", special=False, normalized=False) for number in range(_TIMES))
    tokenizer.add_tokens(list(times))
    tokenizer.pad_token = "<|endoftext|>"  # noqa: S105 - no password
    return tokenizer


def _never(tokenizer: hf.WhisperTokenizer) -> list[int]:
    """Return the tokens of signs that nobody says, as OpenAI's configurations list them."""
    from faster_whisper.tokenizer import Tokenizer
    from faster_whisper.transcribe import get_suppressed_tokens

    known = Tokenizer(tokenizer.backend_tokenizer, multilingual=True, task="transcribe", language="en")
    return list(get_suppressed_tokens(known, [-1]))


# ── asking them ───────────────────────────────────────────────────────────────────────────────────────────────────────
def hear(adapter: Transcriber, pcm: bytes, rate: int = RATE, **fields: Any) -> list[Segment]:
    """Return a recording's segments."""

    async def collected() -> list[Segment]:
        answer: Any = adapter.transcribe(TranscribeRequest(pcm=pcm, sample_rate=rate, **fields))
        async with aclosing(answer) as segments:
            return [segment async for segment in segments]

    return asyncio.run(collected())


def chirps(seconds: float, seed: int = 0) -> bytes:
    """Return PCM of tones of a tenth of a second, each of another height."""
    numbers = np.random.default_rng(seed)
    hertz = np.repeat(numbers.uniform(100, 3000, int(seconds * 10) + 1), RATE // 10)[: int(seconds * RATE)]
    sound = 0.5 * np.sin(2 * np.pi * np.cumsum(hertz) / RATE)
    return bytes((sound * 32767).astype("<i2").tobytes())


def floats(pcm: bytes) -> Any:
    """Return PCM as numbers in [-1, 1]."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
