"""Transfers in processes of their own, which may be killed, wait for one another, or find their disk full."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def transferring(program: Path, *words: str, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program that transfers, until the block is left."""
    command = [*before, sys.executable, str(program), *words]
    environ = {**os.environ, "HF_HUB_OFFLINE": "0"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return what the process still writes."""
    assert process.stdout is not None
    return [json.loads(line) for line in process.stdout]


def small_disk(size: str, folder: Path) -> tuple[str, ...]:
    """Return the words before a command that see a small disk at the folder, in a name space of their own."""
    mount = f'mount -t tmpfs -o size={size} none {folder} && exec "$@"'
    words = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no name space with a disk of its own may be made here")
    return words
