"""Tiny models that speak or listen: random weights, real classes, the files of a hub snapshot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers as hf
from safetensors.numpy import save_file
from transformers.models.fastspeech2_conformer import (
    FastSpeech2ConformerConfig,
    FastSpeech2ConformerHifiGanConfig,
    FastSpeech2ConformerWithHifiGan,
    FastSpeech2ConformerWithHifiGanConfig,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPEAKER_WIDTH = 8
PRESETS = ("v2/en_speaker_0", "v2/de_speaker_3")
# Small convolutions in front, as deep as the real ones: a frame is 20 ms.
_EAR = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def save_hifigan(folder: Path) -> Path:
    """Save a vocoder for SpeechT5: 16 kHz, 16 samples for each frame of 8 mel bins."""
    torch.manual_seed(1)
    config = hf.SpeechT5HifiGanConfig(
        model_in_dim=8,
        sampling_rate=16_000,
        upsample_initial_channel=16,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
    )
    model = hf.SpeechT5HifiGan(config)
    _louder(model, 12)
    model.save_pretrained(folder)
    return folder


def save_speecht5(folder: Path) -> Path:
    """Save a SpeechT5 that speaks, with its tokenizer of single characters."""
    torch.manual_seed(2)
    folder.mkdir(parents=True, exist_ok=True)
    _train_characters(folder / "spm_char.model")
    config = hf.SpeechT5Config(
        vocab_size=40,
        hidden_size=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        num_mel_bins=8,
        speech_decoder_prenet_units=16,
        speech_decoder_prenet_layers=2,
        speech_decoder_postnet_layers=2,
        speech_decoder_postnet_units=16,
        speaker_embedding_dim=SPEAKER_WIDTH,
        reduction_factor=2,
    )
    model = hf.SpeechT5ForTextToSpeech(config)
    _louder(model, 4)
    with torch.no_grad():  # it would stop at once
        model.speech_decoder_postnet.prob_out.bias.fill_(-20)
    model.save_pretrained(folder)
    hf.SpeechT5Tokenizer(str(folder / "spm_char.model")).save_pretrained(folder)
    return folder


def save_speakers(folder: Path) -> Path:
    """Save the vectors of three speakers, in each form that is read."""
    folder.mkdir(parents=True, exist_ok=True)
    vectors = np.random.default_rng(3).normal(size=(3, SPEAKER_WIDTH)).astype(np.float32)
    np.save(folder / "ada.npy", vectors[0])
    torch.save(torch.tensor(vectors[1])[None], folder / "ben.pt")
    save_file({"speaker": vectors[2]}, folder / "cleo.safetensors")
    return folder


def save_bark(folder: Path) -> Path:
    """Save a Bark that speaks 24 kHz, with two voice presets."""
    torch.manual_seed(4)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), "."]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = hf.BertTokenizer(str(folder / "vocab.txt"))
    semantic, width = 40, {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "block_size": 128}
    codebook = 32
    config = hf.BarkConfig(
        semantic_config={"input_vocab_size": 128, "output_vocab_size": semantic + 4, **width},
        coarse_acoustics_config={"input_vocab_size": 128, "output_vocab_size": semantic + 2 * codebook + 4, **width},
        fine_acoustics_config={
            "input_vocab_size": codebook + 1,
            "output_vocab_size": codebook + 1,
            "n_codes_total": 4,
            "n_codes_given": 1,
            **width,
        },
        codec_config=hf.EncodecConfig(
            target_bandwidths=[3.0],
            sampling_rate=24_000,
            audio_channels=1,
            num_filters=4,
            hidden_size=16,
            codebook_size=codebook,
            codebook_dim=16,
            num_lstm_layers=1,
        ).to_dict(),
    )
    model = hf.BarkModel(config)
    _louder(model.codec_model.decoder, 1.3)
    for part in (model.semantic, model.coarse_acoustics, model.fine_acoustics):
        _louder(part, 20)
    with torch.no_grad():  # it ends now and then, but seldom
        model.semantic.layernorm_final.bias.fill_(1)
        model.semantic.lm_head.weight[semantic] = -0.1
        for layer in model.codec_model.quantizer.layers:
            layer.codebook.embed.normal_()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(_bark_generation(semantic, codebook)))
    processor = hf.BarkProcessor(tokenizer, _save_presets(folder, semantic, codebook))
    processor.tokenizer.save_pretrained(folder)
    return folder


def _bark_generation(semantic: int, codebook: int) -> dict[str, Any]:
    """Return what the file says: three configurations in one, as on the hub."""
    semantic_config = {
        "eos_token_id": semantic,
        "semantic_vocab_size": semantic,
        "text_encoding_offset": semantic + 4,
        "text_pad_token": 126,
        "semantic_infer_token": 127,
        "max_input_semantic_length": 16,
        "max_new_tokens": 24,
        "do_sample": True,
        "temperature": 0.7,
    }
    coarse_config = {
        "coarse_semantic_pad_token": 120,
        "coarse_infer_token": 121,
        "max_coarse_input_length": 16,
        "max_coarse_history": 20,
        "sliding_window_len": 20,
        "do_sample": True,
        "temperature": 0.7,
    }
    fine_config = {
        "temperature": 0.5,
        "max_fine_history_length": 32,
        "max_fine_input_length": 64,
        "n_fine_codebooks": 4,
    }
    return {
        "model_type": "bark",
        "semantic_config": semantic_config,
        "coarse_acoustics_config": coarse_config,
        "fine_acoustics_config": fine_config,
        "sample_rate": 24_000,
        "codebook_size": codebook,
    }


def _save_presets(folder: Path, semantic: int, codebook: int) -> dict[str, dict[str, str]]:
    numbers = np.random.default_rng(5)
    known: dict[str, dict[str, str]] = {}
    for preset in PRESETS:
        arrays = {
            "semantic_prompt": numbers.integers(0, semantic, 12),
            "coarse_prompt": numbers.integers(0, codebook, (2, 18)),
            "fine_prompt": numbers.integers(0, codebook, (4, 18)),
        }
        known[preset] = {kind: f"speaker_embeddings/{preset}_{kind}.npy" for kind in arrays}
        for kind, array in arrays.items():
            path = folder / known[preset][kind]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
    # As on the hub, the file names the repository and not the folder it came to.
    listed = {"repo_or_path": "suno/bark", **known}
    (folder / "speaker_embeddings_path.json").write_text(json.dumps(listed))
    return known


def save_vits(folder: Path, *, speakers: int = 1, roman: bool = False) -> Path:
    """Save a VITS that speaks 16 kHz; `roman`: its script has to be romanized first."""
    torch.manual_seed(6)
    _vits_tokenizer(folder, roman=roman).save_pretrained(folder)
    config = hf.VitsConfig(
        vocab_size=31,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        flow_size=16,
        spectrogram_bins=9,
        upsample_initial_channel=32,
        upsample_rates=[8, 8, 2, 2],
        upsample_kernel_sizes=[16, 16, 4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        prior_encoder_num_flows=1,
        posterior_encoder_num_wavenet_layers=1,
        wavenet_dilation_rate=1,
        prior_encoder_num_wavenet_layers=1,
        depth_separable_num_layers=1,
        duration_predictor_num_flows=1,
        duration_predictor_flow_bins=4,
        sampling_rate=16_000,
        num_speakers=speakers,
        speaker_embedding_size=8 if speakers > 1 else 0,
    )
    hf.VitsModel(config).save_pretrained(folder)
    return folder


def _vits_tokenizer(folder: Path, *, roman: bool = False) -> hf.VitsTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {character: index for index, character in enumerate("_ " + LETTERS + "'-.")}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    blank = dict.fromkeys(("pad_token", "unk_token"), "_")
    return hf.VitsTokenizer(str(folder / "vocab.json"), language="eng", phonemize=False, is_uroman=roman, **blank)


def save_fastspeech2(folder: Path) -> Path:
    """Save a FastSpeech2Conformer with its vocoder, 22.05 kHz; its own tokenizer would need a download."""
    torch.manual_seed(7)
    tokenizer = _vits_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    speaker = FastSpeech2ConformerConfig(
        hidden_size=16,
        vocab_size=31,
        num_mel_bins=8,
        encoder_num_attention_heads=2,
        encoder_layers=1,
        encoder_linear_units=16,
        decoder_layers=1,
        decoder_num_attention_heads=2,
        decoder_linear_units=16,
        speech_decoder_postnet_layers=1,
        speech_decoder_postnet_units=16,
        duration_predictor_layers=1,
        duration_predictor_channels=8,
        energy_predictor_layers=1,
        energy_predictor_channels=8,
        pitch_predictor_layers=1,
        pitch_predictor_channels=8,
    )
    vocoder = FastSpeech2ConformerHifiGanConfig(
        model_in_dim=8,
        upsample_initial_channel=16,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
    )
    config = FastSpeech2ConformerWithHifiGanConfig(model_config=speaker.to_dict(), vocoder_config=vocoder.to_dict())
    model = FastSpeech2ConformerWithHifiGan(config)
    _louder(model.vocoder, 12)
    with torch.no_grad():  # each character lasts some frames
        model.model.duration_predictor.linear.bias.fill_(2.0)
    model.save_pretrained(folder)
    return folder


def save_pocket(folder: Path) -> Path:
    """Save a Pocket TTS, 24 kHz, whose one voice is the latents of eight numbers that it was given."""
    torch.manual_seed(13)
    special = ("<unk>", "<pad>", "<voice>", "<latent>", "<voices>", "<sound>")
    pieces = [*special, ".", ",", *(f"\u2581{letter}" for letter in LETTERS), *LETTERS]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    inner.decoder = tokenizers.decoders.Metaspace()
    names = ("unk_token", "pad_token", "audio_prompt_token", "audio_latent_token", "audio_prompt_bos_token")
    roles = dict(zip((*names, "audio_bos_token"), special, strict=True))
    own = {name: roles.pop(name) for name in names[:2]}
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, padding_side="left", extra_special_tokens=roles, **own
    )
    codec = hf.PocketTTSAudioTokenizerConfig(
        hidden_size=16,
        num_filters=4,
        num_hidden_layers=1,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        latent_dim=8,
        upsample_groups=16,
    )
    model = hf.PocketTTSAudioTokenizerModel(codec)
    model.save_pretrained(folder / "audio_tokenizer")
    hf.PocketTTSProcessor(
        hf.PocketTTSFeatureExtractor(),
        tokenizer,
        audio_tokenizer=hf.PocketTTSAudioTokenizerModel.from_pretrained(folder / "audio_tokenizer"),
        chat_template="{{ messages[0]['content'][0]['text'] }}<sound>",
    ).save_pretrained(folder)
    config = hf.PocketTTSConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        latent_dim=8,
        pad_token_id=1,
        audio_prompt_token_id=2,
        audio_latent_token_id=3,
        audio_prompt_bos_token_id=4,
        audio_bos_token_id=5,
        flow_head_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "latent_dim": 8,
            "condition_dim": 16,
            "frequency_embedding_size": 16,
        },
    )
    hf.PocketTTSForConditionalGeneration(config).save_pretrained(folder)
    hf.GenerationConfig(do_sample=True, temperature=0.7, return_dict_in_generate=True).save_pretrained(folder)
    (folder / "voices").mkdir()
    save_file(
        {"latents": np.random.default_rng(14).normal(size=(5, 8)).astype(np.float32)},
        folder / "voices/alba.safetensors",
    )
    return folder


def save_musicgen(folder: Path) -> Path:
    """Save a MusicGen, 32 kHz, whose sounds are written token by token."""
    torch.manual_seed(11)
    _pieces(folder)
    reader = hf.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    codec = hf.EncodecConfig(
        target_bandwidths=[3.0],
        num_filters=4,
        hidden_size=16,
        codebook_size=32,
        codebook_dim=16,
        num_lstm_layers=1,
        sampling_rate=32_000,
    )
    writer = hf.MusicgenDecoderConfig(
        vocab_size=32, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, num_codebooks=2
    )
    parts = {"text_encoder": reader, "audio_encoder": codec, "decoder": writer}
    model = hf.MusicgenForConditionalGeneration(
        hf.MusicgenConfig(**{name: each.to_dict() for name, each in parts.items()})
    )
    _louder(model.decoder, 20)
    _louder(model.audio_encoder.decoder, 1.3)
    with torch.no_grad():
        for layer in model.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_()
    model.generation_config = hf.GenerationConfig(
        decoder_start_token_id=32, pad_token_id=32, do_sample=True, max_length=20, guidance_scale=3.0
    )
    model.save_pretrained(folder)
    return folder


def save_ctc(folder: Path, kind: str = "Wav2Vec2") -> Path:
    """Save a model that writes down letters, `Wav2Vec2`, `Hubert`, `WavLM` or `Data2VecAudio`.

    Its letters depend on the sound; it never writes a special token, and blanks as often as a real one.
    """
    torch.manual_seed(8)
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS.upper(), "'"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    sizes = dict(_EAR)
    if kind == "Data2VecAudio":
        del sizes["num_conv_pos_embeddings"]
    config = getattr(hf, f"{kind}Config")(vocab_size=len(tokens), feat_extract_norm="layer", **sizes)
    model = getattr(hf, f"{kind}ForCTC")(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
        model.lm_head.bias[1:4] = -1e4
    model.save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    hf.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    return folder


def save_parakeet(folder: Path) -> Path:
    """Save a Parakeet, which writes down pieces of words: a frame is 80 ms, as its configuration does not say."""
    torch.manual_seed(12)
    _pieces(folder)
    encoder = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "subsampling_conv_channels": 8,
        "num_mel_bins": 80,
    }
    config = hf.ParakeetCTCConfig(vocab_size=55, encoder_config=encoder, pad_token_id=2)
    model = hf.ParakeetForCTC(config)
    _louder(model.ctc_head, 20)
    with torch.no_grad():
        model.ctc_head.bias[:2] = -1e4
    model.save_pretrained(folder)
    hf.ParakeetFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def save_moonshine(folder: Path) -> Path:
    """Save a Moonshine, which writes down whole windows of sound token by token."""
    torch.manual_seed(9)
    _pieces(folder)
    config = hf.MoonshineConfig(
        vocab_size=55,
        hidden_size=32,
        intermediate_size=64,
        encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        pad_token_id=2,
    )
    model = hf.MoonshineForConditionalGeneration(config)
    _louder(model, 6)
    with torch.no_grad():  # it writes letters rather than special tokens
        model.model.decoder.embed_tokens.weight[:3].mul_(0.1)
    model.save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=False).save_pretrained(folder)
    return folder


def _pieces(folder: Path) -> None:
    """Save a tokenizer of 55 pieces: three special ones, and each letter at a word's beginning and inside."""
    pieces = ["<unk>", "<s>", "</s>", *(f"\u2581{letter}" for letter in LETTERS), *LETTERS]
    unknown, begin, end = pieces[:3]
    words = tokenizers.models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token=unknown)
    inner = tokenizers.Tokenizer(words)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    inner.decoder = tokenizers.decoders.Metaspace()
    special = {"unk_token": unknown, "bos_token": begin, "eos_token": end, "pad_token": end}
    hf.PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)


def _louder(model: torch.nn.Module, factor: float) -> None:
    """Scale the weights, as those of an untrained model hardly let its input through."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed_positions" not in name:
                weight.mul_(factor)


def _train_characters(path: Path) -> None:
    trained: list[bytes] = []

    class Sink:
        write: Callable[[bytes], None] = staticmethod(trained.append)

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([LETTERS, "the quick brown fox jumps over the lazy dog, she said. 'yes'"] * 10),
        model_writer=Sink(),
        model_type="char",
        vocab_size=38,
        hard_vocab_limit=False,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    path.write_bytes(b"".join(trained))
