"""What joining the requests of many clients gives, beside the same inputs run offline in sorted batches.

An embedder of matrices runs in a thread. A batch has a fixed cost, and one that grows with its tokens, padding counted.
64 clients send one input after the other through the engine. The limit is the same inputs at once: sorted by length, in
the largest batches allowed. Not joined, every input is a batch of its own. Rounds alternate; the best of each counts.
"""

import asyncio
import logging
import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the other core is for the event loop, as in a server

import numpy as np
import structlog

from yapit import Context, Embedder, Embedding, EmbedRequest, Model, hookimpl
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import EMBED
from yapit.tickets import Ticket

MODEL = Model(id="matrices", backend="matrices", tasks=("embed",), max_queue=1000)
CLIENTS = 64
TEXTS = {"queries": (2048, 12), "documents": (1024, 90)}  # how many, and the tokens of a middling one
WIDTH = 32  # narrow matrices and many of them: for 35 tokens, the fixed cost is half of the whole
LAYERS = 200
LONGEST = 512
ROUNDS = 3
Input = tuple[int, ...]


class Matrices(Embedder):
    """Multiplies each token's row with some matrices and takes the mean; remembers its batches."""

    def __init__(self) -> None:
        numbers = np.random.default_rng(1)
        self.rows = numbers.standard_normal((1000, WIDTH), dtype=np.float32)
        self.layers = numbers.standard_normal((LAYERS, WIDTH, WIDTH), dtype=np.float32) / np.sqrt(WIDTH)
        self.batches: list[tuple[Input, ...]] = []

    def embed(self, request: EmbedRequest) -> Iterator[Embedding]:
        """Yield the mean of each input."""
        inputs = tuple(value for value in request.inputs if isinstance(value, tuple))
        self.batches.append(inputs)
        padded = np.zeros((len(inputs), max(map(len, inputs))), dtype=np.int64)
        for place, tokens in enumerate(inputs):
            padded[place, : len(tokens)] = tokens
        values = self.rows[padded]
        for layer in self.layers:
            values = np.maximum(values @ layer, 0)
        for index, tokens in enumerate(inputs):
            mean = values[index, : len(tokens)].mean(axis=0)
            yield Embedding(index=index, vector=mean.tobytes(), tokens=len(tokens))


class Plugin:
    """Brings the embedder."""

    def __init__(self, matrices: Matrices) -> None:
        self._matrices = matrices

    @hookimpl
    def embed(self, model: Model, context: Context) -> Embedder:  # noqa: ARG002 - a hook has these
        """Return the embedder."""
        return self._matrices


def make_inputs(count: int, median: int) -> list[Input]:
    """Return inputs of mixed lengths, a few of them many times as long as most."""
    chance = random.Random(1)  # noqa: S311 - the same lengths each time
    lengths = (round(chance.lognormvariate(math.log(median), 0.8)) for _ in range(count))
    return [tuple(chance.randrange(1000) for _ in range(min(max(length, 1), LONGEST))) for length in lengths]


def sorted_batches(inputs: list[Input], max_tokens: int) -> list[list[Input]]:
    """Return the largest batches allowed of the inputs sorted by length."""
    batches: list[list[Input]] = [[]]
    for tokens in sorted(inputs, key=len):
        if len(tokens) * (len(batches[-1]) + 1) > max_tokens:
            batches.append([])
        batches[-1].append(tokens)
    return batches


async def through_engine(matrices: Matrices, inputs: list[Input], *, joined: bool) -> float:
    """Return the seconds that the clients need to send all inputs, one after the other each."""
    plugins = Plugins()
    plugins.register("matrices", Plugin(matrices))
    engine = Engine(Settings(), plugins, Catalog([MODEL]))
    await engine.load(EMBED, MODEL)
    left = list(enumerate(inputs))

    async def client(name: str) -> None:
        while left:
            number, tokens = left.pop()
            # Requests that differ in an option are not joined.
            request = EmbedRequest(inputs=(tokens,), options={} if joined else {"number": number})
            with Ticket(client=name).bound():
                async with aclosing(engine.stream(EMBED, MODEL, request)) as chunks:
                    assert len([chunk async for chunk in chunks]) == 1

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(str(number)))
    elapsed_s = time.perf_counter() - began
    await engine.close()
    return elapsed_s


async def offline(matrices: Matrices, batches: list[list[Input]]) -> float:
    """Return the seconds that the batches take without anything around them."""
    began = time.perf_counter()
    for batch in batches:
        assert len(list(matrices.embed(EmbedRequest(inputs=tuple(batch))))) == len(batch)
    return time.perf_counter() - began


def padding(batches: list[tuple[Input, ...]]) -> float:
    """Return the part of the batches that is padding."""
    whole = sum(len(batch) * max(map(len, batch)) for batch in batches)
    return 1 - sum(len(tokens) for batch in batches for tokens in batch) / whole


async def compare(texts: str) -> None:
    """Print the rows for one kind of texts."""
    inputs, matrices = make_inputs(*TEXTS[texts]), Matrices()
    batches = sorted_batches(inputs, Settings().engine.batch_tokens)
    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "offline, sorted": partial(offline, matrices, batches),
        "offline, one by one": partial(offline, matrices, [[tokens] for tokens in inputs]),
        "64 clients": partial(through_engine, matrices, inputs, joined=True),
        "64 clients, not joined": partial(through_engine, matrices, inputs, joined=False),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    seen: dict[str, list[tuple[Input, ...]]] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            matrices.batches = seen[name] = []
            times[name].append(await way())
    limit_s = min(times["offline, sorted"])
    for name, found in times.items():
        sizes = [len(batch) for batch in seen[name]]
        rate, ratio, mean = len(inputs) / min(found), limit_s / min(found), sum(sizes) / len(sizes)
        row = f"{rate:>7.0f} {ratio:>6.2f} {mean:>8.1f} {max(sizes):>8} {padding(seen[name]):>8.0%}"
        print(f"{texts:>10} {name:>23} {row}")


async def main() -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(f"{'texts':>10} {'way':>23} {'per s':>7} {'ratio':>6} {'a batch':>8} {'largest':>8} {'padding':>8}")
    for texts in TEXTS:
        await compare(texts)


if __name__ == "__main__":
    asyncio.run(main())
