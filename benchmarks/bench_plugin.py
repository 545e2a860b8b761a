"""The plugin that `executors.py` and `loads.py` measure with; they put it where children find it."""

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog

from yapit import AudioChunk, Context, Model, Synthesizer, SynthesizeRequest, hookimpl

CHUNK = bytes(4096)


class Bench(Synthesizer):
    """Says `count` chunks, or computes with torch for as long as it takes."""

    def __init__(self, model: Model) -> None:
        self.kind = model.options.get("kind", "chunks")
        self.ballast = bytearray(model.options.get("ballast_bytes", 0))
        if self.kind != "chunks":
            import torch

            torch.set_num_threads(1)
            self.torch: Any = torch
            self.large = torch.randn(1024, 1024)
            self.small = torch.randn(16, 16)

    def synthesize(self, request: SynthesizeRequest) -> Iterator[AudioChunk]:
        """Yield `count` chunks, each after some work."""
        for _ in range(int(request.text)):
            if self.kind == "kernels":
                for _ in range(4):
                    self.torch.mm(self.large, self.large)
            elif self.kind == "python":
                # As a sampling loop or a beam search does: many small operations, most of the time in Python.
                state, kept = self.small, []
                for step in range(1500):
                    state = self.torch.tanh(state @ self.small)
                    kept.append((step, float(state[0, 0])))
                    kept.sort(key=lambda pair: pair[1])
                    del kept[8:]
            yield AudioChunk(pcm=CHUNK, sample_rate=24_000)


@hookimpl
def synthesize(model: Model, context: Context) -> Synthesizer | None:  # noqa: ARG001 - the hook's signature
    """Return the adapter to measure."""
    return Bench(model) if model.backend == "bench" else None


def run(script: str, measure: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `measure` of a script in a process where this plugin is installed, for itself and for its children."""
    if "--measure" in sys.argv:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        asyncio.run(measure())
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        info = folder / "bench-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[yapit.plugins]\nbench = bench_plugin\n")
        (folder / "bench_plugin.py").write_text(Path(__file__).read_text())
        environ = {**os.environ, "PYTHONPATH": name, "XDG_CACHE_HOME": name, "OMP_WAIT_POLICY": "passive"}
        subprocess.run([sys.executable, script, "--measure"], env=environ, check=True)
