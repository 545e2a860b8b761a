import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Run a program in a fresh interpreter, warnings being errors; `site` holds further distributions."""
    cache = tmp_path_factory.mktemp("cache")  # stevedore keeps what it found on disk
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("YAPIT_", "MODEL", "PYTHON"))}

    def run(program: str, *arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
        environ = clean | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(site or "")}
        command = [sys.executable, "-W", "error", "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environ)

    return run
