"""From prompts to answers, with a model whose every step a test decides."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from loops import run, turns
from yapit import BackendError, Context, GenerateRequest, InvalidInputError, Model, TextChunk, TextGenerator, Usage
from yapit import hookimpl as implements
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.errors import RateLimitError, YapitError
from yapit.generation import Answer, Generation, Piece, with_defaults
from yapit.plugins import Plugins
from yapit.schemas import TokenLogprob, ToolCallPart
from yapit.settings import CacheSettings, EngineSettings, Settings
from yapit.tasks import GENERATE
from yapit.tickets import Ticket

END = TextChunk(finish_reason="stop", usage=Usage(input_tokens=7, output_tokens=2, cached_tokens=3, reasoning_tokens=1))


class Writer(TextGenerator):
    """Says `said`; before each chunk but the first it waits for `go_on`, and fails if its seed is in `failing`."""

    def __init__(self, slots: int = 100) -> None:
        self.max_concurrency = slots
        self.requests: list[GenerateRequest] = []
        self.open = self.loads = 0
        self.said = [TextChunk(text="a"), TextChunk(text="b"), END]
        self.failing: dict[int | None, Exception] = {}
        self.go_on, self.start = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.start.set()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        self.requests.append(request)
        self.open += 1
        try:
            await self.start.wait()
            for number, chunk in enumerate(self.said):
                if number:
                    await self.go_on.wait()
                if request.seed in self.failing:
                    raise self.failing[request.seed]
                yield chunk
        finally:
            await asyncio.sleep(0)  # letting go may take a turn of the loop
            self.open -= 1


class Repeater(Writer):
    """Says its prompt; a longer one sooner."""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        await turns(10 - len(str(request.prompt)))
        yield TextChunk(text=str(request.prompt))


class Endless(Writer):
    """Counts what it says."""

    made = 0

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        while True:
            await asyncio.sleep(0)
            self.made += 1
            yield TextChunk(text="x")


class Finder(Writer):
    """Finds as much of its prompt as its seed says."""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        yield TextChunk(usage=Usage(input_tokens=7, output_tokens=1, cached_tokens=request.seed or 0))


class Plugin:
    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    @implements
    def generate(self, model: Model, context: Context) -> TextGenerator:
        self.writer.loads += 1
        return self.writer


@asynccontextmanager
async def engine_of(writer: Writer, settings: Settings | None = None) -> AsyncIterator[tuple[Engine, Model]]:
    model = Model(id="w", backend="w", tasks=("generate",))
    plugins = Plugins()
    plugins.register("w", Plugin(writer))
    engine = Engine(settings or Settings(), plugins, Catalog([model]))
    try:
        yield engine, model
    finally:
        assert writer.open == 0
        assert engine.running() == 0
        await engine.close()


def asked(engine: Engine, model: Model, n: int = 1, **fields: Any) -> Generation:
    return Generation(engine, model, [GenerateRequest(**{"prompt": "x", **fields})], n)


async def pieces_of(generation: Generation) -> list[Piece]:
    async with aclosing(generation.pieces()) as pieces:
        return [piece async for piece in pieces]


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_one_answer_is_the_models_chunks() -> None:
    async def main() -> None:
        async with engine_of(Writer()) as (engine, model):
            generation = asked(engine, model)
            assert await pieces_of(generation) == [(0, TextChunk(text="a")), (0, TextChunk(text="b")), (0, END)]
            assert generation.usage == END.usage

    run(main())


@pytest.mark.parametrize("n", [1, 3])
def test_every_answer_ends_with_a_finish_reason(n: int) -> None:
    async def main() -> None:
        writer = Writer()
        writer.said = [TextChunk(text="a")]
        async with engine_of(writer) as (engine, model):
            pieces = await pieces_of(asked(engine, model, n))
            assert sorted(index for index, chunk in pieces if chunk.finish_reason == "stop") == list(range(n))

    run(main())


def test_a_prompt_counts_once_and_what_is_written_each_time() -> None:
    async def main() -> None:
        async with engine_of(Writer()) as (engine, model):
            generation = Generation(engine, model, [GenerateRequest(prompt=text) for text in "xyz"], 2)
            answers = await generation.answers()
            assert [(answer.text, answer.finish_reason) for answer in answers] == [("ab", "stop")] * 6
            assert generation.usage == Usage(input_tokens=21, output_tokens=12, cached_tokens=9, reasoning_tokens=6)

    run(main())


def test_what_had_been_read_before_is_what_the_first_answer_found() -> None:
    """The others find all of the prompt, since the first has read it."""

    async def main() -> None:
        writer = Finder()
        async with engine_of(writer) as (engine, model):
            generation = asked(engine, model, 3, seed=0)
            await generation.answers()
            assert generation.usage == Usage(input_tokens=7, output_tokens=3, cached_tokens=0)

    run(main())


def test_an_answer_has_the_place_of_its_prompt_whichever_comes_first() -> None:
    async def main() -> None:
        async with engine_of(Repeater()) as (engine, model):
            prompts = ["x" * length for length in range(1, 6)]
            generation = Generation(engine, model, [GenerateRequest(prompt=text) for text in prompts], 2)
            assert [answer.text for answer in await generation.answers()] == [t for t in prompts for _ in range(2)]

    run(main())


@pytest.mark.parametrize(("seed", "seeds"), [(None, [None] * 3), (5, [5, 6, 7]), (0, [0, 1, 2]), (-1, [-1, 0, 1])])
def test_each_answer_has_a_seed_of_its_own(seed: int | None, seeds: list[int | None]) -> None:
    async def main() -> None:
        writer = Writer()
        async with engine_of(writer) as (engine, model):
            await asked(engine, model, 3, seed=seed).answers()
            assert [request.seed for request in writer.requests] == seeds

    run(main())


# ── several at once ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_others_begin_with_the_first_chunk_of_the_first_and_run_together() -> None:
    async def main() -> None:
        writer = Writer()
        writer.start.clear()
        writer.go_on.clear()
        async with engine_of(writer) as (engine, model), aclosing(asked(engine, model, 4).pieces()) as pieces:
            first = asyncio.ensure_future(anext(pieces))
            await turns(50)
            assert writer.open == 1, "before its first chunk it is alone"
            writer.start.set()
            assert await first == (0, TextChunk(text="a"))
            assert [await anext(pieces) for _ in range(3)] == [(index, TextChunk(text="a")) for index in (1, 2, 3)]
            assert writer.open == 4, "all wait for `go_on` at once"
            writer.go_on.set()
            assert len([piece async for piece in pieces]) == 8
            assert writer.loads == 1

    run(main())


def test_the_answers_of_one_request_do_not_fill_the_line_that_others_wait_in() -> None:
    """There is one slot and nobody may wait: but what has been let in goes on."""

    async def main() -> None:
        settings = Settings(engine=EngineSettings(max_queue=0))
        async with engine_of(Writer(slots=1), settings) as (engine, model):
            with Ticket("first").bound():
                assert len(await asked(engine, model, 5).answers()) == 5
            async with aclosing(asked(engine, model).pieces()) as busy:
                await anext(busy)
                with Ticket("second").bound(), pytest.raises(RateLimitError):
                    await asked(engine, model).answers()

    run(main())


def test_a_reader_who_leaves_ends_every_call() -> None:
    async def main() -> None:
        writer = Writer()
        writer.go_on.clear()
        async with engine_of(writer) as (engine, model):
            async with aclosing(asked(engine, model, 8).pieces()) as pieces:
                for _ in range(8):
                    await anext(pieces)
                assert writer.open == 8
            assert writer.open == 0
            assert engine.running() == 0

    run(main())


def test_a_reader_who_is_cancelled_ends_every_call() -> None:
    async def main() -> None:
        writer = Writer()
        writer.go_on.clear()
        async with engine_of(writer) as (engine, model):
            reading = asyncio.ensure_future(asked(engine, model, 8).answers())
            while writer.open < 8:
                await turns()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert writer.open == 0

    run(main())


@pytest.mark.parametrize("failing", [0, 2])
@pytest.mark.parametrize("error", [InvalidInputError("No.", param="prompt"), ValueError("secret")])
def test_one_that_fails_ends_the_others_and_its_error_is_the_readers(failing: int, error: Exception) -> None:
    async def main() -> None:
        writer = Writer()
        writer.failing = {failing: error}
        async with engine_of(writer) as (engine, model):
            wanted = type(error) if isinstance(error, YapitError) else BackendError
            with pytest.raises(wanted) as raised:
                await asked(engine, model, 4, seed=0).answers()
            assert type(raised.value) is wanted
            assert len(writer.requests) == (1 if failing == 0 else 4)
            assert writer.open == 0

    run(main())


def test_a_reader_who_is_slow_holds_back_the_model() -> None:
    async def main() -> None:
        writer = Endless()
        async with engine_of(writer) as (engine, model), aclosing(asked(engine, model, 3).pieces()) as pieces:
            await anext(pieces)
            await turns(500)
            assert 60 < writer.made < 80

    run(main())


def test_the_model_stays_while_answers_are_to_come() -> None:
    async def main() -> None:
        writer = Writer(slots=1)
        writer.go_on.clear()
        async with engine_of(writer) as (engine, model), aclosing(asked(engine, model, 3).pieces()) as pieces:
            await anext(pieces)
            await turns(20)
            assert [resident.users for resident in engine.residency.all()] == [4], "three calls, and the request"
            writer.go_on.set()
            assert len([piece async for piece in pieces]) == 8

    run(main())


def test_answers_that_are_kept_need_no_model() -> None:
    async def main() -> None:
        writer = Writer()
        settings = Settings(cache=CacheSettings(enabled=True))
        async with engine_of(writer, settings) as (engine, model):
            first = await asked(engine, model, 3, seed=1).answers()
            await engine.unload(GENERATE, model)
            assert writer.loads == 1
            again = await asked(engine, model, 3, seed=1).answers()
            assert [answer.text for answer in again] == [answer.text for answer in first]
            assert writer.loads == 1

    run(main())


def test_equal_answers_that_are_made_once_are_all_there() -> None:
    """Greedy answers are equal: those that come together are one call."""

    async def main() -> None:
        writer = Writer(slots=1)
        settings = Settings(cache=CacheSettings(single_flight=True))
        async with engine_of(writer, settings) as (engine, model):
            answers = await asked(engine, model, 5, temperature=0.0).answers()
            assert [answer.text for answer in answers] == ["ab"] * 5
            assert len(writer.requests) < 5

    run(main())


# ── defaults ──────────────────────────────────────────────────────────────────────────────────────────────────────────
DEFAULTS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.1,
    "max_tokens": 100,
    "stop": "END",
    "frequency_penalty": 1,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.1,
    "logit_bias": {"5": -1},
    "seed": 3,
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
}


def model_with(**defaults: Any) -> Model:
    return Model(id="m", backend="b", tasks=("generate",), defaults=defaults)


def test_defaults_fill_what_the_request_leaves_out() -> None:
    filled = with_defaults(model_with(**DEFAULTS), GenerateRequest(prompt="x"))
    wanted = DEFAULTS | {"stop": ("END",), "logit_bias": {5: -1.0}, "frequency_penalty": 1.0}
    assert {name: getattr(filled, name) for name in DEFAULTS} == wanted
    assert (filled.prompt, filled.options) == ("x", {})


def test_what_the_request_says_wins_also_a_zero() -> None:
    said: dict[str, Any] = {
        "temperature": 0.0,
        "top_p": 0.0,
        "top_k": 0,
        "min_p": 0.0,
        "max_tokens": 0,
        "stop": ("NO",),
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "logit_bias": {1: 2.0},
        "seed": 0,
        "reasoning_effort": "none",
        "response_format": {"type": "text"},
    }
    assert said.keys() == DEFAULTS.keys()
    request = GenerateRequest(prompt="x", **said)
    assert with_defaults(model_with(**DEFAULTS), request) == request


def test_other_defaults_are_the_models_options_but_not_those_of_other_tasks() -> None:
    model = model_with(voice="low", language="de", beams=3, chat_template_kwargs={"enable_thinking": False})
    filled = with_defaults(model, GenerateRequest(prompt="x", options={"beams": 5, "own": 1}))
    assert filled.options == {"beams": 5, "own": 1, "chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize("name", ["messages", "prompt", "tools", "echo", "logprobs", "options"])
def test_what_is_asked_has_no_defaults(name: str) -> None:
    request = GenerateRequest(prompt="x")
    assert with_defaults(model_with(**{name: 1}), request) == request


def test_a_wrong_default_is_the_servers_fault_and_is_named() -> None:
    with pytest.raises(BackendError, match="The model 'm' has a wrong default 'temperature': Expected `float"):
        with_defaults(model_with(temperature="hot"), GenerateRequest(prompt="x"))


def test_defaults_reach_the_adapter() -> None:
    async def main() -> None:
        writer = Writer()
        async with engine_of(writer) as (engine, model):
            await Generation(engine, _with(model, seed=7), [GenerateRequest(prompt="x")], 2).answers()
            assert [request.seed for request in writer.requests] == [7, 8]

    run(main())


def _with(model: Model, **defaults: Any) -> Model:
    return Model(id=model.id, backend=model.backend, tasks=model.tasks, defaults=defaults)


# ── one answer ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_answer_is_put_together_from_its_pieces() -> None:
    answer = Answer()
    for chunk in (
        TextChunk(reasoning="h"),
        TextChunk(reasoning="m"),
        TextChunk(text="a", logprobs=(TokenLogprob(text="a", logprob=-1.0),)),
        TextChunk(tool_calls=(ToolCallPart(index=1, id="2", name="g"), ToolCallPart(index=0, id="1", name="f"))),
        TextChunk(tool_calls=(ToolCallPart(index=0, arguments="{"), ToolCallPart(index=1, arguments="[]"))),
        TextChunk(tool_calls=(ToolCallPart(index=0, arguments="}"),)),
        TextChunk(text="b", logprobs=(TokenLogprob(text="b", logprob=-2.0),), finish_reason="length"),
        TextChunk(usage=Usage(input_tokens=1, output_tokens=1)),
    ):
        answer.add(chunk)
    assert (answer.reasoning, answer.text, answer.finish_reason) == ("hm", "ab", "length")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [("1", "f", "{}"), ("2", "g", "[]")]
    assert answer.mean_logprob == -1.5


@pytest.mark.parametrize(
    ("logprobs", "mean"), [([], float("-inf")), ([float("nan"), -1.0, -3.0], -2.0), ([float("nan")], float("-inf"))]
)
def test_the_mean_leaves_out_what_is_not_known(logprobs: list[float], mean: float) -> None:
    answer = Answer()
    answer.add(TextChunk(logprobs=tuple(TokenLogprob(text="x", logprob=value) for value in logprobs)))
    assert answer.mean_logprob == mean
