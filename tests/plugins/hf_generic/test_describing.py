"""What is read of repositories: the files are those of well-known ones, shortened."""

import json
from typing import Any

import pytest
from transformers.models.auto import modeling_auto as auto

from yapit_plugin_hf_generic.describing import FILES, Evidence, context_length, describe_files, front_matter, task_of

ST = "sentence_transformers.models."
Shape = tuple[str, dict[str, Any], str, dict[str, Any]]


def config(architecture: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"architectures": [architecture], "model_type": kind, "vocab_size": 30_000, **more}


def card(**head: Any) -> bytes:
    return f"---\n{json.dumps(head)}\n---\n# A model\n\n---\nlicense: wrong\n---\n".encode()


def modules(*names: str) -> bytes:
    return json.dumps(
        [{"idx": n, "name": str(n), "path": f"{n}_{x}", "type": ST + x} for n, x in enumerate(names)]
    ).encode()


def described(source: str, configuration: dict[str, Any] | None, readme: bytes = b"", **files: bytes) -> dict[str, Any]:
    found = {name.replace("__", "."): body for name, body in files.items()} | {"README.md": readme}
    if configuration is not None:
        found["config.json"] = json.dumps(configuration).encode()
    assert set(found) <= set(FILES)
    return describe_files(source, Evidence.of(found))


# ── well-known repositories ───────────────────────────────────────────────────────────────────────────────────────────
XLM = {"hidden_size": 1024, "max_position_embeddings": 8194}
BGE = described(
    "BAAI/bge-m3",
    config("XLMRobertaModel", "xlm-roberta", **XLM),
    card(pipeline_tag="sentence-similarity", license="mit"),
    modules__json=modules("Transformer", "Pooling", "Normalize"),
    sentence_bert_config__json=b'{"max_seq_length": 8192, "do_lower_case": false}',
)
GEMMA = described(
    "google/embeddinggemma-300m",
    config("Gemma3TextModel", "gemma3_text", hidden_size=768, max_position_embeddings=2048),
    card(license="gemma", pipeline_tag="sentence-similarity", library_name="sentence-transformers"),
    modules__json=modules("Transformer", "Pooling", "Dense", "Dense", "Normalize"),
)
MINI = described(
    "sentence-transformers/all-MiniLM-L6-v2",
    config("BertModel", "bert", hidden_size=384, max_position_embeddings=512),
    card(language="en", license="apache-2.0", pipeline_tag="sentence-similarity"),
    modules__json=modules("Transformer", "Pooling", "Normalize"),
    sentence_bert_config__json=b'{"max_seq_length": 256, "do_lower_case": false}',
)
QWEN = {"hidden_size": 1024, "max_position_embeddings": 32_768, "dtype": "bfloat16"}
QWEN_EMBEDDING = described(
    "Qwen/Qwen3-Embedding-0.6B",
    config("Qwen3ForCausalLM", "qwen3", **QWEN),
    card(license="apache-2.0", tags=["transformers", "sentence-transformers"], pipeline_tag="feature-extraction"),
    modules__json=modules("Transformer", "Pooling", "Normalize"),
)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (BGE, {"tasks": ["embed"], "context_length": 8192, "dimensions": 1024, "licence": "MIT"}),
        (GEMMA, {"tasks": ["embed"], "context_length": 2048, "licence": "LicenseRef-gemma"}),
        (
            MINI,
            {
                "tasks": ["embed"],
                "context_length": 256,
                "dimensions": 384,
                "licence": "Apache-2.0",
                "languages": ["en"],
            },
        ),
        (
            QWEN_EMBEDDING,
            {"tasks": ["embed"], "context_length": 32_768, "dimensions": 1024, "licence": "Apache-2.0"},
        ),
    ],
    ids=["bge-m3", "embeddinggemma", "MiniLM", "Qwen3-Embedding"],
)
def test_the_files_of_sentence_transformers_make_a_model_that_embeds(
    entry: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert entry == expected


LLAMA = ["en", "de", "fr", "it", "pt", "hi", "es", "th"]
VL = {"text_config": {"hidden_size": 2560, "max_position_embeddings": 262_144}, "vision_config": {"depth": 24}}
CLIP = {"text_config": {"max_position_embeddings": 77}, "vision_config": {"patch_size": 32}}
FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
ONE = {"id2label": {"0": "LABEL_0"}}
TWO = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}
THREE = {"id2label": {"0": "contradiction", "1": "neutral", "2": "entailment"}}
WRITES: list[Shape] = [
    (
        "Qwen/Qwen3-4B-Instruct-2507",
        config("Qwen3ForCausalLM", "qwen3", max_position_embeddings=262_144),
        '{"pipeline_tag": "text-generation", "license": "apache-2.0"}',
        {"context_length": 262_144, "licence": "Apache-2.0"},
    ),
    (
        "Qwen/Qwen3-4B-Instruct-2507-FP8",
        config("Qwen3ForCausalLM", "qwen3", max_position_embeddings=262_144, **FP8),
        '{"pipeline_tag": "text-generation", "license": "apache-2.0"}',
        {"context_length": 262_144, "licence": "Apache-2.0"},
    ),
    (
        "meta-llama/Llama-3.2-1B-Instruct",
        config("LlamaForCausalLM", "llama", max_position_embeddings=131_072),
        json.dumps({"language": LLAMA, "pipeline_tag": "text-generation", "license": "llama3.2"}),
        {"context_length": 131_072, "licence": "LicenseRef-llama3.2", "languages": LLAMA},
    ),
    (
        "Qwen/Qwen3-VL-4B-Instruct",
        config("Qwen3VLForConditionalGeneration", "qwen3_vl", **VL),
        '{"pipeline_tag": "image-text-to-text", "license": "apache-2.0"}',
        {"context_length": 262_144, "licence": "Apache-2.0"},
    ),
    (
        "llava-hf/llava-1.5-7b-hf",
        {
            **config("LlavaForConditionalGeneration", "llava"),
            "text_config": {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096},
        },
        '{"language": ["en"], "pipeline_tag": "image-text-to-text", "license": "llama2"}',
        {"context_length": 4096, "licence": "LicenseRef-llama2", "languages": ["en"]},
    ),
    (
        "google/gemma-3-4b-it",
        {**config("Gemma3ForConditionalGeneration", "gemma3"), "text_config": {"hidden_size": 2560}},
        '{"license": "gemma", "pipeline_tag": "image-text-to-text"}',
        {"licence": "LicenseRef-gemma"},
    ),
    (
        "google/gemma-3-1b-it",
        config("Gemma3ForCausalLM", "gemma3_text", max_position_embeddings=32_768),
        '{"license": "gemma", "pipeline_tag": "text-generation"}',
        {"context_length": 32_768, "licence": "LicenseRef-gemma"},
    ),
    (
        "openai-community/gpt2",
        config("GPT2LMHeadModel", "gpt2", n_positions=1024, n_embd=768),
        '{"language": "en", "license": "mit"}',
        {"context_length": 1024, "licence": "MIT", "languages": ["en"]},
    ),
    (
        "google-t5/t5-small",
        config("T5ForConditionalGeneration", "t5", n_positions=512),
        '{"language": ["en", "fr", "ro", "de", "multilingual"], "license": "apache-2.0"}',
        {"context_length": 512, "licence": "Apache-2.0", "languages": ["en", "fr", "ro", "de"]},
    ),
    (
        "facebook/bart-large-cnn",
        config("BartForConditionalGeneration", "bart", max_position_embeddings=1024),
        '{"pipeline_tag": "summarization"}',
        {"context_length": 1024},
    ),
    (
        "Helsinki-NLP/opus-mt-en-de",
        config("MarianMTModel", "marian", max_position_embeddings=512),
        '{"pipeline_tag": "translation", "license": "cc-by-4.0"}',
        {"context_length": 512, "licence": "CC-BY-4.0"},
    ),
]
JUDGES: list[Shape] = [
    (
        "BAAI/bge-reranker-v2-m3",
        config("XLMRobertaForSequenceClassification", "xlm-roberta", **XLM, **ONE),
        '{"pipeline_tag": "text-classification", "language": ["multilingual"], "license": "apache-2.0"}',
        {"tasks": ["rerank"], "context_length": 8192, "licence": "Apache-2.0"},
    ),
    (
        "Qwen/Qwen3-Reranker-0.6B",
        config("Qwen3ForCausalLM", "qwen3", **QWEN),
        '{"pipeline_tag": "text-ranking"}',
        {"tasks": ["rerank"], "context_length": 32_768},
    ),
    (
        "Qwen/Qwen3-Reranker-0.6B",
        config("Qwen3ForCausalLM", "qwen3", **QWEN),
        "{}",
        {"tasks": ["rerank"], "context_length": 32_768},
    ),
    (
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        config("BertForSequenceClassification", "bert", max_position_embeddings=512, **ONE),
        '{"pipeline_tag": "text-ranking", "language": "en"}',
        {"tasks": ["rerank"], "context_length": 512, "languages": ["en"]},
    ),
    (
        "org/two-labels",
        config("BertForSequenceClassification", "bert", **TWO),
        '{"pipeline_tag": "text-ranking"}',
        {"tasks": ["rerank"]},
    ),
    (
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        config("DistilBertForSequenceClassification", "distilbert", max_position_embeddings=512, dim=768, **TWO),
        '{"language": "en", "license": "apache-2.0"}',
        {"tasks": ["classify"], "context_length": 512, "licence": "Apache-2.0", "languages": ["en"]},
    ),
    (
        "facebook/bart-large-mnli",
        config("BartForSequenceClassification", "bart", max_position_embeddings=1024, **THREE),
        '{"pipeline_tag": "zero-shot-classification", "license": "mit"}',
        {"tasks": ["classify"], "context_length": 1024, "licence": "MIT"},
    ),
    ("org/no-labels", config("BertForSequenceClassification", "bert", num_labels=None), "", {"tasks": ["classify"]}),
    ("org/a-number", config("BertForSequenceClassification", "bert", num_labels=1), "", {"tasks": ["rerank"]}),
]
SEES: list[Shape] = [
    ("microsoft/resnet-50", {"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}, "", {}),
    ("google/vit-base-patch16-224", {"architectures": ["ViTForImageClassification"], "image_size": 224}, "", {}),
    ("openai/clip-vit-base-patch32", {"architectures": ["CLIPModel"], "model_type": "clip", **CLIP}, "", {}),
    ("google/siglip-base-patch16-224", {"architectures": ["SiglipModel"], "model_type": "siglip", **CLIP}, "", {}),
]
SPEAKS: list[Shape] = [
    (
        "microsoft/speecht5_tts",
        config("SpeechT5ForTextToSpeech", "speecht5", hidden_size=768),
        '{"license": "mit", "tags": ["audio", "text-to-speech"]}',
        {"sample_rate": 16_000, "licence": "MIT"},
    ),
    (
        "suno/bark",
        {"architectures": ["BarkModel"], "model_type": "bark", "codec_config": {"sampling_rate": 24_000}},
        '{"language": ["en", "de"], "pipeline_tag": "text-to-speech"}',
        {"sample_rate": 24_000, "languages": ["en", "de"]},
    ),
    (
        "facebook/mms-tts-eng",
        config("VitsModel", "vits", sampling_rate=16_000),
        '{"license": "cc-by-nc-4.0", "pipeline_tag": "text-to-speech"}',
        {"sample_rate": 16_000, "licence": "CC-BY-NC-4.0"},
    ),
]
LISTENS: list[Shape] = [
    (
        "facebook/wav2vec2-base-960h",
        config("Wav2Vec2ForCTC", "wav2vec2", hidden_size=768),
        '{"language": "en", "license": "apache-2.0"}',
        {"licence": "Apache-2.0", "languages": ["en"]},
    ),
    (
        "facebook/hubert-large-ls960-ft",
        config("HubertForCTC", "hubert"),
        '{"pipeline_tag": "automatic-speech-recognition"}',
        {},
    ),
    (
        "openai/whisper-tiny",
        config("WhisperForConditionalGeneration", "whisper", max_length=448),
        '{"language": ["en", "zh"], "pipeline_tag": "automatic-speech-recognition"}',
        {"languages": ["en", "zh"]},
    ),
    ("UsefulSensors/moonshine-tiny", config("MoonshineForConditionalGeneration", "moonshine"), "{}", {}),
    ("microsoft/speecht5_asr", config("SpeechT5ForSpeechToText", "speecht5"), "{}", {}),
]


def named(shapes: list[Shape], task: str | None = None) -> list[Any]:
    tasks = {} if task is None else {"tasks": [task]}
    return [
        pytest.param(source, configuration, head, {**tasks, **expected}, id=source.partition("/")[2])
        for source, configuration, head, expected in shapes
    ]


@pytest.mark.parametrize(
    ("source", "configuration", "head", "expected"),
    [
        *named(WRITES, "generate"),
        *named(JUDGES),
        *named(SEES, "classify"),
        *named(SPEAKS, "synthesize"),
        *named(LISTENS, "transcribe"),
    ],
)
def test_what_a_repository_says_of_its_model(
    source: str, configuration: dict[str, Any], head: str, expected: dict[str, Any]
) -> None:
    heard = {"preprocessor_config__json": b'{"sampling_rate": 16000}'}
    assert described(source, configuration, f"---\n{head}\n---\n".encode(), **heard) == expected


# ── who is believed ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("configuration", "tag", "task"),
    [
        # The card knows better what a model that writes was trained for.
        (config("Qwen2ForCausalLM", "qwen2"), "sentence-similarity", "embed"),
        (config("Qwen2ForCausalLM", "qwen2"), "feature-extraction", "embed"),
        (config("LlamaForCausalLM", "llama"), "an-unknown-tag", "generate"),
        # The head is what there is, whatever the card says.
        (config("Wav2Vec2ForCTC", "wav2vec2"), "feature-extraction", "transcribe"),
        (config("ViTForImageClassification", "vit"), "feature-extraction", "classify"),
        (config("SpeechT5ForSpeechToSpeech", "speecht5"), "text-to-speech", None),
        # What hears makes no vectors of texts.
        (config("Wav2Vec2Model", "wav2vec2"), "feature-extraction", None),
        (config("Wav2Vec2ForPreTraining", "wav2vec2"), "", None),
        (config("Wav2Vec2ForSequenceClassification", "wav2vec2", **TWO), "audio-classification", None),
        (config("WhisperForAudioClassification", "whisper"), "audio-classification", None),
        ({"model_type": "wav2vec2"}, "automatic-speech-recognition", "transcribe"),
        # Nor does what only sees.
        ({"architectures": ["Dinov2Model"], "image_size": 518}, "image-feature-extraction", None),
        ({"architectures": ["ViTModel"], "image_size": 224}, "feature-extraction", None),
        ({"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model"}, "", None),
        ({"architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip"}, "", None),
        (config("BlipForConditionalGeneration", "blip", **CLIP), "image-to-text", "generate"),
        # Vectors are made of what guesses words.
        (config("BertForMaskedLM", "bert"), "fill-mask", "embed"),
        (config("BertForPreTraining", "bert"), "", "embed"),
        (config("NomicBertModel", "nomic_bert"), "sentence-similarity", "embed"),
        (config("T5EncoderModel", "t5"), "", "embed"),
        (config("BertForQuestionAnswering", "bert"), "question-answering", None),
        (config("BertForTokenClassification", "bert"), "token-classification", None),
        (config("MusicgenForConditionalGeneration", "musicgen"), "text-to-audio", "synthesize"),
        ({}, "text-to-image", None),
        ({}, "", None),
        ({"architectures": "BertModel"}, "", None),
        ({"architectures": []}, "", None),
    ],
)
def test_the_card_and_the_architecture(configuration: dict[str, Any], tag: str, task: str | None) -> None:
    assert task_of("org/model", Evidence(config=configuration, card={"pipeline_tag": tag})) == task


def test_a_cross_encoder_in_modules_ranks() -> None:
    parts = [{"type": "sentence_transformers.cross_encoder.modules.Transformer"}, {"type": f"{ST}Normalize"}]
    assert task_of("org/model", Evidence(config=config("Qwen3ForCausalLM", "qwen3"), modules=parts)) == "rerank"


MAPPINGS = {
    "CTC": "transcribe",
    "RNNT": "transcribe",
    "TDT": "transcribe",
    "SPEECH_SEQ_2_SEQ": "transcribe",
    "TEXT_TO_WAVEFORM": "synthesize",
    "TEXT_TO_SPECTROGRAM": "synthesize",
    "CAUSAL_LM": "generate",
    "SEQUENCE_CLASSIFICATION": "classify",
    "IMAGE_CLASSIFICATION": "classify",
    "ZERO_SHOT_IMAGE_CLASSIFICATION": "classify",
}
# Classes that do several things, and old ones whose name does not say what they do: the card must tell.
UNSAID = {
    "DiaForConditionalGeneration": "synthesize",  # it is among those that hear, too
    "Pop2PianoForConditionalGeneration": "generate",
    "VibeVoiceForConditionalGeneration": "generate",
    "Qwen2_5OmniForConditionalGeneration": "generate",
    "Qwen3OmniMoeForConditionalGeneration": "generate",
    "Blip2ForImageTextRetrieval": None,
    "BertGenerationDecoder": None,
    "ReformerModelWithLMHead": None,
    "PerceiverForImageClassificationLearned": None,
    "MossTranscribeDiarizeForConditionalGeneration": "generate",
    "MusicgenForCausalLM": "synthesize",
    "MusicgenMelodyForCausalLM": "synthesize",
    "WhisperForCausalLM": "transcribe",
}


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_class_of_transformers_has_its_task(mapping: str) -> None:
    names = getattr(auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES")
    assert names
    wrong = {}
    for kind, classes in names.items():
        name = classes if isinstance(classes, str) else classes[0]
        found = task_of("org/model", Evidence(config=config(name, kind)))
        if found != UNSAID.get(name, MAPPINGS[mapping]):
            wrong[name] = found
    assert wrong == {}


# ── the parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("configuration", "length"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"max_position_embeddings": 514, "model_type": "roberta"}, 512),
        ({"max_position_embeddings": 514, "model_type": "mpnet"}, 512),
        ({"max_position_embeddings": -1, "n_positions": 7}, 7),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": "many"}, None),
        ({}, None),
    ],
)
def test_how_many_tokens_a_model_reads(configuration: dict[str, Any], length: int | None) -> None:
    assert context_length(configuration) == length


@pytest.mark.parametrize(
    ("head", "languages"),
    [
        ("language: de", ["de"]),
        ("language: [nb, no]", ["nb", "no"]),
        ("language:\n- no", ["no"]),
        ("language: multilingual", None),
        ("language: [multilingual, af]", ["af"]),
        ("language: {a: b}", None),
        ("language: 3", None),
        ("", None),
    ],
)
def test_languages(head: str, languages: list[str] | None) -> None:
    assert described("org/model", None, f"---\n{head}\n---".encode()).get("languages") == languages


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("license: bsd-3-clause", "BSD-3-Clause"),
        ("license: gpl-3.0", "GPL-3.0"),
        ("license: cc0-1.0", "CC0-1.0"),
        ("license: openrail++", "LicenseRef-openrail++"),
        ("license: other\nlicense_name: qwen-research", "LicenseRef-qwen-research"),
        ("license: other", None),
        ("license: unknown", None),
        ("license: [mit]", None),
        ("license: ''", None),
    ],
)
def test_licences_are_spdx_expressions(head: str, licence: str | None) -> None:
    assert described("org/model", None, f"---\n{head}\n---".encode()).get("licence") == licence


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("---\na: 1\n---\n# Title\nb: 2", {"a": 1}),
        ("---\r\na: 1\r\n---\r\n", {"a": 1}),
        ("# Title\n---\na: 1\n---", {}),
        ("---\na: [\n---", {}),
        ("---\n- a\n---", {}),
        ("---\ndate: 2024-13-45\n---", {}),
        ("---\na: " + "[" * 5000 + "\n---", {}),
        ("", {}),
    ],
)
def test_the_head_of_a_card(text: str, head: dict[str, Any]) -> None:
    assert front_matter(text) == head


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"[" * 100_000),
        ("modules.json", b"{}"),
        ("modules.json", b"[1]"),
        ("sentence_bert_config.json", b"3"),
        ("preprocessor_config.json", b""),
    ],
)
def test_a_broken_file_is_named(name: str, body: bytes) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        Evidence.of({"README.md": b"# Fine", name: body})


def test_what_python_writes_as_json_is_read() -> None:
    assert Evidence.of({"config.json": b'{"a": Infinity}'}).config == {"a": float("inf")}


def test_a_card_may_hold_anything() -> None:
    assert Evidence.of({"README.md": b"---\nlicense: mit\n---\n\xff\xfe"}).card == {"license": "mit"}


def test_of_nothing_nothing_is_known() -> None:
    assert describe_files("org/model", Evidence.of({})) == {"tasks": []}
