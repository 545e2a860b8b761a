"""From a repository's small files to a catalog entry: what the model does, and what clients may ask of it."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

# What is read of a repository.
FILES = ("config.json", "README.md", "modules.json", "sentence_bert_config.json", "preprocessor_config.json")
# What the hub, or the author, says that a model is for.
_PIPELINES = {
    "sentence-similarity": "embed",
    "feature-extraction": "embed",
    "text-generation": "generate",
    "text2text-generation": "generate",
    "summarization": "generate",
    "translation": "generate",
    "image-text-to-text": "generate",
    "any-to-any": "generate",
    "text-ranking": "rerank",
    "text-classification": "classify",
    "zero-shot-classification": "classify",
    "image-classification": "classify",
    "zero-shot-image-classification": "classify",
    "text-to-speech": "synthesize",
    "text-to-audio": "synthesize",
    "automatic-speech-recognition": "transcribe",
}
# What an architecture is for, after the last `For` of its name. The first ones count more than what anybody says.
_SURE_HEADS = {
    "CTC": "transcribe",
    "RNNT": "transcribe",
    "TDT": "transcribe",
    "SpeechToText": "transcribe",
    "TextToSpeech": "synthesize",
    "ImageClassification": "classify",
    "ImageClassificationWithTeacher": "classify",
    "AudioClassification": None,
    "SpeechToSpeech": None,
}
_HEADS = {
    "CausalLM": "generate",
    "ConditionalGeneration": "generate",
    "VisionText2Text": "generate",
    "MaskedLM": "embed",
    "PreTraining": "embed",
}
_JUDGES = "SequenceClassification"
# Types whose classes have names that others have too.
_LISTENING = (
    "canary cohere_asr fun_asr_nano granite_speech granite_speech_plus kyutai_speech_to_text moonshine "
    "moonshine_streaming qwen3_asr speech-encoder-decoder speech_to_text vibevoice_asr voxtral voxtral_realtime whisper"
)
_SPEAKING = (
    "bark csm dia fastspeech2_conformer fastspeech2_conformer_with_hifigan gradium_phonon_tts higgs_audio_v2 musicgen "
    "musicgen_melody pocket_tts vits"
)
_KINDS = dict.fromkeys(_LISTENING.split(), "transcribe") | dict.fromkeys(_SPEAKING.split(), "synthesize")
# They compare pictures with sentences, if they are whole: some repositories have only one of the two halves.
_COMPARING = {
    "align",
    "altclip",
    "blip",
    "chinese_clip",
    "clip",
    "clipseg",
    "metaclip_2",
    "siglip",
    "siglip2",
    "tipsv2",
    "videoprism",
}
_HALVES = ("TextModel", "VisionModel", "WithProjection")
# They hear, and what they are for is in the head's name: without one they are for training only.
_HEARING = {
    "data2vec-audio",
    "granite_speech5_ctc",
    "hubert",
    "lasr_ctc",
    "parakeet_ctc",
    "sew",
    "sew-d",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-bert",
    "wav2vec2-conformer",
    "wavlm",
}
_NO_TEXT = ("vision_config", "image_size", "audio_config")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx", "seq_length")
_WIDTH = ("hidden_size", "d_model", "n_embd", "dim", "word_embed_proj_dim")
# Two of their positions are never used.
_ROBERTA = {
    "camembert",
    "data2vec-text",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
}
_RATES = ("sampling_rate", "sample_rate", "audio_sampling_rate", "audio_sample_rate")
_RATE_PARTS = ("vocoder_config", "codec_config", "audio_encoder", "audio_config")
# The hub's names that are no SPDX expressions in lower case.
_LICENCES = {"mit": "MIT", "apache-2.0": "Apache-2.0", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause"}
_UPPER_CASE_LICENCES = ("cc0-", "cc-by-", "gpl-", "lgpl-", "agpl-", "mpl-")


class Evidence(Struct, frozen=True, kw_only=True):
    """What the files say.

    Args:
        config: the model's configuration.
        card: the head of the model card.
        modules: the parts of a sentence-transformers model.
        reading: how such a model reads.
        hearing: how a model hears, or what it says sounds like.
    """

    config: dict[str, Any] = {}
    card: dict[str, Any] = {}
    modules: list[dict[str, Any]] = []
    reading: dict[str, Any] = {}
    hearing: dict[str, Any] = {}

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> "Evidence":
        """Read the files, by name.

        Raises:
            ValueError: one is no JSON, or not what it should be; names it.
        """
        return cls(
            config=_decoded(files, "config.json", dict[str, Any]) or {},
            card=front_matter(files.get("README.md", b"").decode("utf-8", "replace")),
            modules=_decoded(files, "modules.json", list[dict[str, Any]]) or [],
            reading=_decoded(files, "sentence_bert_config.json", dict[str, Any]) or {},
            hearing=_decoded(files, "preprocessor_config.json", dict[str, Any]) or {},
        )


def describe_files(source: str, found: Evidence) -> dict[str, Any]:
    """Return the entry of a model: its tasks, and what is known of its limits."""
    task = task_of(source, found)
    entry: dict[str, Any] = {"tasks": [task] if task else []}
    text = _text_config(found.config)
    if task in ("embed", "generate", "rerank") or _head(found.config) == _JUDGES:
        said = _first(found.reading, ("max_seq_length",))
        lengths = [length for length in (said, context_length(text)) if length is not None]
        _note(entry, "context_length", min(lengths, default=None))
    if task == "embed" and not any(str(module.get("type")).endswith(".Dense") for module in found.modules):
        _note(entry, "dimensions", _first(text, _WIDTH))
    if task == "synthesize":
        _note(entry, "sample_rate", _sample_rate(found))
    _note(entry, "languages", _languages(found.card.get("language")))
    _note(entry, "licence", _licence(found.card))
    return entry


def task_of(source: str, found: Evidence) -> str | None:
    """Return the task of a model, None if nothing tells."""
    if found.modules:
        types = [str(module.get("type", "")) for module in found.modules]
        return "rerank" if any(".cross_encoder." in each for each in types) else "embed"
    tag, head = str(found.card.get("pipeline_tag", "")), _head(found.config)
    if head in _SURE_HEADS:
        return _SURE_HEADS[head]
    kind = str(found.config.get("model_type", ""))
    if kind in _HEARING:
        return "transcribe" if tag == "automatic-speech-recognition" and not head else None
    if head == _JUDGES:
        # A cross-encoder is a classifier with one label.
        return "rerank" if tag == "text-ranking" or _labels(found.config) == 1 else "classify"
    task = _task_of_kind(found.config, kind, head) or _PIPELINES.get(tag) or _task_of_head(source, found.config, head)
    return task if task != "embed" or _reads_text(found.config) else None


def _task_of_kind(config: Mapping[str, Any], kind: str, head: str) -> str | None:
    if kind in _COMPARING and not head and not _architecture(config).endswith(_HALVES):
        return "classify"
    return _KINDS.get(kind)


def _task_of_head(source: str, config: Mapping[str, Any], head: str) -> str | None:
    name = _architecture(config)
    if head == "CausalLM" and "rerank" in source.lower():
        return "rerank"
    if name.endswith("LMHeadModel"):
        return "generate"
    return _HEADS.get(head) or ("embed" if name.endswith("Model") else None)


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model reads, None if its configuration does not say."""
    length = _first(config, _CONTEXT)
    if length is not None and config.get("model_type") in _ROBERTA:
        return length - 2
    return length


def front_matter(card: str) -> dict[str, Any]:
    """Return what a model card says in its YAML head; nothing if that is none."""
    if not card.startswith("---"):
        return {}
    try:
        document = msgspec.yaml.decode(card[3:].partition("\n---")[0].encode())
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _decoded(files: Mapping[str, bytes], name: str, kind: Any) -> Any:
    if name not in files:
        return None
    try:
        # json, unlike msgspec, knows the `Infinity` that Python writes.
        return msgspec.convert(json.loads(files[name]), kind)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from error


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _head(config: Mapping[str, Any]) -> str:
    """Return what the architecture's name has after its last `For`; nothing if it has none."""
    _, found, head = _architecture(config).rpartition("For")
    return head if found else ""


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    return text if isinstance(text, dict) and text else config


def _reads_text(config: Mapping[str, Any]) -> bool:
    return "vocab_size" in config and not any(name in config for name in _NO_TEXT)


def _labels(config: Mapping[str, Any]) -> int:
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else _first(config, ("num_labels",)) or 2


def _sample_rate(found: Evidence) -> int | None:
    parts = [part for name in _RATE_PARTS if isinstance(part := found.config.get(name), dict)]
    rates = (_first(part, _RATES) for part in (found.config, *parts, found.hearing))
    return next((rate for rate in rates if rate is not None), None)


def _languages(said: Any) -> list[str] | None:
    # What YAML makes of Norwegian's tag is `false`.
    tags = ["no" if tag is False else tag for tag in (said if isinstance(said, list) else [said])]
    found = [tag for tag in tags if isinstance(tag, str) and tag != "multilingual"]
    return found or None


def _licence(card: Mapping[str, Any]) -> str | None:
    """Return the licence as an SPDX expression."""
    name = card.get("license")
    if name in ("other", "unknown"):
        name = card.get("license_name")
    if not isinstance(name, str) or not name:
        return None
    if name.startswith(_UPPER_CASE_LICENCES):
        return name.upper()
    return _LICENCES.get(name) or f"LicenseRef-{name}"


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if isinstance(value := config.get(name), int) and value > 0), None)


def _note(entry: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        entry[name] = value
