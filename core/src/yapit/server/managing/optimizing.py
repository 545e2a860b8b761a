"""A model gets the options with which it is fastest here: they are tried, measured, and their answers compared."""

import asyncio
import statistics
import time
from contextlib import aclosing
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from yapit.catalog import Model, entry_of
from yapit.engine import Engine
from yapit.errors import ConflictError, LoadError, UnsupportedTaskError, YapitError
from yapit.plugins import Plugins
from yapit.schemas import Chunk
from yapit.server.managing.probing import agree, probes
from yapit.server.managing.removing import unload
from yapit.server.services import Services
from yapit.tasks import TASKS, Task
from yapit.tickets import Ticket, current

_ROUNDS = 5
_WORTH_IT = 0.95  # of the time before; what is hardly faster is measured by chance
_log = structlog.get_logger(__name__)


class Candidate(Struct, frozen=True, kw_only=True):
    """Options that were tried; `agrees` and `ms` are null where the model could not be loaded with them."""

    options: dict[str, Any]
    ms: float | None = None
    agrees: bool | None = None
    error: str | None = None


class Optimization(Struct, frozen=True, kw_only=True):
    """What was measured: the medians of a few requests, in milliseconds.

    Args:
        before_ms: with the options of before.
        after_ms: with those of now.
        options: those of now that are not those of before.
        candidates: what was tried.
    """

    before_ms: float
    after_ms: float
    options: dict[str, Any]
    candidates: list[Candidate]


class Optimized(Struct, frozen=True, kw_only=True):
    """A line for people, and the figures."""

    message: str
    figures: Optimization


class _Run(Struct, frozen=True):
    """How long a model took, and what it answered."""

    ms: float
    answers: list[list[Chunk]]


def is_optimized(plugins: Plugins, model: Model) -> bool:
    """Tell whether a model has options that its plugin offers as faster ones."""
    offered = plugins.optimizations(model)
    return any(model.options.items() >= options.items() for options in offered if options)


async def optimize(parts: Services, model: Model) -> Optimized:
    """Try what the model's plugin offers, and keep what is fastest and answers the same.

    Raises:
        ConflictError: nobody knows another way to run it, or its options are not ours to change.
        LoadError: it cannot be loaded as it is.
    """
    offered = await asyncio.to_thread(parts.engine.plugins.optimizations, model)
    tasks = [TASKS[name] for name in model.tasks if probes(name, model)]
    if not offered or not tasks:
        message = f"Nobody knows a faster way to run '{model.id}' whose answers could be compared."
        raise ConflictError(message, param="model_name", code="not_optimizable")
    async with parts.starter.turn(model.id):
        before = await _measured(parts.engine, model, tasks)
        others = [options for options in offered if not model.options.items() >= options.items()]
        tried = [await _tried(parts.engine, model, tasks, options, before) for options in others]
        good = [each for each in tried if each.agrees and each.ms is not None and each.ms < before.ms * _WORTH_IT]
        if not good:
            figures = Optimization(before_ms=before.ms, after_ms=before.ms, options={}, candidates=tried)
            return Optimized(message=f"Model '{model.id}' is at its best already", figures=figures)
        best = min(good, key=lambda each: each.ms or 0.0)
        await _keep(parts, model, best, before)
        figures = Optimization(before_ms=before.ms, after_ms=best.ms or 0.0, options=best.options, candidates=tried)
        return Optimized(message=f"Model '{model.id}' optimized successfully", figures=figures)


async def _tried(engine: Engine, model: Model, tasks: list[Task], options: dict[str, Any], before: _Run) -> Candidate:
    """Measure a model with other options, beside the one that is served."""
    trial = replace(model, id=f"{model.id}@trial", aliases=(), options={**model.options, **options})
    try:
        run = await _measured(engine, trial, tasks)
    except YapitError as error:
        return Candidate(options=options, error=error.message)
    finally:
        await unload(engine, trial)
    same = all(agree(*pair) for pair in zip(before.answers, run.answers, strict=True))
    return Candidate(options=options, ms=run.ms, agrees=same)


async def _measured(engine: Engine, model: Model, tasks: list[Task]) -> _Run:
    """Return how long a model takes for the probes of its tasks, after it was tried once."""
    requests = [(task, probe) for task in tasks for probe in probes(task.name, model)]
    times_ms: list[list[float]] = [[] for _ in requests]
    answers: list[list[Chunk]] = []
    with Ticket(current().id, store=False).bound():
        for turn in range(_ROUNDS + 1):
            for index, (task, probe) in enumerate(requests):
                began = time.perf_counter()
                try:
                    async with aclosing(engine.stream(task, model, probe)) as chunks:
                        answer = [chunk async for chunk in chunks]
                except UnsupportedTaskError as error:
                    raise LoadError(error.message, param="model_name") from error
                if turn:
                    times_ms[index].append((time.perf_counter() - began) * 1000)
                else:
                    answers.append(answer)
    return _Run(round(sum(statistics.median(each) for each in times_ms), 3), answers)


async def _keep(parts: Services, model: Model, best: Candidate, before: _Run) -> None:
    """Write the options into the model's registration."""
    if not parts.registry.is_registered(model.id):
        raise ConflictError(
            f"With the options {best.options} the model '{model.id}' takes {best.ms} ms instead of {before.ms} ms. It "
            "was not registered here: write them into its entry of models.local.yaml.",
            param="model_name",
            code="not_registered",
        )
    entry = entry_of(replace(model, options={**model.options, **best.options}))
    await asyncio.to_thread(lambda: parts.registry.register(entry, replace=True))
    parts.feed.look()
    parts.engine.catch_up()
    for name in model.tasks:
        await parts.engine.load(TASKS[name], parts.engine.catalog[model.id])
    _log.info("model_optimized", model=model.id, options=best.options, before_ms=before.ms, after_ms=best.ms)
