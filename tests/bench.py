"""An executor with one scripted model: what the tests of executors work at."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import scripted
from scripted import Stage
from yapit import Context, GenerateRequest, Model, TextChunk
from yapit.executors import Executor, executor
from yapit.plugins import Plugins
from yapit.schemas import Chunk
from yapit.tasks import GENERATE


class Bench:
    """One executor with one scripted model; `died` has the messages of the models that are gone."""

    def __init__(self, kind: str, model: Model) -> None:
        plugins = Plugins()
        plugins.register("scripted", scripted)
        self.executor: Executor = executor(kind, plugins, Context())
        self.model = model
        self.died: list[str] = []
        self.executor.on_death = lambda task, model, error: self.died.append(f"{task.name} {model.id}: {error.message}")

    async def load(self) -> int:
        return await self.executor.load(GENERATE, self.model)

    async def try_to_load(self) -> None:
        """Load it to see that fail; if it does not, leave nothing."""
        await self.load()
        await self.unload()

    async def unload(self) -> None:
        await self.executor.unload(GENERATE, self.model)

    @property
    def pid(self) -> int:
        """The process of its own that the model has."""
        pid = self.executor.footprint(GENERATE, self.model).pid
        assert pid is not None
        return pid

    @property
    def memory_bytes(self) -> int:
        memory = self.executor.footprint(GENERATE, self.model).memory_bytes
        assert memory is not None
        return memory

    def ask(self, *steps: tuple[str, Any], early: str | None = None) -> AsyncGenerator[Chunk, None]:
        request = GenerateRequest(prompt="", options={"steps": steps, "early": early})
        return self.executor.stream(GENERATE, self.model, request)

    async def say(self, *steps: tuple[str, Any], early: str | None = None) -> list[str]:
        """Return the texts of one call."""
        async with aclosing(self.ask(*steps, early=early)) as chunks:
            return [text(chunk) async for chunk in chunks]


class Case:
    """An executor's kind, an adapter's colour and the stage they play on: makes benches of them."""

    def __init__(self, kind: str, colour: str, folder: Path) -> None:
        self.kind = kind
        self.colour = colour
        self.stage = Stage(folder)

    def bench(self, python: str | None = None, **options: Any) -> Bench:
        options = {"folder": str(self.stage.folder), "colour": self.colour} | options
        return Bench(self.kind, Model(id="m", backend="scripted", tasks=("generate",), options=options, python=python))

    def close(self) -> None:
        self.stage.close()

    @asynccontextmanager
    async def loaded(self, **options: Any) -> AsyncIterator[Bench]:
        bench = self.bench(**options)
        await bench.load()
        try:
            yield bench
        finally:
            await bench.unload()


def text(chunk: Chunk) -> str:
    assert isinstance(chunk, TextChunk)
    return chunk.text
