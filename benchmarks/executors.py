"""A model in a process of its own against the same one in a thread: calls, chunks, and what the event loop feels.

The models that compute need torch: `pip install torch==2.13.0`; without it, their rows are left out.
"""

import asyncio
import importlib.util
import statistics
import time
from contextlib import aclosing

import bench_plugin

from yapit import Model, SynthesizeRequest
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.settings import EngineSettings, Settings
from yapit.tasks import SYNTHESIZE

FIRST_CHUNKS, CALLERS, CALLS, CHUNKS = 300, 64, 50, 5_000
COMPUTE_CHUNKS = 60
TICK_S = 0.001


async def ask(engine: Engine, model: Model, chunks: int) -> None:
    """Make a call of so many chunks."""
    async with aclosing(engine.stream(SYNTHESIZE, model, SynthesizeRequest(text=str(chunks)))) as stream:
        async for _ in stream:
            pass


async def first_chunk_ms(engine: Engine, model: Model) -> float:
    """Return the median time to the first chunk."""
    times = []
    for _ in range(FIRST_CHUNKS):
        began = time.perf_counter()
        async with aclosing(engine.stream(SYNTHESIZE, model, SynthesizeRequest(text="2"))) as stream:
            await anext(stream)
            times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


async def calls_per_s(engine: Engine, model: Model) -> float:
    """Return the calls of one chunk that 64 callers make in a second."""

    async def caller() -> None:
        for _ in range(CALLS):
            await ask(engine, model, 1)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return CALLERS * CALLS / (time.perf_counter() - began)


async def chunks_per_s(engine: Engine, model: Model) -> float:
    """Return the chunks of 4 KB that come in a second."""
    began = time.perf_counter()
    await ask(engine, model, CHUNKS)
    return CHUNKS / (time.perf_counter() - began)


async def lag_ms(work: "asyncio.Future[None]") -> tuple[float, float, float]:
    """Return the median, the 99th percentile and the worst of how late the event loop is while `work` runs."""
    lags = []
    while not work.done():
        began = time.perf_counter()
        await asyncio.sleep(TICK_S)
        lags.append(1000 * (time.perf_counter() - began - TICK_S))
    await work
    lags.sort()
    return statistics.median(lags), lags[round(0.99 * (len(lags) - 1))], lags[-1]


async def measure() -> None:
    """Print the table."""
    kinds = ["chunks", *(["kernels", "python"] if importlib.util.find_spec("torch") else [])]
    models = {
        (kind, executor): Model(
            id=f"{kind}-{executor}", backend="bench", tasks=("synthesize",), executor=executor, options={"kind": kind}
        )
        for kind in kinds
        for executor in ("thread", "process")
    }
    settings = Settings(engine=EngineSettings(max_queue=10_000, keep_alive=-1))
    engine = Engine(settings, Plugins.load(["bench"]), Catalog(models.values()))
    print(f"{'':>34}{'thread':>10}{'process':>10}")
    for name, job in (
        ("first chunk ms", first_chunk_ms),
        ("calls/s, 64 callers", calls_per_s),
        ("4 KB chunks/s", chunks_per_s),
    ):
        figures = []
        for executor in ("thread", "process"):
            await engine.load(SYNTHESIZE, models["chunks", executor])
            figures.append(await job(engine, models["chunks", executor]))
        print(f"{name:>34}{figures[0]:>10.2f}{figures[1]:>10.2f}")
    for kind in kinds[1:]:
        rows: list[tuple[float, ...]] = []
        for executor in ("thread", "process"):
            model = models[kind, executor]
            load = await lag_ms(asyncio.ensure_future(engine.load(SYNTHESIZE, model)))
            began = time.perf_counter()
            work = await lag_ms(asyncio.ensure_future(ask(engine, model, COMPUTE_CHUNKS)))
            rows.append((load[2], *work, COMPUTE_CHUNKS / (time.perf_counter() - began)))
            await engine.unload(SYNTHESIZE, model)
        names = ("loop's worst lag loading ms", "loop's lag p50 ms", "p99", "worst", "chunks/s")
        for name, *pair in zip(names, *rows, strict=True):
            print(f"{f'{kind}: {name}':>34}{pair[0]:>10.1f}{pair[1]:>10.1f}")
    await engine.close()


if __name__ == "__main__":
    bench_plugin.run(__file__, measure)
