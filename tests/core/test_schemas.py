from typing import Any

import msgspec
import numpy as np
import pytest

from yapit import (
    AudioChunk,
    Classification,
    ClassifyRequest,
    Embedding,
    EmbedRequest,
    GenerateRequest,
    ProvisionRequest,
    ProvisionState,
    RerankRequest,
    Score,
    Segment,
    SynthesizeRequest,
    TextChunk,
    TranscribeRequest,
    Usage,
    Word,
)
from yapit.tasks import TASKS

WORD = Word(text="hi", start_s=0.25, end_s=0.5, offset=3)
EXAMPLES: list[msgspec.Struct] = [
    SynthesizeRequest(text="hi", voice="low", language="en", speed=1.5, instructions="whisper", options={"pitch": 2}),
    AudioChunk(pcm=b"\x00\x01\xff\xfe", sample_rate=24_000, words=(WORD,)),
    TranscribeRequest(pcm=b"\xff\x00", sample_rate=16_000, prompt="Names", temperature=0.5, word_times=True),
    Segment(text="hi", start_s=0, end_s=1, words=(WORD,), language="en", tokens=(1, 2), average_logprob=-0.5),
    EmbedRequest(inputs=("text", (1, 2, 3)), dimensions=8),
    Embedding(index=0, vector=b"\x00\x00\x80\x3f", tokens=3),
    GenerateRequest(messages=({"role": "user", "content": "hi"},), stop=("\n",), seed=7, max_tokens=4),
    TextChunk(text="hi", finish_reason="stop", usage=Usage(input_tokens=1, output_tokens=2)),
    RerankRequest(
        pairs=(
            ("q", "a"),
            ("q", "b"),
        )
    ),
    Score(index=1, relevance=0.5, tokens=2),
    ClassifyRequest(texts=("text",), images=(b"\xff\xd8image",), labels=("cat", "dog")),
    Classification(index=0, scores=(("cat", 0.9), ("dog", 0.1))),
    ProvisionRequest(action="remove", plan=True),
    ProvisionState(state="downloading", bytes_done=1, bytes_total=2, bytes_per_s=0.5, details={"file": "x"}),
]


def test_every_task_has_an_example() -> None:
    wanted = {kind for task in TASKS.values() for kind in (task.request, task.chunk)}
    assert wanted == {type(example) for example in EXAMPLES}


def named(example: msgspec.Struct) -> str:
    return type(example).__name__


@pytest.mark.parametrize(
    "example",
    EXAMPLES,
    ids=named,
)
def test_data_crosses_a_process_boundary_unchanged(example: msgspec.Struct) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(example), type=type(example)) == example


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_data_is_frozen(example: msgspec.Struct) -> None:
    name = example.__struct_fields__[-1]
    with pytest.raises(AttributeError):
        setattr(example, name, getattr(example, name))


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_data_takes_names_only(example: msgspec.Struct) -> None:
    positional: Any = type(example)
    with pytest.raises(TypeError):
        positional("text")


def test_the_options_of_two_requests_are_apart() -> None:
    SynthesizeRequest(text="a").options["pitch"] = 2
    assert SynthesizeRequest(text="b").options == {}


@pytest.mark.parametrize(
    ("samples", "wanted"),
    [
        ([0.0, 1.0, -1.0, 0.5], [0, 32767, -32767, 16384]),
        ([2.0, -7.5], [32767, -32767]),
        (np.array([0.25], np.float64), [8192]),
        (np.array([[0.0], [1.0]], np.float32), [0, 32767]),
        (np.array([-32768, 5, 32767], np.int16), [-32768, 5, 32767]),
        (np.array([], np.float32), []),
    ],
    ids=["floats", "clipped", "double", "column", "int16 as it is", "nothing"],
)
def test_a_chunk_from_samples(samples: Any, wanted: list[int]) -> None:
    chunk = AudioChunk.from_samples(samples, 22_050, words=(WORD,))
    assert np.frombuffer(chunk.pcm, "<i2").tolist() == wanted
    assert (chunk.sample_rate, chunk.words) == (22_050, (WORD,))
