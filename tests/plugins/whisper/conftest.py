"""A Whisper that was taught ten sentences, random ones in OpenAI's layout; torch on one thread, no network."""

import os

os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctranslate2.converters import TransformersConverter

from models.whisperers import RATE, Load, Say, save_whisper
from yapit import Context, Model, SynthesizeRequest
from yapit_plugin_espeak import register_models
from yapit_plugin_espeak.adapter import EspeakSynthesizer
from yapit_plugin_whisper import transcribe
from yapit_plugin_whisper.adapter import WhisperTranscriber
from yapit_plugin_whisper.sound import resampled

TRAINED = Path(__file__).parents[2] / "fixtures" / "whisper-espeak-tiny"


@pytest.fixture(scope="session")
def trained() -> Path:
    """The folder of a Whisper with windows of 3 s that understands espeak's ten sentences."""
    return TRAINED


@pytest.fixture(scope="session")
def random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Whisper of random weights."""
    return save_whisper(tmp_path_factory.mktemp("whispers") / "random")


@pytest.fixture(scope="session")
def converted(random: Path) -> Path:
    """The folder of the same, converted by CTranslate2's own program."""
    folder = random.with_name("converted")
    files = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(random), copy_files=files).convert(str(folder))
    return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def load(data_dir: Path) -> Iterator[Load]:
    """Loads a model of a folder, with options of its entry."""
    loaded = []

    def one(source: Path | str, **fields: Any) -> WhisperTranscriber:
        entry = {name: fields.pop(name) for name in ("languages", "defaults") if name in fields}
        model = Model(id="w", backend="whisper", tasks=("transcribe",), source=str(source), options=fields, **entry)
        adapter = transcribe(model, Context(device="cpu", data_dir=data_dir))
        assert isinstance(adapter, WhisperTranscriber)
        loaded.append(adapter)
        return adapter

    yield one
    for adapter in loaded:
        adapter.close()


@pytest.fixture(scope="session")
def say() -> Iterator[Say]:
    """Speaks a sentence with espeak-ng: PCM and its rate."""
    speaker = EspeakSynthesizer(register_models()[0])

    def spoken(text: str, voice: str = "en-us", speed: float = 1.0) -> tuple[bytes, int]:
        chunks = list(speaker.synthesize(SynthesizeRequest(text=text, voice=voice, speed=speed)))
        return b"".join(chunk.pcm for chunk in chunks), chunks[0].sample_rate

    yield spoken
    speaker.close()


@pytest.fixture(scope="session")
def long_speech(say: Say) -> bytes:
    """PCM at 16 kHz of a voice that speaks for most of a minute, with pauses."""
    text = "The rain falls in the mountains, and the river carries the water slowly down into the green valley."
    pause = np.zeros(RATE * 6 // 10, "<i2").tobytes()
    parts = []
    for voice in ("en-us", "en-us+f3", "en-us+m3", "en-us", "en-us+f2", "en-us+m1", "en-us+f4", "en-us"):
        pcm, rate = say(text, voice)
        parts.append((resampled(np.frombuffer(pcm, "<i2"), rate) * 32767).astype("<i2").tobytes())
    return pause.join(parts)
