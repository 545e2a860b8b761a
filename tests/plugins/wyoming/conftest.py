"""A server with models that hum, stick, speak and understand, whose Wyoming ports are free ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from live import MODELS, Server, serve
from satellite import ports, section

TRAINED = Path(__file__).parents[2] / "fixtures" / "whisper-espeak-tiny"
EARS = f"""
  - {{id: org/ears, backend: whisper, tasks: [transcribe], source: "{TRAINED}", languages: [en, de], revision: r1}}
  - {{id: stuck-ears, backend: echo, tasks: [transcribe], options: {{delay_s: 60, max_concurrency: 1}}}}
  - {{id: sharp-ears, backend: echo, tasks: [transcribe], options: {{segments: 3}}, languages: [tlh]}}
  - {{id: deaf-ears, backend: echo, tasks: [transcribe], options: {{silence: true}}}}
  - {{id: failing-ears, backend: echo, tasks: [transcribe], options: {{fail: true}}}}
  - {{id: dumb, backend: echo, tasks: [embed]}}
  - id: a/b/c
    backend: echo
    tasks: [synthesize]
    voices: [{{id: x, languages: [fi-FI]}}, {{id: y, languages: [fi]}}]
"""
QUIET = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "models.yaml").write_text(MODELS + EARS)
    settings = section(speech_model="echo", transcription_model="org/ears")
    limits = {"YAPIT_TRANSCRIPTION_MAX_AUDIO_S": "60", "YAPIT_TRANSCRIPTION_MAX_UPLOAD_BYTES": "3000000"}
    with serve(folder, YAPIT_PLUGIN_SETTINGS=settings, VOICE_MAP="nova:high", **limits, **QUIET) as running:
        yield running


@pytest.fixture
def speech(server: Server) -> int:
    return ports(server)[0]


@pytest.fixture
def transcription(server: Server) -> int:
    return ports(server)[1]
