"""From a repository's small files to a catalog entry: what the model does, and what clients may ask of it."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

_PIPELINES = {
    "sentence-similarity": "embed",
    "feature-extraction": "embed",
    "text-generation": "generate",
    "text2text-generation": "generate",
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
# What an architecture's name ends with; the first that fits counts.
_ENDINGS = (
    ("ForImageClassification", "classify"),
    ("ForZeroShotImageClassification", "classify"),
    ("ForCausalLM", "generate"),
    ("LMHeadModel", "generate"),
    ("ForCTC", "transcribe"),
    ("ForRNNT", "transcribe"),
    ("ForTDT", "transcribe"),
    ("ForSpeechSeq2Seq", "transcribe"),
    ("ForTextToSpeech", "synthesize"),
    ("ForTextToWaveform", "synthesize"),
    ("ForMaskedLM", "embed"),
    ("ForPreTraining", "embed"),
    ("ForConditionalGeneration", "generate"),
)
_KINDS = dict.fromkeys(
    ("vits", "bark", "speecht5", "fastspeech2_conformer", "fastspeech2_conformer_with_hifigan", "pocket_tts", "csm"),
    "synthesize",
) | dict.fromkeys(
    ("whisper", "moonshine", "speech_to_text", "canary", "parakeet_ctc", "wav2vec2", "hubert", "wavlm"), "transcribe"
)
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx", "seq_length")
_WIDTH = ("hidden_size", "d_model", "n_embd", "dim", "word_embed_proj_dim")
_ROBERTA = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"}  # two positions are never used


class Evidence(Struct, frozen=True):
    """What the files say: the configuration, the head of the model card, the parts of a sentence-transformers model."""

    config: dict[str, Any]
    card: dict[str, Any]
    modules: list[dict[str, Any]]

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> "Evidence":
        """Read the files, by name.

        Raises:
            ValueError: one is no JSON.
        """
        return cls(
            config=json.loads(files.get("config.json", b"{}")),
            card=front_matter(files.get("README.md", b"").decode("utf-8", "replace")),
            modules=json.loads(files.get("modules.json", b"[]")),
        )


def describe_files(source: str, found: Evidence) -> dict[str, Any]:
    """Return the entry of a model: its tasks, and what is known of its limits."""
    task = task_of(source, found)
    entry: dict[str, Any] = {"tasks": [task] if task else []}
    text = found.config.get("text_config") or found.config
    if task in ("embed", "generate", "rerank", "classify"):
        _note(entry, "context_length", context_length(text))
    if task == "embed":
        _note(entry, "dimensions", _first(text, _WIDTH))
    if task == "synthesize":
        _note(entry, "sample_rate", _first(found.config, ("sampling_rate", "sample_rate")))
    languages = found.card.get("language")
    tags = [languages] if isinstance(languages, str) else languages
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) and tags != ["multilingual"]:
        _note(entry, "languages", tags)
    licence = found.card.get("license")
    _note(entry, "licence", licence if isinstance(licence, str) and licence != "other" else None)
    return entry


def task_of(source: str, found: Evidence) -> str | None:
    """Return the task of a model, None if nothing tells."""
    name = _architecture(found.config)
    if name.endswith("ForSequenceClassification"):
        # A cross-encoder is a classifier with one label.
        ranks = found.card.get("pipeline_tag") == "text-ranking" or _labels(found.config) == 1
        return "rerank" if ranks else "classify"
    if found.modules:
        types = [str(module.get("type", "")) for module in found.modules]
        return "rerank" if any(".cross_encoder." in each for each in types) else "embed"
    pipeline = _PIPELINES.get(str(found.card.get("pipeline_tag", "")))
    return pipeline or _task_of_architecture(source, name, str(found.config.get("model_type", "")))


def _task_of_architecture(source: str, name: str, kind: str) -> str | None:
    if name.endswith("ForCausalLM") and "rerank" in source.lower():
        return "rerank"
    if name.endswith("ForSpeechToText"):
        return "transcribe"
    known = _KINDS.get(kind) or next((task for ending, task in _ENDINGS if name.endswith(ending)), None)
    return known or ("embed" if name.endswith("Model") else None)


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model reads, None if its configuration does not say."""
    length = _first(config, _CONTEXT)
    if length is not None and config.get("model_type") in _ROBERTA:
        return length - 2
    return length


def front_matter(card: str) -> dict[str, Any]:
    """Return what a model card says in its YAML head."""
    if not card.startswith("---"):
        return {}
    try:
        document = msgspec.yaml.decode(card[3:].partition("\n---")[0].encode())
    except msgspec.DecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _labels(config: Mapping[str, Any]) -> int:
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else int(config.get("num_labels", 2))


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if isinstance(value := config.get(name), int) and value > 0), None)


def _note(entry: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        entry[name] = value
