import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yapit import (
    AudioChunk,
    BackendError,
    Classification,
    ClassifyRequest,
    Context,
    Embedding,
    EmbedRequest,
    GenerateRequest,
    InvalidInputError,
    LoadError,
    Model,
    ProvisionRequest,
    ProvisionState,
    RerankRequest,
    Score,
    Segment,
    SynthesizeRequest,
    TextChunk,
    TranscribeRequest,
    Usage,
    echo,
)
from yapit.plugins import Plugins
from yapit.schemas import Chunk, Request
from yapit.tasks import PROVISION, TASKS, Task

PLUGINS = Plugins()
PLUGINS.register("echo", echo)
(MODEL,) = PLUGINS.models()["echo"]
SAID = GenerateRequest(messages=({"role": "user", "content": "a b c"},))


def answer(task: str, request: Request, **options: Any) -> list[Any]:
    """Return the chunks of one call to a new echo adapter."""
    model = Model(id="e", backend="echo", tasks=(task,), options=options)
    adapter = PLUGINS.adapter(TASKS[task], model, Context(data_dir=Path()), target="echo")

    async def collect() -> list[Any]:
        return [chunk async for chunk in getattr(adapter, task)(request)]

    return asyncio.run(collect())


REQUESTS: dict[str, tuple[Request, int]] = {  # the request, and how many chunks answer it
    "synthesize": (SynthesizeRequest(text="x" * 50, voice="high"), 3),
    "transcribe": (TranscribeRequest(pcm=bytes(8_000), sample_rate=16_000), 1),
    "embed": (EmbedRequest(inputs=("one", (1, 2), "")), 3),
    "generate": (GenerateRequest(prompt="one two three"), 4),
    "rerank": (
        RerankRequest(
            pairs=(
                ("a b", "a"),
                ("a b", "c"),
                ("a b", "b a"),
            )
        ),
        3,
    ),
    "classify": (ClassifyRequest(texts=("short", "image")), 2),
    "provision": (ProvisionRequest(), 2),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_every_task_is_answered_alike_each_time(task: Task) -> None:
    request, count = REQUESTS[task.name]
    chunks = answer(task.name, request)
    assert [type(chunk) for chunk in chunks] == [task.chunk] * count
    assert answer(task.name, request) == chunks


def test_the_model_does_all_tasks_but_provisioning() -> None:
    assert set(MODEL.tasks) == TASKS.keys() - {PROVISION.name}
    assert (MODEL.sample_rate, MODEL.dimensions, MODEL.voice(None)) == (24_000, 16, "low")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_other_backends_are_left_to_others(task: Task) -> None:
    arguments: dict[str, Any] = {"model": Model(id="e", backend="other", tasks=(task.name,)), "context": Context()}
    if task is PROVISION:
        arguments["target"] = "echo"
    assert getattr(echo, task.name)(**arguments) is None


@pytest.mark.parametrize(("text", "seconds"), [("", 0.0), ("x", 0.06), ("x" * 50, 3.0), ("x" * 59, 3.54)])
def test_speech_is_60_ms_for_each_character(text: str, seconds: float) -> None:
    chunks: Iterable[AudioChunk] = answer("synthesize", SynthesizeRequest(text=text))
    pcm = b"".join(chunk.pcm for chunk in chunks)
    assert len(pcm) == 2 * round(24_000 * seconds)
    assert {chunk.sample_rate for chunk in chunks} <= {24_000}


@pytest.mark.parametrize(("voice", "hertz"), [("low", 220), ("high", 440), (None, 220)])
def test_speech_is_a_sine_of_the_voice_s_pitch(voice: str | None, hertz: int) -> None:
    (chunk,) = answer("synthesize", SynthesizeRequest(text="x", voice=voice), seconds=1)
    samples = np.frombuffer(chunk.pcm, "<i2")
    assert np.abs(np.fft.rfft(samples)).argmax() == hertz
    assert abs(samples).max() == 8192


def test_the_length_of_speech_can_be_set() -> None:
    assert sum(len(chunk.pcm) for chunk in answer("synthesize", SynthesizeRequest(text="x"), seconds=2.5)) == 120_000


def test_speech_can_be_told_to_fail_after_its_first_chunk() -> None:
    model = Model(id="e", backend="echo", tasks=("synthesize",), options={"fail": True, "seconds": 3})
    got: list[Chunk] = []

    async def collect() -> None:
        adapter = echo.EchoSynthesizer(model, Context())
        async for chunk in adapter.synthesize(SynthesizeRequest(text="x")):
            got.append(chunk)  # noqa: PERF401 - what came before the failure counts

    with pytest.raises(BackendError, match="told to fail"):
        asyncio.run(collect())
    assert len(got) == 1


def test_concurrency_can_be_set() -> None:
    assert echo.EchoEmbedder(MODEL, Context()).max_concurrency == 1_000
    one = Model(id="e", backend="echo", tasks=("embed",), options={"max_concurrency": 1})
    assert echo.EchoEmbedder(one, Context()).max_concurrency == 1


def test_a_pause_can_be_set() -> None:
    assert len(answer("embed", EmbedRequest(inputs=("a", "b")), delay_s=0.001)) == 2


def test_the_transcript_is_as_long_as_the_audio() -> None:
    (segment,) = answer("transcribe", TranscribeRequest(pcm=bytes(32_000), sample_rate=8_000, language="de"))
    assert segment == Segment(text="This is an echo.", start_s=0, end_s=2.0, language="de")


def test_a_transcript_can_have_segments_words_and_tokens() -> None:
    asked = TranscribeRequest(pcm=bytes(32_000), sample_rate=8_000, word_times=True, logprobs=True)
    first, second = answer("transcribe", asked, segments=2)
    assert first.text + second.text == "This is an echo. This is an echo."
    assert [(part.start_s, part.end_s) for part in (first, second)] == [(0, 1), (1, 2)]
    assert [(word.text, word.start_s, word.end_s) for word in second.words][-1] == ("echo.", 1.75, 2.0)
    assert all(first.text[word.offset :].startswith(word.text) for word in first.words)
    assert "".join(token.text for token in first.token_logprobs) == "Thisisanecho."


def test_a_transcript_can_be_nothing_or_what_is_listed() -> None:
    asked = TranscribeRequest(pcm=bytes(320), sample_rate=8_000)
    assert answer("transcribe", asked, silence=True) == []
    listed = [{"text": "Hi", "start_s": 0, "end_s": 1, "tokens": [1]}]
    assert answer("transcribe", asked, answer=listed) == [Segment(text="Hi", start_s=0, end_s=1, tokens=(1,))]


@pytest.mark.parametrize(("asked", "dimensions"), [(None, 16), (5, 5)])
def test_vectors_have_length_one_and_differ(asked: int | None, dimensions: int) -> None:
    found: list[Embedding] = answer("embed", EmbedRequest(inputs=("a", "b", (97,), "a"), dimensions=asked))
    vectors = [np.frombuffer(one.vector, "<f4") for one in found]
    assert [(one.index, one.tokens) for one in found] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert {len(vector) for vector in vectors} == {dimensions}
    assert [float(np.linalg.norm(vector)) for vector in vectors] == pytest.approx([1.0] * 4)
    assert len({one.vector for one in found}) == 3, "the same text has the same vector, another one another"


@pytest.mark.parametrize(
    ("request_", "text", "reason", "usage"),
    [
        (GenerateRequest(prompt="a  b c"), "a b c", "stop", (3, 3)),
        (GenerateRequest(prompt="a b c", max_tokens=2), "a b", "length", (3, 2)),
        (GenerateRequest(messages=({"content": "no"}, {"content": "last one"})), "last one", "stop", (2, 2)),
        (GenerateRequest(prompt=""), "", "stop", (0, 0)),
        (GenerateRequest(messages=({"content": None},)), "", "stop", (0, 0)),
        (GenerateRequest(prompt="a b c", echo=True, max_tokens=1), "a b c a", "length", (3, 1)),
        (GenerateRequest(prompt="a b c", stop=("c", " b")), "a", "stop", (3, 1)),
        (GenerateRequest(prompt="ab cd", stop=("b c",)), "a", "stop", (2, 1)),
        (GenerateRequest(prompt="a b", stop=("x",), max_tokens=1), "a", "length", (2, 1)),
        (GenerateRequest(prompt="a b", stop=("a",), echo=True), "", "stop", (2, 0)),
    ],
)
def test_text_comes_back_word_by_word(
    request_: GenerateRequest, text: str, reason: str, usage: tuple[int, int]
) -> None:
    *words, last = answer("generate", request_)
    assert "".join(word.text for word in words) == text
    assert all(word.finish_reason is None for word in words)
    assert last == TextChunk(finish_reason=reason, usage=Usage(input_tokens=usage[0], output_tokens=usage[1]))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_each_word_is_a_token_that_is_certain(count: int) -> None:
    first, second, last = answer("generate", GenerateRequest(prompt="é b", logprobs=count))
    for chunk in (first, second):
        (token,) = chunk.logprobs
        assert (token.text, token.logprob, token.data) == (chunk.text, 0.0, chunk.text.encode())
        assert [likely.text for likely in token.top] == [chunk.text] * min(count, 1)
    assert last.logprobs == ()
    assert all(not chunk.logprobs for chunk in answer("generate", GenerateRequest(prompt="a b")))


def test_an_answer_can_be_scripted() -> None:
    script = [{"text": "a", "logprobs": [{"text": "a", "logprob": -1}]}, {"tool_calls": [{"index": 0, "name": "f"}]}]
    first, second = answer("generate", GenerateRequest(prompt="x"), answer=script)
    assert (first.text, first.logprobs[0].logprob, second.tool_calls[0].name) == ("a", -1.0, "f")
    with pytest.raises(LoadError):
        answer("generate", GenerateRequest(prompt="x"), answer=[{"text": 5}])


@pytest.mark.parametrize(("request_", "param"), [(GenerateRequest(prompt="a b c"), "prompt"), (SAID, "messages")])
def test_a_prompt_longer_than_the_context_is_refused(request_: GenerateRequest, param: str) -> None:
    adapter = echo.EchoTextGenerator(Model(id="e", backend="echo", tasks=("generate",), context_length=2), Context())

    async def collect() -> None:
        [chunk async for chunk in adapter.generate(request_)]

    with pytest.raises(InvalidInputError, match="3 tokens; the model reads 2") as refused:
        asyncio.run(collect())
    assert (refused.value.param, refused.value.code) == (param, "context_length_exceeded")


def test_writing_can_be_told_to_fail_after_its_first_chunk() -> None:
    with pytest.raises(BackendError, match="told to fail"):
        answer("generate", GenerateRequest(prompt="a b"), fail=True)


def test_a_document_scores_by_the_words_it_shares() -> None:
    assert answer("rerank", RerankRequest(pairs=tuple(("Red fox", said) for said in ("a fox", "FOX red", "cow")))) == [
        Score(index=0, relevance=0.5, tokens=2),
        Score(index=1, relevance=1.0, tokens=2),
        Score(index=2, relevance=0.0, tokens=1),
    ]


def test_labels_are_those_asked_for_best_first() -> None:
    found: list[Classification] = answer("classify", ClassifyRequest(images=(b"x", b"y"), labels=("a", "b", "c")))
    assert found == [Classification(index=i, scores=(("a", 0.9), ("b", 0.05), ("c", 0.05))) for i in range(2)]


@pytest.mark.parametrize(("text", "best"), [("x", "short"), ("x" * 100, "long")])
def test_without_labels_it_tells_short_from_long(text: str, best: str) -> None:
    (found,) = answer("classify", ClassifyRequest(texts=(text,)))
    assert found.scores[0][0] == best
    assert sum(score for _, score in found.scores) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("request_", "states"),
    [
        (ProvisionRequest(), ["preparing", "ready"]),
        (ProvisionRequest(action="remove"), ["preparing", "removed"]),
        (ProvisionRequest(action="remove", plan=True), ["planned"]),
    ],
)
def test_a_deployment_passes_through_its_states(request_: ProvisionRequest, states: list[str]) -> None:
    found: list[ProvisionState] = answer("provision", request_)
    assert [one.state for one in found] == states
