"""Tiny models that embed, rank or classify: random weights, real classes, the files of a hub snapshot."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WIDTH = 32
POSITIONS = 64
_WORDS = ("the", "a", "cat", "dog", "rain", "sun", "river", "bank", "money", "sleeps", "runs", "in", "on", "and", "is")
_TINY = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
# Wide: with the usual range the vectors of all texts would be nearly the same.
_WILD = {"initializer_range": 0.3}
_MODULES = "sentence_transformers.models."


# ── tokenizers ────────────────────────────────────────────────────────────────────────────────────────────────────────
def bert_tokenizer() -> Any:
    """Return a tokenizer of words and letters: `[CLS] text [SEP]`."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {word: place for place, word in enumerate([*special, *_WORDS, *letters, *(f"##{c}" for c in letters)])}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    raw.decoder = decoders.WordPiece()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        **{f"{name.strip('[]').lower()}_token": name for name in special},
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def byte_tokenizer(single: str, pair: str, special: Mapping[str, str], **settings: Any) -> Any:
    """Return a tokenizer of bytes, and of `yes` and `no`, that puts a text into the template `single`."""
    names = list(dict.fromkeys(special.values()))
    vocabulary = {name: place for place, name in enumerate(names)}
    for token in [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ye", "yes", "no"]:
        vocabulary[token] = len(vocabulary)
    raw = Tokenizer(models.BPE(vocabulary, [("y", "e"), ("ye", "s"), ("n", "o")]))
    raw.add_special_tokens(names)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, vocabulary[name]) for name in names if name in single]
    )
    raw.decoder = decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, **special, **settings, model_input_names=["input_ids", "attention_mask"]
    )


def roberta_tokenizer() -> Any:
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return byte_tokenizer("<s> $A </s>", "<s> $A </s> </s> $B </s>", names, model_max_length=POSITIONS)


def qwen_tokenizer(*, ends: bool = True) -> Any:
    """Return a tokenizer that pads on the left; `ends` as in Qwen3-Embedding, with a token after the text."""
    names = {"pad_token": "<|endoftext|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    return byte_tokenizer("$A <|endoftext|>" if ends else "$A", "$A $B", names, padding_side="left")


# ── models that embed ─────────────────────────────────────────────────────────────────────────────────────────────────
def save_bert(folder: Path, **config: Any) -> Path:
    tokenizer = bert_tokenizer()
    return _save(folder, hf.BertModel, hf.BertConfig(**_sizes(tokenizer), **config), tokenizer)


def save_roberta(folder: Path) -> Path:
    """Save a model in the manner of bge-m3: positions begin after that of the padding."""
    tokenizer = roberta_tokenizer()
    config = hf.XLMRobertaConfig(
        **{**_sizes(tokenizer), "max_position_embeddings": POSITIONS + 2}, pad_token_id=1, type_vocab_size=1
    )
    return _save(folder, hf.XLMRobertaModel, config, tokenizer)


def save_qwen(folder: Path, **config: Any) -> Path:
    """Save a model in the manner of Qwen3-Embedding: it reads from left to right, and pads on the left."""
    tokenizer = qwen_tokenizer()
    settings = hf.Qwen3Config(**_sizes(tokenizer), num_key_value_heads=2, head_dim=8, **config)
    _save(folder, hf.Qwen3Model, settings, tokenizer)
    _change(folder / "config.json", architectures=["Qwen3ForCausalLM"])
    return folder


def save_gemma(folder: Path) -> Path:
    """Save a model in the manner of embeddinggemma: it reads in both directions, through windows."""
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    tokenizer = byte_tokenizer("<bos> $A <eos>", "<bos> $A $B <eos>", names)
    config = hf.Gemma3TextConfig(
        **_sizes(tokenizer),
        num_key_value_heads=1,
        head_dim=8,
        use_bidirectional_attention=True,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    )
    return _save(folder, hf.Gemma3TextModel, config, tokenizer)


def save_modernbert(folder: Path) -> Path:
    tokenizer = bert_tokenizer()
    ids = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")}
    config = hf.ModernBertConfig(**_sizes(tokenizer), **ids, local_attention=16, global_attn_every_n_layers=2)
    return _save(folder, hf.ModernBertModel, config, tokenizer)


def save_t5(folder: Path) -> Path:
    """Save a model of which only the encoder embeds."""
    tokenizer = roberta_tokenizer()
    config = hf.T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, initializer_factor=1.5
    )
    return _save(folder, hf.T5EncoderModel, config, tokenizer)


def sentence_transformer(
    folder: Path,
    *poolings: str,
    normalize: bool = True,
    dense: Sequence[tuple[int, str]] = (),
    include_prompt: bool = True,
    **config: Any,
) -> Path:
    """Add the files of sentence-transformers, in their older form, to a model.

    Args:
        folder: the model's.
        poolings: names as in `pooling_mode_cls_token`.
        normalize: the last part makes the length 1.
        dense: width and activation of further layers.
        include_prompt: the tokens of a prompt are pooled too.
        config: what `config_sentence_transformers.json` says.
    """
    width = json.loads((folder / "config.json").read_text()).get("hidden_size", WIDTH) * len(poolings)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
    pooling: dict[str, Any] = {"word_embedding_dimension": WIDTH, "include_prompt": include_prompt}
    for name in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"):
        pooling[f"pooling_mode_{name}"] = name in poolings
    _write(folder / "1_Pooling" / "config.json", pooling)
    for number, (size, activation) in enumerate(dense, 2):
        _save_dense(folder / f"{number}_Dense", width, size, activation)
        parts.append((f"{number}_Dense", "Dense"))
        width = size
    if normalize:
        parts.append((f"{len(parts)}_Normalize", "Normalize"))
        (folder / parts[-1][0]).mkdir()
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": _MODULES + kind} for n, (path, kind) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    _write(folder / "config_sentence_transformers.json", config)
    return folder


def _save_dense(folder: Path, width: int, size: int, activation: str) -> None:
    config = {"in_features": width, "out_features": size, "bias": activation != "Identity"}
    places = {"Identity": "linear", "Tanh": "activation", "GELU": "activation"}
    path = f"torch.nn.modules.{places[activation]}.{activation}"
    _write(folder / "config.json", {**config, "activation_function": path})
    tensors = {"linear.weight": torch.randn(size, width)}
    if config["bias"]:
        tensors["linear.bias"] = torch.randn(size)
    save_file(tensors, folder / "model.safetensors")


# ── models that rank and classify ─────────────────────────────────────────────────────────────────────────────────────
def save_classifier(folder: Path, labels: Sequence[str], **config: Any) -> Path:
    """Save a BERT that has these labels; one with a single label ranks."""
    tokenizer = bert_tokenizer()
    settings = hf.BertConfig(**_sizes(tokenizer), id2label=dict(enumerate(labels)), **config)
    settings.label2id = {label: place for place, label in enumerate(labels)}
    return _save(folder, hf.BertForSequenceClassification, settings, tokenizer)


def save_causal_classifier(folder: Path, labels: Sequence[str]) -> Path:
    """Save a model that reads from left to right, and whose configuration names no token for padding."""
    tokenizer = qwen_tokenizer()
    config = hf.Qwen3Config(
        **_sizes(tokenizer), num_key_value_heads=2, head_dim=8, id2label=dict(enumerate(labels)), pad_token_id=None
    )
    return _save(folder, hf.Qwen3ForSequenceClassification, config, tokenizer)


def save_judge(folder: Path) -> Path:
    """Save a model in the manner of Qwen3-Reranker: it says `yes` or `no`."""
    tokenizer = qwen_tokenizer(ends=False)
    sizes = {**_sizes(tokenizer), "max_position_embeddings": 1024}
    config = hf.Qwen3Config(**sizes, num_key_value_heads=2, head_dim=8, tie_word_embeddings=False)
    return _save(folder, hf.Qwen3ForCausalLM, config, tokenizer)


def save_vit(folder: Path, labels: Sequence[str]) -> Path:
    """Save a model that labels pictures of 32 pixels."""
    config = hf.ViTConfig(**_TINY, **_WILD, image_size=32, patch_size=8, id2label=dict(enumerate(labels)))
    return _save(
        folder, hf.ViTForImageClassification, config, hf.ViTImageProcessorPil(size={"height": 32, "width": 32})
    )


def save_resnet(folder: Path, labels: Sequence[str]) -> Path:
    config = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=dict(enumerate(labels))
    )
    part = hf.ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=1.0)
    return _save(folder, hf.ResNetForImageClassification, config, part)


def save_clip(folder: Path) -> Path:
    """Save a model that compares pictures with sentences."""
    names = {"pad_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    tokenizer = byte_tokenizer("<|startoftext|> $A <|endoftext|>", "$A $B", names)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = hf.CLIPConfig(
        text_config={**_TINY, "vocab_size": len(tokenizer), "max_position_embeddings": POSITIONS, **ids},
        vision_config={**_TINY, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    part = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = hf.CLIPProcessor(image_processor=part, tokenizer=tokenizer)
    return _save(folder, hf.CLIPModel, config, processor)


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _sizes(tokenizer: Any) -> dict[str, Any]:
    return {**_TINY, **_WILD, "vocab_size": len(tokenizer), "max_position_embeddings": POSITIONS}


def _save(folder: Path, kind: Any, config: Any, part: Any) -> Path:
    torch.manual_seed(7)
    kind(config).save_pretrained(folder)
    part.save_pretrained(folder)
    return folder


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
