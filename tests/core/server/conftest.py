import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from live import MODELS, Server, serve


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    folder: Path = tmp_path_factory.mktemp("server")
    (folder / "models.yaml").write_text(MODELS)
    with serve(folder, VOICE_MAP="nova:high") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as opened:
        yield opened


@pytest.fixture(scope="session")
def openai_schema() -> dict[str, Any]:
    """OpenAI's own specification, reduced to what yapit serves (MIT)."""
    document: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "openai-subset.json").read_text())
    return document
