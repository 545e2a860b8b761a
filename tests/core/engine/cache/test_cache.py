"""The cache before the engine: what is answered from it, what is run once for many, and what is never kept."""

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loops import run, turns
from yapit import (
    Backend,
    BackendError,
    CapacityError,
    Context,
    DeadlineError,
    Embedder,
    Embedding,
    EmbedRequest,
    GenerateRequest,
    Model,
    SettingsError,
    TextChunk,
    TextGenerator,
    hookimpl,
)
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.engine import cache as module
from yapit.errors import YapitError
from yapit.plugins import Plugins
from yapit.settings import CacheSettings, Settings
from yapit.tasks import EMBED, GENERATE
from yapit.tickets import CacheOutcome, Ticket

MODEL = Model(id="m", backend="rig", tasks=("generate", "embed"), revision="abc", options={"a": 1})
OFF = CacheSettings()
KEPT = CacheSettings(enabled=True, max_size="10MB")
SHARED = CacheSettings(single_flight=True)
BOTH = CacheSettings(enabled=True, max_size="10MB", single_flight=True)
Answer = tuple[str, CacheOutcome | None]


class Rig:
    """A plugin that counts; `hold` in a prompt waits before that word, `fail` fails there."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.loads = self.inside = 0
        self.held, self.go_on = asyncio.Event(), asyncio.Event()

    @hookimpl
    def register_backends(self) -> list[Backend]:
        return [Backend(name="rig")]

    @hookimpl
    def generate(self, model: Model, context: Context) -> TextGenerator | None:
        self.loads += 1
        return Tells(self)

    @hookimpl
    def embed(self, model: Model, context: Context) -> Embedder | None:
        self.loads += 1
        return Embeds(self)


class Tells(TextGenerator):
    max_concurrency = 1

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TextChunk]:
        rig = self.rig
        told = str(request.prompt or "")
        rig.calls.append(told)
        rig.inside += 1
        try:
            for word in told.split():
                if word == "hold":
                    rig.held.set()
                    await rig.go_on.wait()
                if word == "fail":
                    raise BackendError("told to fail")
                yield TextChunk(text=f"{word} ")
        finally:
            try:
                await asyncio.sleep(0)  # letting go takes a while
            finally:
                rig.inside -= 1


class Embeds(Embedder):
    max_concurrency = 2

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    async def embed(self, request: EmbedRequest) -> AsyncIterator[Embedding]:
        self.rig.calls.append(repr(request.inputs))
        for index, _ in enumerate(request.inputs):
            yield Embedding(index=index, vector=b"\0\0\0\0", tokens=1)


def engine_of(
    rig: Rig, folder: Path, cache: CacheSettings = BOTH, version: str = "1.0", model: Model = MODEL
) -> Engine:
    plugins = Plugins()
    plugins.register("rig", rig)
    plugins._versions["rig"] = version
    return Engine(Settings(cache=cache, data_dir=str(folder)), plugins, Catalog([model]))


async def ask(
    engine: Engine, prompt: str, *, store: bool = True, model: Model = MODEL, take: int = -1, **fields: Any
) -> Answer:
    """Return what is generated, of which no more than `take` chunks are read, and what the ticket says."""
    request = GenerateRequest(prompt=prompt, **{"temperature": 0.0, **fields})
    text = ""
    with Ticket(store=store).bound() as ticket:
        async with aclosing(engine.stream(GENERATE, model, request)) as chunks:
            async for chunk in chunks:
                assert isinstance(chunk, TextChunk)
                text += chunk.text
                take -= 1
                if not take:
                    break
    return text, ticket.cache


def serve(
    job: Callable[[Engine, Rig], Awaitable[None]], folder: Path, cache: CacheSettings = BOTH, model: Model = MODEL
) -> None:
    async def main() -> None:
        rig = Rig()
        engine = engine_of(rig, folder, cache, model=model)
        try:
            await job(engine, rig)
        finally:
            await engine.close()
        assert rig.inside == 0
        assert not engine.cache._flights
        assert not engine.cache._open

    run(main())


def counted(engine: Engine) -> dict[str, float]:
    samples = next(iter(engine.meters.cached.collect())).samples
    return {sample.labels["outcome"]: sample.value for sample in samples if sample.name.endswith("_total")}


# ── hit, miss, coalesced ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("cache", [KEPT, BOTH])
def test_the_second_time_the_answer_comes_from_the_cache(tmp_path: Path, cache: CacheSettings) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        assert await ask(engine, "a b") == ("a b ", "miss")
        assert await ask(engine, "a b") == ("a b ", "hit")
        assert await ask(engine, "") == ("", "miss")
        assert await ask(engine, "") == ("", "hit")
        assert rig.calls == ["a b", ""]
        assert counted(engine) == {"miss": 2, "hit": 2}
        calls = next(iter(engine.meters.calls.collect())).samples
        assert (
            sum(sample.value for sample in calls if sample.labels.get("outcome") == "ok" and "_total" in sample.name)
            == 4
        )

    serve(job, tmp_path, cache)


@pytest.mark.parametrize("cache", [SHARED, BOTH])
def test_fifty_equal_requests_at_once_call_the_adapter_once(tmp_path: Path, cache: CacheSettings) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        requests = [asyncio.create_task(ask(engine, "a hold b")) for _ in range(50)]
        await rig.held.wait()
        await turns()
        rig.go_on.set()
        answers = await asyncio.gather(*requests)
        assert {text for text, _ in answers} == {"a hold b "}
        assert [outcome for _, outcome in answers] == ["miss"] + ["coalesced"] * 49
        assert rig.calls == ["a hold b"]
        assert counted(engine) == {"miss": 1, "coalesced": 49}

    serve(job, tmp_path, cache)


def test_fifty_equal_requests_of_a_quick_model_call_it_once_too(tmp_path: Path) -> None:
    """The first may have ended before the last have looked into the cache."""

    async def job(engine: Engine, rig: Rig) -> None:
        for word in map(str, range(20)):
            answers = await asyncio.gather(*(asyncio.create_task(ask(engine, word)) for _ in range(50)))
            outcomes = [outcome for _, outcome in answers]
            assert {text for text, _ in answers} == {f"{word} "}
            assert outcomes.count("miss") == 1
            assert rig.calls.count(word) == 1

    serve(job, tmp_path)


def test_those_who_share_a_hit_have_hits(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        await ask(engine, "a b")
        answers = await asyncio.gather(*(asyncio.create_task(ask(engine, "a b")) for _ in range(5)))
        assert answers == [("a b ", "hit")] * 5
        assert counted(engine) == {"miss": 1, "hit": 5}

    serve(job, tmp_path)


def test_requests_that_differ_are_not_shared(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        answers = await asyncio.gather(
            ask(engine, "a"), ask(engine, "b"), ask(engine, "a", seed=1), ask(engine, "a", max_tokens=5)
        )
        assert [outcome for _, outcome in answers] == ["miss"] * 4
        assert sorted(rig.calls) == ["a", "a", "a", "b"]

    serve(job, tmp_path)


def test_embeddings_are_kept_too(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        for words in (("a", "b"), ("a", "b"), ("b", "a")):
            with Ticket().bound():
                async with aclosing(engine.stream(EMBED, MODEL, EmbedRequest(inputs=words))) as chunks:
                    found = [chunk async for chunk in chunks]
            assert found == [Embedding(index=index, vector=bytes(4), tokens=1) for index in range(2)]
        assert rig.calls == ["('a', 'b')", "('b', 'a')"]

    serve(job, tmp_path)


def test_a_hit_needs_no_model(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        await ask(engine, "a")
        await engine.unload(GENERATE, MODEL)
        assert await engine.knows(GENERATE, MODEL, GenerateRequest(prompt="a", temperature=0.0))
        assert await ask(engine, "a") == ("a ", "hit")
        assert rig.loads == 1
        assert not await engine.knows(GENERATE, MODEL, GenerateRequest(prompt="b", temperature=0.0))
        with Ticket(store=False).bound():
            assert not await engine.knows(GENERATE, MODEL, GenerateRequest(prompt="a", temperature=0.0))

    serve(job, tmp_path)


def test_a_warm_up_runs_the_model_whatever_is_in_the_cache(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        await engine.warm_up(MODEL)
        calls = len(rig.calls)
        await engine.warm_up(MODEL)
        assert len(rig.calls) == 2 * calls == 4

    serve(job, tmp_path)


# ── what makes a difference ───────────────────────────────────────────────────────────────────────────────────────────
def test_a_restart_keeps_the_results_and_a_new_version_or_model_does_not(tmp_path: Path) -> None:
    async def main() -> None:
        async def outcome(version: str = "1.0", **fields: Any) -> CacheOutcome | None:
            model = msgspec.structs.replace(MODEL, **fields)
            engine = engine_of(Rig(), tmp_path, KEPT, version, model)
            _, outcome = await ask(engine, "a b", model=model)
            await engine.close()
            return outcome

        assert await outcome() == "miss"
        assert await outcome() == "hit"
        assert await outcome("1.1") == "miss"
        assert await outcome(revision="abd") == "miss"
        assert await outcome(options={"a": 2}) == "miss"
        assert await outcome() == "hit"

    run(main())


def test_answers_left_to_chance_are_neither_kept_nor_shared(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        rig.go_on.set()
        for _ in range(2):
            answers = await asyncio.gather(*(ask(engine, "hold", temperature=0.7) for _ in range(3)))
            assert answers == [("hold ", None)] * 3
        assert len(rig.calls) == 6
        assert counted(engine) == {}

    serve(job, tmp_path)


def test_a_model_that_is_not_deterministic_is_asked_each_time(tmp_path: Path) -> None:
    model = msgspec.structs.replace(MODEL, deterministic=False)

    async def job(engine: Engine, rig: Rig) -> None:
        for _ in range(2):
            assert await ask(engine, "a", model=model) == ("a ", None)
        assert rig.calls == ["a", "a"]

    serve(job, tmp_path, model=model)


def test_no_store_neither_takes_from_the_cache_nor_puts_into_it(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        await ask(engine, "a")
        assert await ask(engine, "a", store=False) == ("a ", "miss")
        assert await ask(engine, "b", store=False) == ("b ", "miss")
        assert await ask(engine, "b") == ("b ", "miss")
        assert rig.calls == ["a", "a", "b", "b"]

    serve(job, tmp_path)


def test_no_store_without_single_flight_is_as_if_there_were_no_cache(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        assert await ask(engine, "a", store=False) == ("a ", None)
        assert await ask(engine, "a") == ("a ", "miss")

    serve(job, tmp_path, KEPT)


def test_who_asks_for_no_store_shares_only_with_others_who_do(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        requests = [asyncio.create_task(ask(engine, "a hold", store=store)) for store in (True, False, True, False)]
        await rig.held.wait()
        await turns()
        rig.go_on.set()
        outcomes = [outcome for _, outcome in await asyncio.gather(*requests)]
        assert outcomes == ["miss", "miss", "coalesced", "coalesced"]
        assert len(rig.calls) == 2

    serve(job, tmp_path)


def test_without_the_cache_no_store_is_shared_with_everybody(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        requests = [asyncio.create_task(ask(engine, "a hold", store=store)) for store in (True, False)]
        await rig.held.wait()
        await turns()
        rig.go_on.set()
        assert [outcome for _, outcome in await asyncio.gather(*requests)] == ["miss", "coalesced"]

    serve(job, tmp_path, SHARED)


# ── never a part ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("cache", [KEPT, BOTH])
def test_an_answer_whose_client_left_in_the_middle_is_not_kept(tmp_path: Path, cache: CacheSettings) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        rig.go_on.set()
        prompt = "a hold " + "b " * 50
        assert await ask(engine, prompt, take=1) == ("a ", "miss")
        assert rig.inside == 0
        if not cache.single_flight:
            everything = await ask(engine, prompt, take=len(prompt.split()))
            assert everything == (prompt, "miss"), "all of it was read, but not its end"
        assert await ask(engine, prompt) == (prompt, "miss")
        assert await ask(engine, prompt, take=1) == ("a ", "hit")
        assert await ask(engine, prompt) == (prompt, "hit")

    serve(job, tmp_path, cache)


@pytest.mark.parametrize("cache", [KEPT, BOTH])
def test_an_answer_whose_client_was_cancelled_is_not_kept(tmp_path: Path, cache: CacheSettings) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        leaving = asyncio.create_task(ask(engine, "a hold b"))
        await rig.held.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert rig.inside == 0, "the adapter has let go"
        rig.go_on.set()
        assert await ask(engine, "a hold b") == ("a hold b ", "miss")

    serve(job, tmp_path, cache)


@pytest.mark.parametrize("cache", [KEPT, BOTH])
def test_an_answer_that_fails_in_the_middle_is_not_kept(tmp_path: Path, cache: CacheSettings) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        for _ in range(2):
            with pytest.raises(BackendError, match="told to fail"):
                await ask(engine, "a fail")
        assert len(rig.calls) == 2

    serve(job, tmp_path, cache)


def test_an_answer_is_kept_when_the_one_who_began_it_left_and_another_heard_the_end(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        leader = asyncio.create_task(ask(engine, "a hold b"))
        await rig.held.wait()
        follower = asyncio.create_task(ask(engine, "a hold b"))
        await turns()
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        rig.go_on.set()
        assert await follower == ("a hold b ", "coalesced")
        assert await ask(engine, "a hold b") == ("a hold b ", "hit")
        assert len(rig.calls) == 1

    serve(job, tmp_path)


def test_an_error_goes_to_all_who_share(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        requests = [asyncio.create_task(ask(engine, "a hold fail")) for _ in range(3)]
        await rig.held.wait()
        await turns()
        rig.go_on.set()
        ends = await asyncio.gather(*requests, return_exceptions=True)
        assert [str(end) for end in ends] == ["told to fail"] * 3
        assert len(rig.calls) == 1

    serve(job, tmp_path)


# ── who leaves ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_when_the_last_of_many_has_left_the_slot_is_free(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        requests = [asyncio.create_task(ask(engine, "a hold b")) for _ in range(3)]
        await rig.held.wait()
        await turns()
        for request in requests:
            assert (rig.inside, engine.running()) == (1, 1)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        assert (rig.inside, engine.running()) == (0, 0)
        assert await ask(engine, "c") == ("c ", "miss")

    serve(job, tmp_path, SHARED)


def test_the_deadline_of_the_first_does_not_end_the_work_of_the_others(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        tickets: list[Ticket] = []

        async def request() -> str:
            with Ticket().bound() as ticket:
                tickets.append(ticket)
                text = ""
                try:
                    wanted = GenerateRequest(prompt="a hold b", temperature=0.0)
                    async with aclosing(engine.stream(GENERATE, MODEL, wanted)) as chunks:
                        async for chunk in chunks:
                            assert isinstance(chunk, TextChunk)
                            text += chunk.text
                except asyncio.CancelledError:
                    error = ticket.stopped()
                    assert error is not None
                    raise error from None
                return text

        requests = [asyncio.create_task(request()) for _ in range(2)]
        await rig.held.wait()
        await turns()
        tickets[0].stop(DeadlineError("too long"))
        with pytest.raises(DeadlineError):
            await requests[0]
        rig.go_on.set()
        assert await requests[1] == "a hold b "

    serve(job, tmp_path)


def test_a_slow_reader_does_not_hold_back_those_it_shares_with(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        prompt = "w " * 200
        request = GenerateRequest(prompt=prompt, temperature=0.0)
        async with aclosing(engine.stream(GENERATE, MODEL, request)) as slow:
            await anext(slow)
            assert await ask(engine, prompt) == (prompt, "coalesced")
            assert rig.inside == 0
            assert len([chunk async for chunk in slow]) == 199

    serve(job, tmp_path, SHARED)


def test_one_reader_holds_the_model_back(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        request = GenerateRequest(prompt="w " * 20 + "hold " + "w " * 20, temperature=0.0)
        async with aclosing(engine.stream(GENERATE, MODEL, request)) as slow:
            for _ in range(4):
                await anext(slow)
            await turns(100)
            assert not rig.held.is_set()
            for _ in range(5):
                await anext(slow)
            await turns()
            assert rig.held.is_set()

    serve(job, tmp_path)


def test_a_result_too_large_to_keep_arrives_whole(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        prompt = "word " * 100
        for _ in range(2):
            assert await ask(engine, prompt) == (prompt, "miss")

    for single_flight in (False, True):
        cache = CacheSettings(enabled=True, max_size=50_000, single_flight=single_flight)
        serve(job, tmp_path, cache)


# ── when the cache is broken ──────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("cache", [KEPT, BOTH])
def test_a_cache_that_cannot_be_opened_costs_nobody_an_answer(tmp_path: Path, cache: CacheSettings) -> None:
    (tmp_path / "cache").write_text("this is no folder")

    async def job(engine: Engine, rig: Rig) -> None:
        for _ in range(2):
            assert await ask(engine, "a b") == ("a b ", "miss")
        assert len(rig.calls) == 2

    serve(job, tmp_path, cache)


def shorten(folder: Path) -> None:
    (file,) = folder.rglob("*.val")
    file.write_bytes(file.read_bytes()[:-1])


def test_a_broken_result_is_made_anew(tmp_path: Path) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        prompt = "word " * 20_000
        assert (await ask(engine, prompt))[1] == "miss"
        await engine.cache.has(bytes(32))
        shorten(tmp_path)
        assert await ask(engine, prompt) == (prompt, "miss")
        assert await ask(engine, prompt) == (prompt, "hit")
        assert len(rig.calls) == 2

    serve(job, tmp_path, CacheSettings(enabled=True, max_size="100MB"))


@pytest.mark.parametrize("enabled", [True, False])
def test_without_its_package_the_cache_says_at_the_start_what_to_install(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    enabled: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    monkeypatch.setitem(sys.modules, "diskcache", None)
    for name in ("folder", "results"):
        monkeypatch.delitem(sys.modules, f"yapit.engine.cache.{name}", raising=False)
    settings = CacheSettings(enabled=enabled, single_flight=True)
    if not enabled:
        assert module.Cache(settings, tmp_path).on
        return
    with pytest.raises(SettingsError, match=r"pip install yapit\[cache\]"):
        module.Cache(settings, tmp_path)


# ── off, and closed ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_when_both_are_off_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def job(engine: Engine, rig: Rig) -> None:
        async def never(*_: object) -> bytes:
            raise AssertionError("a key was made")

        monkeypatch.setattr(engine.keys, "of", never)
        await ask(engine, "warm")
        before = asyncio.all_tasks()
        request = GenerateRequest(prompt="a b", temperature=0.0)
        async with aclosing(engine.stream(GENERATE, MODEL, request)) as chunks:
            await anext(chunks)
            assert asyncio.all_tasks() == before
        assert await ask(engine, "a") == ("a ", None)
        assert not await engine.knows(GENERATE, MODEL, request)
        assert not any(thread.name.startswith("cache") for thread in threading.enumerate())

    serve(job, tmp_path, OFF)
    assert not (tmp_path / "cache").exists()


def test_closing_lets_what_runs_end_and_takes_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig()
        engine = engine_of(rig, tmp_path)
        requests = [asyncio.create_task(ask(engine, "a hold b")) for _ in range(3)]
        await rig.held.wait()
        await turns()
        closing = asyncio.create_task(engine.close())
        await turns()
        rig.go_on.set()
        ends: list[Any] = await asyncio.gather(*requests, closing, return_exceptions=True)
        assert rig.inside == 0
        for end in ends[:3]:
            assert isinstance(end, CapacityError) or end[0] == "a hold b "
        with pytest.raises(CapacityError):
            await ask(engine, "a hold b")
        await engine.close()

    run(main())


def test_closing_stops_what_still_runs(tmp_path: Path) -> None:
    async def main() -> None:
        cache = module.Cache(BOTH, tmp_path)
        begun, ended = asyncio.Event(), asyncio.Event()

        async def endless() -> AsyncGenerator[TextChunk, None]:
            begun.set()
            try:
                yield TextChunk(text="a")
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def read() -> None:
            async with aclosing(cache.stream(bytes(32), module.Layer(TextChunk, lambda _: None), endless)) as items:
                async for _ in items:
                    pass

        requests = [asyncio.create_task(read()) for _ in range(2)]
        await begun.wait()
        await cache.close()
        assert ended.is_set()
        for end in await asyncio.gather(*requests, return_exceptions=True):
            assert isinstance(end, CapacityError)

    run(main())


def test_what_was_admitted_together_is_admitted(tmp_path: Path) -> None:
    """The second sentence of a text is not refused because the line is full then."""

    async def job(engine: Engine, rig: Rig) -> None:
        request = GenerateRequest(prompt="a", temperature=0.0)
        with Ticket().bound() as ticket:
            async with aclosing(engine.stream(GENERATE, MODEL, request)) as chunks:
                assert [chunk async for chunk in chunks]
            assert ticket.admitted

    serve(job, tmp_path, SHARED)


def test_who_holds_the_model_does_not_wait_for_one_who_waits_for_it(tmp_path: Path) -> None:
    """One that waits until the model comes back waits for the holder, who must not wait for its run."""

    async def job(engine: Engine, rig: Rig) -> None:
        with Ticket().bound():
            async with engine.hold(GENERATE, MODEL):
                outsider = asyncio.create_task(apart(ask(engine, "a hold")))
                await rig.held.wait()
                holder = asyncio.create_task(ask_again(engine))
                await turns()
                assert len(engine.cache._flights) == 2
                rig.go_on.set()
                assert await outsider == ("a hold ", "miss")
                assert await holder == 2

    async def apart(asking: Awaitable[Answer]) -> Answer:
        return await asking

    async def ask_again(engine: Engine) -> int:
        request = GenerateRequest(prompt="a hold", temperature=0.0)
        async with aclosing(engine.stream(GENERATE, MODEL, request)) as chunks:
            return len([chunk async for chunk in chunks])

    serve(job, tmp_path, SHARED)


def test_a_failed_load_fails_all_who_share(tmp_path: Path) -> None:
    async def main() -> None:
        plugins = Plugins()
        engine = Engine(Settings(cache=BOTH, data_dir=str(tmp_path)), plugins, Catalog([MODEL]))
        ends = await asyncio.gather(*(ask(engine, "a") for _ in range(3)), return_exceptions=True)
        assert [isinstance(end, YapitError) for end in ends] == [True] * 3
        await engine.close()

    run(main())
