"""A live server whose hub is one on this machine, and what the tests ask of it."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from hub import Generated, Hub, Repo, serve_hub
from live import DEADLINE_S, MODELS, Server, serve, until

MEGABYTE = 1_000_000
BIG = "model.safetensors"
CONFIG = (
    b'{"architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 8, '
    b'"max_position_embeddings": 64}'
)
SPEECHT5 = b'{"architectures": ["SpeechT5ForTextToSpeech"], "model_type": "speecht5"}'
SPEAKING = b'{"architectures": ["VitsModel"], "model_type": "vits", "sampling_rate": 16000}'
WRITING = b'{"architectures": ["BartForConditionalGeneration"], "model_type": "bart", "d_model": 8}'


def safetensors(**shapes: list[int]) -> bytes:
    """Return a file of safetensors whose tensors are zero."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = io.BytesIO()
    for name, shape in shapes.items():
        size = 4
        for each in shape:
            size *= each
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [body.tell(), body.tell() + size]}
        body.write(bytes(size))
    text = msgspec.json.encode(head)
    return struct.pack("<Q", len(text)) + text + body.getvalue()


def repos() -> dict[str, Repo]:
    weights = safetensors(one=[100, 50], two=[7])
    return {
        "org/small": Repo({"config.json": CONFIG, BIG: weights}),
        "org/big": Repo({"config.json": CONFIG, BIG: Generated(3 * MEGABYTE)}),
        "org/gated": Repo({"config.json": CONFIG, BIG: weights}, gated=True),
        "microsoft/speecht5_tts": Repo({"config.json": SPEECHT5, BIG: weights}),
        "microsoft/speecht5_hifigan": Repo({"config.json": b"{}", BIG: weights}),
        "org/voice": Repo({"config.json": SPEAKING, BIG: weights}),
        "suno/bark": Repo({"config.json": SPEAKING, BIG: weights}),
        "facebook/bart-large": Repo({"config.json": WRITING, BIG: weights}),
    }


@pytest.fixture
def hub() -> Iterator[Hub]:
    voices = {"Matthijs/cmu-arctic-xvectors": Repo({"spkrec-xvect.zip": b"voices"})}
    with serve_hub(repos(), voices) as running:
        yield running


def environ(hub: Hub, folder: Path) -> dict[str, str]:
    """Return what makes a server ask this hub, and keep what it has in the folder."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "YAPIT_MODELS_REFRESH_S": "0.2",
    }


class Managed:
    """A server, asked in short."""

    def __init__(self, server: Server, hub: Hub, **headers: str) -> None:
        self.server, self.hub = server, hub
        self.client = httpx.Client(base_url=server.url, timeout=30, headers=headers)

    def download(self, **fields: Any) -> httpx.Response:
        body = {"source": "huggingface", "model_id": "org/small", "name": "small", **fields}
        return self.client.post("/models/download", json=body)

    def status(self, download_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/models/download/status/{download_id}").json()
        return found

    def ended(self, download_id: str) -> dict[str, Any]:
        assert until(lambda: self.status(download_id)["status"] not in ("pending", "downloading"))
        return self.status(download_id)

    def fetch(self, **fields: Any) -> dict[str, Any]:
        """Download a model, and return how that ended."""
        answer = self.download(**fields)
        assert answer.status_code in (200, 202), answer.text
        return self.ended(answer.json()["download_id"])

    @property
    def served(self) -> list[str]:
        return [model["id"] for model in self.client.get("/v1/models").json()["data"]]


@contextmanager
def managed(hub: Hub, folder: Path, *before: str, **more: str) -> Iterator[Managed]:
    (folder / "models.yaml").write_text(MODELS)
    with serve(folder, *before, **environ(hub, folder), **more) as server:
        found = Managed(server, hub)
        try:
            yield found
        finally:
            found.client.close()


@pytest.fixture
def api(hub: Hub, tmp_path: Path) -> Iterator[Managed]:
    with managed(hub, tmp_path) as found:
        yield found


__all__ = ["BIG", "DEADLINE_S", "MEGABYTE", "Managed", "environ", "managed", "repos", "safetensors"]
