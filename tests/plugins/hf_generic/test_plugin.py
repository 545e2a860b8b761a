import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import yapit_plugin_hf_generic as plugin
from conftest import Python
from models.encoders import save_bert
from yapit import Context, Model
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import TASKS
from yapit_plugin_hf_generic.classifying import ClassifyOptions
from yapit_plugin_hf_generic.embedding.layout import EmbedOptions
from yapit_plugin_hf_generic.generating.options import GenerateOptions
from yapit_plugin_hf_generic.listening import ListeningOptions
from yapit_plugin_hf_generic.options import Options, options_of
from yapit_plugin_hf_generic.ranking import RankOptions
from yapit_plugin_hf_generic.speaking.speaker import SpeakingOptions

HOOKS = ("embed", "generate", "rerank", "classify", "synthesize", "transcribe")
HEAVY = ("torch", "transformers", "huggingface_hub", "tokenizers", "safetensors", "accelerate", "openvino", "PIL")
MODELS = {model.id: model for model in plugin.register_models()}
# The models that deployments of today name; those that need another kind of software are other plugins'.
WANTED = [
    "BAAI/bge-m3",
    "google/embeddinggemma-300m",
    "Qwen/Qwen3-Embedding-0.6B",
    "Qwen/Qwen3-Embedding-4B",
    "Qwen/Qwen3-4B-Instruct-2507",
    "Qwen/Qwen3-4B-Instruct-2507-FP8",
    "meta-llama/Llama-3.2-1B-Instruct",
    "meta-llama/Llama-3.2-3B-Instruct",
    "Qwen/Qwen3-VL-4B-Instruct",
    "Qwen/Qwen3-VL-2B-Instruct",
    "Qwen/Qwen3-VL-4B-Instruct-FP8",
    "Qwen/Qwen3-VL-2B-Instruct-FP8",
    "microsoft/speecht5_tts",
    "suno/bark",
    "facebook/bart-large",
    "microsoft/resnet-50",
]
OPTIONS: dict[str, type[Options]] = {
    "embed": EmbedOptions,
    "generate": GenerateOptions,
    "rerank": RankOptions,
    "classify": ClassifyOptions,
    "synthesize": SpeakingOptions,
    "transcribe": ListeningOptions,
}


# ── what it brings ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_entry_point_names_the_package() -> None:
    (entry,) = entry_points(group="yapit.plugins", name="hf-generic")
    assert entry.value == "yapit_plugin_hf_generic"


def test_the_backend_is_heavy() -> None:
    (backend,) = plugin.register_backends()
    assert (backend.name, backend.heavy) == ("hf-generic", True)


def test_the_models_of_today_are_there() -> None:
    assert [name for name in WANTED if name not in MODELS] == []
    names = [name for model in MODELS.values() for name in (model.id, *model.aliases)]
    assert len(names) == len(set(names)) == len(plugin.register_models()) + sum(len(m.aliases) for m in MODELS.values())
    assert {MODELS["microsoft/speecht5_tts"].aliases, MODELS["suno/bark"].aliases} == {("speecht5_tts",), ("bark_tts",)}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_an_entry_says_what_a_person_wants_to_know(model: Model) -> None:
    assert model.backend == "hf-generic"
    assert model.source == model.id
    assert model.licence
    assert model.description
    assert 50_000_000 < (model.memory_bytes or 0) < 100_000_000_000
    (task,) = model.tasks
    assert task in TASKS
    assert isinstance(options_of(model, OPTIONS[task]), OPTIONS[task])
    if task == "embed":
        assert model.dimensions
    if task in ("embed", "rerank"):
        assert model.context_length
    if task == "synthesize":
        assert model.sample_rate
        assert model.languages
        assert model.voice(None) in {None, *(voice.id for voice in model.voices)}


# ── who is asked ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_nothing_heavy_is_imported_before_a_model_is_loaded(python: Python) -> None:
    program = f"""
import json, sys
from click.testing import CliRunner
import yapit_plugin_hf_generic as plugin
from yapit import Context, Model
from yapit.cli import cli
from yapit.server.app import create_app
from yapit.settings import Settings

other = Model(id="m", backend="other", tasks=("embed",), source="org/m")
answers = [getattr(plugin, hook)(other, Context()) for hook in {HOOKS!r}]
answers.append(plugin.complete_model({{"id": "m", "source": "org/m", "backend": "other"}}))
answers.append(plugin.complete_model({{"id": "m"}}))
create_app(Settings(plugins=("hf-generic",)))
begun = [name for name in {HEAVY!r} if name in sys.modules]
listed = CliRunner().invoke(cli, ["models", "--json"], catch_exceptions=False)
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps([answers, begun, heavy, len(json.loads(listed.stdout))]))
"""
    answers, begun, heavy, listed = json.loads(python(program).stdout)
    assert answers == [None] * 8
    assert begun == []
    assert heavy in ([], ["huggingface_hub"]), "which tells what is on this machine"
    assert listed >= len(MODELS)


# ── entries that have only a source ───────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("models") / "bert")


def test_an_entry_with_only_a_source_is_completed(bert: Path) -> None:
    entry = {"id": "mine", "source": str(bert)}
    found = plugin.complete_model(entry)
    assert found == {"backend": "hf-generic", "tasks": ["embed"], "context_length": 64, "dimensions": 32}
    assert entry == {"id": "mine", "source": str(bert)}


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "m"},
        {"id": "m", "source": None},
        {"id": "m", "source": "org/m", "backend": "other"},
        {"id": "m", "source": "https://example.org/m.bin"},
        {"id": "m", "source": "./no/such/folder"},
    ],
)
def test_other_entries_are_left_to_others(entry: dict[str, Any]) -> None:
    assert plugin.complete_model(entry) is None


def test_the_catalog_has_what_was_found_and_what_the_file_says(bert: Path, tmp_path: Path) -> None:
    lines = [
        f"- {{source: {bert}}}",
        f"- {{id: mine, source: {bert}/, dimensions: 16}}",
        f"- {{id: ours, source: {bert}/., tasks: [rerank]}}",
    ]
    named = tmp_path / "models.yaml"
    named.write_text("\n".join(lines))
    plugins = Plugins.load(["hf-generic"])
    catalog = plugins.catalog(Settings(models_config=str(named)))
    assert len(catalog) == len(MODELS) + 3
    assert (catalog[str(bert)].tasks, catalog[str(bert)].dimensions) == (("embed",), 32)
    assert (catalog["mine"].tasks, catalog["mine"].dimensions) == (("embed",), 16)
    assert (catalog["ours"].tasks, catalog["ours"].backend) == (("rerank",), "hf-generic")
    assert plugins.failed == {}


def test_a_model_of_another_backend_is_not_loaded_here() -> None:
    other = Model(id="m", backend="other", tasks=("embed",))
    assert [getattr(plugin, hook)(other, Context()) for hook in HOOKS] == [None] * len(HOOKS)
