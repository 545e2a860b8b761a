import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub import Generated, Hub, Repo, serve_hub
from live import YAPIT

Yapit = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def yapit(tmp_path: Path) -> Yapit:
    """Run the installed command in an empty folder; `said` goes to its standard input."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("YAPIT_", "MODEL"))}

    def run(*arguments: str, said: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [YAPIT, *arguments],
            cwd=tmp_path,
            env=clean | environ,
            input=said,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


MEGABYTE = 1_000_000
BIG = "model.safetensors"
HUB_MODELS = """
- {id: one, source: org/one, backend: echo, tasks: [synthesize, embed]}
- {id: two, source: org/two, backend: echo, tasks: [embed]}
- {id: gated, source: org/gated, backend: echo, tasks: [embed]}
- {id: absent, source: org/absent, backend: echo, tasks: [embed]}
- {id: elsewhere, source: org/one, backend: echo, tasks: [embed], options: {skip_download: true}}
- {id: unserved, source: org/one, backend: nobody, tasks: [embed]}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub with models that echo pretends to need, and a models file with these."""
    (tmp_path / "models.yaml").write_text(HUB_MODELS)
    repos = {
        name: Repo({"config.json": b"{}", BIG: Generated(size * MEGABYTE, size)}, gated=name == "org/gated")
        for name, size in (("org/one", 20), ("org/two", 3), ("org/gated", 3))
    }
    with serve_hub(repos) as running:
        yield running


@pytest.fixture
def online(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Return the environment in which this hub is asked, and nothing else is around."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
        "YAPIT_PLUGINS": "echo",
        "YAPIT_PORT": str(port),
    }
