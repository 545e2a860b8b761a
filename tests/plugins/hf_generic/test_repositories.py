import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from hub import TOKEN, Hub, Repo, commit, files_of, serve_hub
from live import serve
from yapit import LoadError
from yapit_plugin_hf_generic.repositories import Repository, describe

CONFIG = {"architectures": ["BertModel"], "model_type": "bert", "vocab_size": 9, "max_position_embeddings": 16}
TEXTS = {"config.json": json.dumps(CONFIG).encode(), "tokenizer.json": b"{}", "README.md": b"---\nlicense: mit\n---\n"}
BERT = {"tasks": ["embed"], "context_length": 16, "licence": "MIT"}
SAFE = {**TEXTS, "model.safetensors": b"s" * 3000}
COPIES = dict.fromkeys(
    (
        "pytorch_model.bin",
        "model.fp16.safetensors",
        "model.fp32-00001-of-00002.safetensors",
        "consolidated.safetensors",
        "tf_model.h5",
        "flax_model.msgpack",
        "model.onnx",
        "rust_model.ot",
        "model.gguf",
        "onnx/model.onnx",
        "onnx/config.json",
        "openvino/openvino_model.bin",
        "original/consolidated.00.pth",
        "training_args.bin",
    ),
    b"copy",
)
OLD = {**TEXTS, "model.safetensors": b"old"}
CARD = b"---\npipeline_tag: text-ranking\n---\n# Judge"
REPOS = {
    "org/safe": Repo(SAFE | COPIES, older={"v1": OLD}),
    "org/pickled": Repo({**TEXTS, "pytorch_model.bin": b"p", "text.pt": b"p", "tf_model.h5": b"h"}),
    "org/foreign": Repo({**TEXTS, "weights.pt": b"p"}),
    "org/mixed": Repo({**SAFE, "2_Dense/pytorch_model.bin": b"d", "2_Dense/config.json": b'{"a": 1}'}),
    "org/bare": Repo(TEXTS),
    "org/odd[1]": Repo(SAFE),
    "org/gated": Repo(SAFE, gated=True),
    "org/private": Repo(SAFE, private=True),
    "org/broken": Repo({**SAFE, "config.json": b"{"}),
    "org/judge": Repo({**SAFE, "README.md": CARD}),
}
DATASETS = {"org/voices": Repo({"README.md": b"# Voices", "a.npy": b"a", "voices.bin": b"b"})}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(REPOS, DATASETS) as serving:
        yield serving


class Client:
    """Processes that ask one hub and share one cache."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.slept: list[float] = []

    def ask(self, url: str, *calls: tuple[str, dict[str, Any]], answer_s: float = 5, **environ: str) -> list[Any]:
        """Return what became of the calls, each in its turn."""
        told = self.home / "told.json"
        program = Path(__file__).with_name("hub_client.py")
        command = [sys.executable, "-W", "error", str(program), json.dumps(calls), str(answer_s), str(told)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environ = {**clean, "HF_ENDPOINT": url, "HF_HOME": str(self.home / "hf"), **environ}
        subprocess.run(command, env=environ, check=True, timeout=60)
        found = json.loads(told.read_text())
        assert found["heavy"] == []
        self.slept = found["slept"]
        answers: list[Any] = found["answers"]
        return answers

    def at(self, url: str, source: str, **more: Any) -> Any:
        (answer,) = self.ask(url, ("at", {"source": source, **more}))
        return answer


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


def closed_port() -> str:
    """Return the address of a port that refuses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


# ── what is fetched ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_snapshot_is_fetched_once(hub: Hub, client: Client) -> None:
    first = client.at(hub.url, "org/safe")
    assert hub.fetched == sorted(SAFE)
    hub.asked.clear()
    assert client.at(hub.url, "org/safe") == first
    assert hub.asked == []


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("org/safe", SAFE),
        ("org/pickled", [*TEXTS, "pytorch_model.bin"]),
        ("org/foreign", [*TEXTS, "weights.pt"]),
        ("org/mixed", [*SAFE, "2_Dense/pytorch_model.bin", "2_Dense/config.json"]),
    ],
)
def test_weights_are_fetched_in_one_form_only(hub: Hub, client: Client, source: str, files: list[str]) -> None:
    assert client.at(hub.url, source)["files"] == sorted(files)
    assert hub.fetched == sorted(files)


def test_a_pinned_revision_is_the_one_that_is_fetched(hub: Hub, client: Client) -> None:
    named = client.at(hub.url, "org/safe", revision="v1")
    hashed = client.at(hub.url, "org/safe", revision=commit(OLD))
    newest = client.at(hub.url, "org/safe")
    assert (Path(named["folder"]) / "model.safetensors").read_bytes() == b"old"
    assert hashed == named
    assert newest["folder"] != named["folder"]


def test_what_is_here_stays_as_it_is_when_the_hub_has_something_newer(hub: Hub, client: Client) -> None:
    before = client.at(hub.url, "org/safe")
    hub.repos["models"] = {"org/safe": Repo({**SAFE, "config.json": b'{"new": true}'})}
    hub.asked.clear()
    assert client.at(hub.url, "org/safe") == before
    assert hub.asked == []


def test_a_data_set_is_fetched_whole(hub: Hub, client: Client) -> None:
    assert client.at(hub.url, "org/voices", kind="dataset")["files"] == ["README.md", "a.npy", "voices.bin"]


def test_a_token_opens_what_is_gated_or_private(hub: Hub, client: Client) -> None:
    calls = [("at", {"source": source}) for source in ("org/gated", "org/private")]
    answers = client.ask(hub.url, *calls, HF_TOKEN=TOKEN)
    assert [answer["files"] for answer in answers] == [sorted(SAFE), sorted(SAFE)]


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"source": "org/gated"}, "'org/gated' is gated: accept its terms on the hub, and set HF_TOKEN."),
        ({"source": "org/private"}, "The hub has no repository 'org/private', or HF_TOKEN does not allow"),
        ({"source": "org/absent"}, "The hub has no repository 'org/absent', or HF_TOKEN does not allow"),
        ({"source": "org/absent", "kind": "dataset"}, "The hub has no repository 'org/absent'"),
        ({"source": "org/safe", "revision": "v9"}, "The repository 'org/safe' has no revision 'v9'."),
        ({"source": "org/bare"}, "The repository 'org/bare' has no weights that transformers can load."),
        ({"source": "./not/a/folder"}, "'./not/a/folder' is neither a folder nor the id of a repository."),
        ({"source": "~nobody-at-all/x"}, "'~nobody-at-all/x' is neither a folder nor the id of a repository."),
        ({"source": "org/safe", "fetch": False}, "'org/safe' are not on this machine, and must not be fetched."),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(
    hub: Hub, client: Client, arguments: dict[str, Any], said: str
) -> None:
    (answer,) = client.ask(hub.url, ("at", arguments))
    assert said in answer["error"]
    assert client.slept == []


def test_a_wrong_token_is_named(hub: Hub, client: Client) -> None:
    (answer,) = client.ask(hub.url, ("at", {"source": "org/safe"}), HF_TOKEN="hf_wrong")  # noqa: S106 - so it is
    assert "the hub refuses them" in answer["error"]
    assert "Invalid credentials" in answer["error"]


def test_a_hub_that_refuses_connections_is_not_asked_again_and_again(client: Client) -> None:
    url = closed_port()
    at, described = client.ask(url, ("at", {"source": "org/safe"}), ("describe", {"source": "org/safe"}))
    assert at["error"] == f"The weights of 'org/safe' are not on this machine, and the hub at {url} cannot be reached."
    assert described == {"entry": {"tasks": []}}
    assert client.slept == [], "its client would try for 23 seconds"


def test_a_hub_that_does_not_answer_is_not_waited_for(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        calls = [("at", {"source": "org/safe"}), ("describe", {"source": "org/safe"})]
        at, described = client.ask(url, *calls, answer_s=0.2)
    assert "cannot be reached" in at["error"]
    assert described == {"entry": {"tasks": []}}
    assert client.slept == []


def test_a_hub_that_is_ill_is_named(hub: Hub, client: Client) -> None:
    hub.ill = True
    assert "the hub refuses them: Server error '503" in client.at(hub.url, "org/safe")["error"]
    assert client.slept == []


@pytest.mark.parametrize("trouble", ["refusing", "ill", "offline", "skip_download"])
def test_what_was_fetched_before_needs_no_hub(hub: Hub, client: Client, trouble: str) -> None:
    before = client.ask(hub.url, ("at", {"source": "org/safe"}), ("describe", {"source": "org/safe"}))
    hub.asked.clear()
    hub.ill = trouble == "ill"
    url = closed_port() if trouble == "refusing" else hub.url
    at: dict[str, Any] = {"source": "org/safe", "fetch": trouble != "skip_download"}
    offline = str(int(trouble == "offline"))
    after = client.ask(url, ("at", at), ("describe", {"source": "org/safe"}), HF_HUB_OFFLINE=offline)
    assert after == before
    assert client.slept == []
    if trouble == "offline":
        assert hub.asked == []


def test_offline_mode_is_named(hub: Hub, client: Client) -> None:
    (answer,) = client.ask(hub.url, ("at", {"source": "org/safe"}), HF_HUB_OFFLINE="1")
    assert answer["error"].endswith("not on this machine, and offline mode (HF_HUB_OFFLINE) is on.")
    assert hub.asked == []


def test_a_snapshot_that_is_not_complete_is_none(hub: Hub, client: Client) -> None:
    folder = Path(client.at(hub.url, "org/safe")["folder"])
    (folder / "model.safetensors").unlink()
    (answer,) = client.ask(hub.url, ("at", {"source": "org/safe"}), HF_HUB_OFFLINE="1")
    assert "are not on this machine" in answer["error"]


def test_what_was_only_described_is_not_taken_for_a_model(hub: Hub, client: Client) -> None:
    client.ask(hub.url, ("describe", {"source": "org/safe"}))
    (answer,) = client.ask(hub.url, ("at", {"source": "org/safe"}), HF_HUB_OFFLINE="1")
    assert answer["error"].endswith("offline mode (HF_HUB_OFFLINE) is on.")


# ── describing ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_describing_asks_for_small_files_only(hub: Hub, client: Client) -> None:
    calls = [("describe", {"source": source}) for source in ("org/safe", "org/judge")]
    first, second = client.ask(hub.url, *calls)
    assert first["entry"] == BERT
    assert second["entry"] == {"tasks": ["rerank"], "context_length": 16}
    assert hub.fetched == ["README.md", "README.md", "config.json", "config.json"]
    hub.asked.clear()
    client.ask(hub.url, calls[0])
    assert hub.fetched == []
    assert len(hub.asked) <= 4


@pytest.mark.parametrize("source", ["org/absent", "org/gated", "org/broken"])
def test_what_cannot_be_described_has_no_task(hub: Hub, client: Client, source: str) -> None:
    (answer,) = client.ask(hub.url, ("describe", {"source": source}))
    assert answer["entry"] == {"tasks": []}
    assert client.slept == []


@pytest.mark.parametrize("source", ["https://example.org/model.bin", "./not/a/folder", "a/b/c", "~nobody-at-all/x"])
def test_what_is_no_repository_is_not_described(source: str) -> None:
    assert describe(source, None) is None


# ── folders ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(TEXTS["config.json"])
    repository = Repository.at(str(tmp_path))
    assert (repository.folder, repository.name) == (tmp_path, str(tmp_path))
    assert repository.config == CONFIG
    assert repository.json("modules.json") is None
    assert describe(str(tmp_path), None) == {"tasks": ["embed"], "context_length": 16}


def test_a_folder_with_a_broken_file_has_no_task_and_the_log_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with capture_logs() as logged:
        assert describe(str(tmp_path), None) == {"tasks": []}
    (entry,) = logged
    assert (entry["event"], entry["source"]) == ("model_unknown", str(tmp_path))
    assert entry["reason"].startswith("config.json: ")


def test_a_broken_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LoadError, match=r"The file 'config\.json' of '.*' cannot be read: "):
        _ = Repository.at(str(tmp_path)).config


# ── a server ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_id_of_a_repository_is_enough_to_serve_it(tmp_path: Path) -> None:
    from models.encoders import save_bert

    tiny = files_of(save_bert(tmp_path / "tiny"))
    (tmp_path / "models.local.yaml").write_text("models:\n  - hf_repo_id: org/tiny\n")
    with serve_hub({"org/tiny": Repo(tiny)}) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        with serve(tmp_path, **settings, YAPIT_DEVICE="cpu") as server:
            listed = httpx.get(f"{server.url}/v1/models").json()["data"]
            assert [model for model in listed if model["id"] == "org/tiny"] != []
            assert hub.fetched == ["config.json"], "the weights come with the first request"
            body = {"model": "org/tiny", "input": "the cat sleeps", "encoding_format": "float"}
            answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["data"]
    assert len(found["embedding"]) == 32
    assert "model.safetensors" in hub.fetched
