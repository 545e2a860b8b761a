"""Models whose entries change while they are loaded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from loops import run, turns
from yapit import Context, GenerateRequest, Model, TextChunk, TextGenerator, hookimpl
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.settings import EngineSettings, Settings
from yapit.tasks import GENERATE


class Hall:
    """A plugin whose models say their descriptions; at the word `wait` not before a gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.loaded: list[str] = []
        self.closed: list[str] = []
        self.inside = 0

    @hookimpl
    def generate(self, model: Model, context: Context) -> TextGenerator:
        self.loaded.append(str(model.description))
        return Guest(self, model)


class Guest(TextGenerator):
    max_concurrency = 4

    def __init__(self, hall: Hall, model: Model) -> None:
        self.hall, self.said = hall, str(model.description)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        if request.prompt == "wait":
            self.hall.inside += 1
            await self.hall.gate.wait()
        yield TextChunk(text=self.said)

    def close(self) -> None:
        self.hall.closed.append(self.said)


class Changing:
    """An engine whose catalog is replaced."""

    def __init__(self, hall: Hall, **settings: Any) -> None:
        plugins = Plugins()
        plugins.register("hall", hall)
        self.catalog = Catalog([])
        self.engine = Engine(Settings(engine=EngineSettings(**settings)), plugins, lambda: self.catalog)

    def serve(self, *models: Model) -> None:
        self.catalog = Catalog(models)
        self.engine.catch_up()

    async def ask(self, prompt: str = "") -> str:
        stream = self.engine.stream(GENERATE, self.engine.catalog["m"], GenerateRequest(prompt=prompt))
        async with aclosing(stream) as chunks:
            return "".join([chunk.text async for chunk in chunks if isinstance(chunk, TextChunk)])


def model(description: str, **fields: Any) -> Model:
    return Model(id="m", backend="hall", tasks=("generate",), description=description, **fields)


async def quiet(changing: Changing) -> None:
    """Return when nothing is loaded, or on its way."""
    while changing.engine.residency.all():
        await turns()


def test_the_engine_serves_what_the_catalog_has_now() -> None:
    async def main() -> None:
        changing = Changing(Hall())
        changing.serve(model("first"))
        assert changing.engine.catalog["m"].description == "first"
        changing.serve(model("second"))
        assert changing.engine.catalog["m"].description == "second"
        await changing.engine.close()

    run(main())


@pytest.mark.parametrize("pin", [False, True])
def test_an_idle_model_whose_entry_changed_is_unloaded_and_loaded_anew_for_the_next(*, pin: bool) -> None:
    async def main() -> None:
        hall = Hall()
        changing = Changing(hall)
        changing.serve(model("first", pin=pin))
        assert await changing.ask() == "first"
        changing.serve(model("second", pin=pin))
        await quiet(changing)
        assert hall.closed == ["first"]
        assert changing.engine.residency.history.last(model("")).reason == "its catalog entry has changed"  # type: ignore[union-attr]
        assert await changing.ask() == "second"
        await changing.engine.close()

    run(main())


def test_a_model_that_is_gone_is_unloaded() -> None:
    async def main() -> None:
        hall = Hall()
        changing = Changing(hall)
        changing.serve(model("first"))
        assert await changing.ask() == "first"
        changing.serve()
        await quiet(changing)
        assert hall.closed == ["first"]
        await changing.engine.close()

    run(main())


def test_a_model_whose_entry_is_the_same_stays() -> None:
    async def main() -> None:
        hall = Hall()
        changing = Changing(hall)
        changing.serve(model("first", options={"a": [1, {"b": 2}]}))
        assert await changing.ask() == "first"
        changing.serve(model("first", options={"a": [1, {"b": 2}]}), Model(id="n", backend="hall", tasks=()))
        await turns(50)
        assert (hall.loaded, hall.closed) == (["first"], [])
        await changing.engine.close()

    run(main())


def test_who_uses_the_old_one_ends_with_it_and_who_comes_then_gets_the_new_one() -> None:
    async def main() -> None:
        hall = Hall()
        changing = Changing(hall)
        changing.serve(model("first"))
        async with asyncio.TaskGroup() as group:
            old = [group.create_task(changing.ask("wait")) for _ in range(2)]
            while hall.inside < len(old):
                await turns()
            changing.serve(model("second"))
            new = [group.create_task(changing.ask()) for _ in range(2)]
            await turns(50)
            assert (hall.loaded, hall.closed) == (["first"], [])
            assert not any(task.done() for task in (*old, *new))
            hall.gate.set()
        assert [task.result() for task in (*old, *new)] == ["first", "first", "second", "second"]
        assert (hall.loaded, hall.closed) == (["first", "second"], ["first"])
        await changing.engine.close()

    run(main())


def test_a_request_of_many_calls_ends_with_the_model_that_it_holds() -> None:
    async def main() -> None:
        hall = Hall()
        changing = Changing(hall)
        first = model("first")
        changing.serve(first)
        async with changing.engine.hold(GENERATE, first):
            changing.serve(model("second"))
            assert await changing.ask() == "first"
        await quiet(changing)
        assert await changing.ask() == "second"
        await changing.engine.close()

    run(main())


def test_an_entry_that_is_changed_back_in_time_keeps_its_model() -> None:
    async def main() -> None:
        hall = Hall()
        changing = Changing(hall)
        changing.serve(model("first"))
        async with asyncio.TaskGroup() as group:
            group.create_task(changing.ask("wait"))
            while not hall.inside:
                await turns()
            changing.serve(model("second"))
            waits = group.create_task(changing.ask())
            await turns()
            changing.serve(model("first"))
            assert await waits == "first"
            hall.gate.set()
        await turns(50)
        assert (hall.loaded, hall.closed) == (["first"], [])
        await changing.engine.close()

    run(main())


def test_who_waits_too_long_for_the_old_one_to_go_is_told() -> None:
    async def main() -> None:
        hall = Hall()
        changing = Changing(hall, load_wait_s=0.05)
        changing.serve(model("first"))
        async with asyncio.TaskGroup() as group:
            group.create_task(changing.ask("wait"))
            while not hall.inside:
                await turns()
            changing.serve(model("second"))
            with pytest.raises(Exception, match="unloaded first: its catalog entry has changed") as refused:
                await changing.ask()
            hall.gate.set()
        assert refused.value.status == 503  # type: ignore[attr-defined]
        await changing.engine.close()

    run(main())
