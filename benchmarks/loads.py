"""What is left of a thousand loads and unloads: memory, descriptors, threads and children of the server's process."""

import asyncio
import time

import bench_plugin
import psutil

from yapit import Model
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import SYNTHESIZE

LOADS, AT_ONCE, BALLAST = 1_000, 4, 50_000_000


def footprint() -> tuple[float, int, int, int]:
    """Return megabytes, descriptors, threads and children."""
    process = psutil.Process()
    return process.memory_info().rss / 1e6, process.num_fds(), process.num_threads(), len(process.children())


async def load_and_unload(engine: Engine, models: list[Model], times: int) -> None:
    """Load and unload, some models side by side."""

    async def one(model: Model) -> None:
        for _ in range(times // len(models)):
            await engine.load(SYNTHESIZE, model)
            await engine.unload(SYNTHESIZE, model)

    await asyncio.gather(*(one(model) for model in models))


async def measure() -> None:
    """Print the table."""
    print(f"{'executor':>10}{'loads':>8}{'ms each':>9}{'MB':>16}{'descriptors':>14}{'threads':>10}{'children':>10}")
    for executor in ("thread", "process"):
        models = [
            Model(
                id=f"{executor}-{number}",
                backend="bench",
                tasks=("synthesize",),
                executor=executor,
                options={"ballast_bytes": BALLAST},
            )
            for number in range(AT_ONCE)
        ]
        engine = Engine(Settings(), Plugins.load(["bench"]), Catalog(models))
        await load_and_unload(engine, models, 10 * AT_ONCE)
        before, began = footprint(), time.perf_counter()
        await load_and_unload(engine, models, LOADS)
        each_ms = 1000 * (time.perf_counter() - began) / LOADS
        after = footprint()
        cells = [f"{a:.0f} → {b:.0f}" for a, b in zip(before, after, strict=True)]
        print(f"{executor:>10}{LOADS:>8}{each_ms:>9.1f}{cells[0]:>16}{cells[1]:>14}{cells[2]:>10}{cells[3]:>10}")
        await engine.close()


if __name__ == "__main__":
    bench_plugin.run(__file__, measure)
