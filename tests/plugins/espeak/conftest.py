import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from yapit import AudioChunk, Model, SynthesizeRequest
from yapit_plugin_espeak import register_models
from yapit_plugin_espeak.adapter import EspeakSynthesizer

Speak = Callable[..., list[AudioChunk]]


@pytest.fixture(scope="session")
def shipped_model() -> Model:
    return register_models()[0]


@pytest.fixture(scope="session")
def model(shipped_model: Model) -> Model:
    """The shipped model where SSML is allowed."""
    options = {**shipped_model.options, "allow_ssml": True}
    return msgspec.structs.replace(shipped_model, options=options)


@pytest.fixture
def adapter(model: Model) -> Iterator[EspeakSynthesizer]:
    synthesizer = EspeakSynthesizer(model)
    yield synthesizer
    synthesizer.close()


@pytest.fixture
def speak(adapter: EspeakSynthesizer) -> Speak:
    """Speaks a text with the request's other fields as keywords."""

    def chunks_of(text: str, **fields: Any) -> list[AudioChunk]:
        return list(adapter.synthesize(SynthesizeRequest(text=text, **fields)))

    return chunks_of


@pytest.fixture
def samples(speak: Speak) -> Callable[..., NDArray[np.int16]]:
    """Like `speak`, but the audio alone."""

    def samples_of(text: str, **fields: Any) -> NDArray[np.int16]:
        return np.frombuffer(b"".join(chunk.pcm for chunk in speak(text, **fields)), "<i2")

    return samples_of


@pytest.fixture
def run_script() -> Callable[..., str]:
    """Runs a script beside this file in a process of its own, where an abort of the library is an exit code."""

    def output_of(name: str, *arguments: str) -> str:
        script = Path(__file__).with_name(name)
        done = subprocess.run(
            [sys.executable, script, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
        return done.stdout.strip()

    return output_of
