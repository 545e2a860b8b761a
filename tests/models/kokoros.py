"""A tiny Kokoro of random weights, in the files of its repository."""

# ruff: noqa: RUF001 - phonemes are meant

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from kokoro import KModel

PARTS = ("bert", "bert_encoder", "predictor", "text_encoder", "decoder")
VOICES = ("af_alloy", "af_heart", "af_sky", "am_onyx", "bf_emma", "ef_dora", "ff_siwis", "jf_alpha", "zf_xiaobei")
# Those of Kokoro 1.0, by the number of the first of a run.
_PHONEMES = {
    1: ";:,.!?", 9: '—…"()“” ̃ʣʥʦʨᵝꭧAI', 31: "O", 33: "Q", 35: "ST", 39: "W", 41: "Yᵊabcdef",
    50: "hijklmnopqrstuvwxyzɑɐɒæ", 75: "βɔɕç", 80: "ɖðʤə", 85: "ɚɛɜ", 90: "ɟ", 92: "ɡ", 99: "ɥ", 101: "ɨɪʝ",
    110: "ɯɰŋɳɲɴø", 118: "ɸθœ", 123: "ɹ", 125: "ɾɻ", 128: "ʁɽʂʃʈʧ", 135: "ʊʋ", 138: "ʌɣɤ", 142: "χʎ", 147: "ʒʔ",
    156: "ˈˌː", 162: "ʰ", 164: "ʲ", 169: "↓", 171: "→↗↘", 177: "ᵻ",
}  # fmt: skip
VOCABULARY = {each: first + index for first, run in _PHONEMES.items() for index, each in enumerate(run)}
# As small as its code allows; real in all that decides what fits: 512 tokens, 510 styles of 256.
CONFIG: Mapping[str, Any] = {
    "istftnet": {
        "upsample_kernel_sizes": [20, 12],
        "upsample_rates": [10, 6],
        "gen_istft_hop_size": 5,
        "gen_istft_n_fft": 20,
        "resblock_dilation_sizes": [[1, 3, 5]],
        "resblock_kernel_sizes": [3],
        "upsample_initial_channel": 512,
    },
    "dim_in": 64,
    "dropout": 0.2,
    "hidden_dim": 512,
    "max_conv_dim": 512,
    "max_dur": 4,
    "multispeaker": True,
    "n_layer": 1,
    "n_mels": 80,
    "n_token": 178,
    "style_dim": 128,
    "text_encoder_kernel_size": 5,
    "plbert": {
        "hidden_size": 64,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        "num_hidden_layers": 1,
        "dropout": 0.1,
    },
    "vocab": VOCABULARY,
}


def save_kokoro(folder: Path, voices: Sequence[str] = VOICES, sizes: Mapping[str, Any] | None = None) -> Path:
    """Save a model and its voices; 235 MB, as no smaller one runs.

    Args:
        folder: for its files.
        voices: names.
        sizes: of the model, instead of those of the configuration.
    """
    (folder / "voices").mkdir(parents=True)
    config = dict(CONFIG)
    for name, value in (sizes or {}).items():
        config[name] = {**CONFIG[name], **value} if isinstance(value, Mapping) else value
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(4)
    torch.save({}, folder / "empty")
    kokoro = load_kokoro(folder, folder / "empty")
    (folder / "empty").unlink()
    with torch.no_grad():  # it would be hardly heard
        kokoro.decoder.generator.conv_post.bias[:11] += 1
    # As those who trained it saved it.
    parts = {
        name: {f"module.{key}": each for key, each in getattr(kokoro, name).state_dict().items()} for name in PARTS
    }
    torch.save(parts, folder / "kokoro-v1_0.pth")
    for voice in voices:
        torch.save(torch.randn(510, 1, 256) * 0.1, folder / "voices" / f"{voice}.pt")
    return folder


def load_kokoro(folder: Path, weights: Path | None = None) -> KModel:
    """Return the model as its own package loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = str(weights or next(folder.glob("*.pth")))
        return KModel(repo_id="hexgrad/Kokoro-82M", config=str(folder / "config.json"), model=name).eval()
