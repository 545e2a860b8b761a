import gc
import json
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.tiny import ENVIRON, Tiny, folders, loading, serve_tiny
from live import Server, serve

# Read when LiteLLM, which else asks GitHub for prices, and torch are imported.
os.environ.update(ENVIRON)
NODE = Path(sys.executable).with_name("node")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as a newcomer starts it: no file, no setting."""
    with serve(tmp_path_factory.mktemp("clients")) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny models of transformers."""
    return folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def tiny(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """A server with all of them."""
    with serve_tiny(tmp_path_factory.mktemp("tiny"), tiny_folders) as running, loading(running):
        yield running


@pytest.fixture
def node() -> Callable[..., Any]:
    """Run a script with OpenAI's client for Node, and return what it saw."""

    def run(script: str, *arguments: str) -> Any:
        path = Path(__file__).with_name("node") / script
        done = subprocess.run(
            [str(NODE), str(path), *arguments], capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(autouse=True, scope="module")
def swept() -> Iterator[None]:
    """Collect the event loops and sockets that clients leave open here, and not in another module's test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client that calls anybody but the server fail."""
    connect = socket.socket.connect

    def checked(self: socket.socket, address: Any) -> None:
        assert isinstance(address, str | bytes) or address[0] in {"127.0.0.1", "::1"}, f"connects to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)
