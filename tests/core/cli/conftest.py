import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

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
