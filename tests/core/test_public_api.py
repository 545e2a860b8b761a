import json
from importlib.metadata import version
from types import ModuleType

import pytest

import yapit
from conftest import Python

# What a plugin's author can import. A name that goes breaks plugins; a name that comes is promised for good.
PUBLIC = """
    Adapter AudioChunk Backend BackendError CapacityError Classification Classifier ClassifyRequest Context
    DeadlineError EmbedRequest Embedder Embedding GenerateRequest InvalidInputError Lane LikelyToken LoadError Model
    OutOfMemoryError ProvisionRequest ProvisionState Provisioner RateLimitError RemoteError RerankRequest Reranker Score
    Segment SettingsError StorageFullError SynthesizeRequest Synthesizer TextChunk TextGenerator TokenLogprob
    ToolCallPart TranscribeRequest Transcriber Usage Voice VoiceActivity Weights Word YapitError hookimpl read_models
""".split()  # noqa: SIM905 - as a list of strings it would fill a page


def test_the_names_are_these_and_no_others() -> None:
    assert sorted(yapit.__all__) == sorted(PUBLIC)
    assert len(yapit.__all__) == len(set(yapit.__all__))


def test_nothing_else_looks_public() -> None:
    seen = {name for name, value in vars(yapit).items() if not (name.startswith("_") or isinstance(value, ModuleType))}
    assert seen == set(PUBLIC)


@pytest.mark.parametrize("name", yapit.__all__)
def test_every_name_says_what_it_is(name: str) -> None:
    documented = getattr(yapit, name).__doc__
    assert documented
    assert documented.strip()


def test_the_version_is_the_distribution_s() -> None:
    assert version("yapit") == yapit.__version__


def test_importing_is_light(python: Python) -> None:
    heavy = ("litestar", "numpy", "stevedore", "click", "structlog", "av", "uvicorn", "rich")
    program = f"import json, sys, yapit; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    assert json.loads(python(program).stdout) == []
