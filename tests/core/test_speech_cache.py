"""Speech that was made before: the encoded bytes, or the sound in another format, without model and codec."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loops import run, turns
from yapit import (
    AudioChunk,
    Backend,
    BackendError,
    Context,
    LoadError,
    Model,
    Synthesizer,
    SynthesizeRequest,
    Voice,
    Word,
    hookimpl,
)
from yapit import speech as module
from yapit.audio import decode
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.schemas import WordSource
from yapit.settings import CacheSettings, EngineSettings, Settings
from yapit.speech import Speech, SpeechUsage, Utterance
from yapit.tickets import CacheOutcome, Ticket
from yapit.timeline import Part

RATE = 8_000
LONG = " ".join(f"This is sentence number {number}, and it is long enough to stand alone." for number in range(12))
TEXT = "The first sentence is here. The second one is a little longer than it. And the third ends it all."
MODEL = Model(id="hum", backend="hum", tasks=("synthesize",), voices=(Voice(id="low"), Voice(id="high")))
OFF = CacheSettings()
KEPT = CacheSettings(enabled=True, max_size="20MB")
SHARED = CacheSettings(single_flight=True)
BOTH = CacheSettings(enabled=True, max_size="20MB", single_flight=True)


class Plugin:
    """A tone whose height is the voice's, 100 ms for each character; knows its words; counts."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.loads = self.inside = 0
        self.fails_at = ""

    @hookimpl
    def register_backends(self) -> list[Backend]:
        return [Backend(name="hum")]

    @hookimpl
    def synthesize(self, model: Model, context: Context) -> Synthesizer | None:
        self.loads += 1
        return Hummer(self)


class Hummer(Synthesizer):
    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin

    def synthesize(self, request: SynthesizeRequest) -> Iterator[AudioChunk]:
        self.plugin.said.append(request.text)
        self.plugin.inside += 1
        try:
            if self.plugin.fails_at and self.plugin.fails_at in request.text:
                raise BackendError("told to fail")
            tone = np.full(len(request.text) * RATE // 10, 9000 if request.voice == "high" else 5000, np.int16)
            words = (Word(text=request.text.split()[0], start_s=0.0, end_s=0.3, offset=0),)
            yield AudioChunk.from_samples(tone[:100], RATE, words)
            yield AudioChunk.from_samples(tone[100:], RATE)
        finally:
            self.plugin.inside -= 1


class Heard:
    """What a client gets."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.usage: SpeechUsage | None = None
        self.word_source: WordSource | None = None
        self.outcome: CacheOutcome | None = None

    @property
    def audio(self) -> bytes:
        return b"".join(part.audio for part in self.parts)

    @property
    def words(self) -> list[Word]:
        return [word for part in self.parts for word in part.words]


async def say(engine: Engine, *, whole: bool = False, store: bool = True, **fields: Any) -> Heard:
    heard = Heard()
    speech = Speech(engine, Utterance(model=MODEL, **{"text": TEXT, "format": "wav", **fields}))
    with Ticket(store=store).bound() as ticket:
        if whole:
            heard.parts.append(await speech.complete())
        else:
            async with aclosing(speech.parts()) as parts:
                heard.parts += [part async for part in parts]
    heard.usage, heard.word_source, heard.outcome = speech.usage, speech.word_source, ticket.cache
    return heard


def serve(
    job: Callable[[Engine, Plugin], Awaitable[None]], folder: Path, cache: CacheSettings, **settings: Any
) -> Plugin:
    """Give an engine to `job`; nothing of it may be left."""
    plugin, plugins = Plugin(), Plugins()
    plugins.register("hum", plugin)
    plugins._versions["hum"] = "1.0"

    async def main() -> None:
        engine = Engine(Settings(cache=cache, data_dir=str(folder), **settings), plugins, Catalog([MODEL]))
        try:
            await job(engine, plugin)
        finally:
            await engine.close()
        assert plugin.inside == 0
        assert not engine.cache._flights

    run(main())
    return plugin


def hear(folder: Path, cache: CacheSettings, **fields: Any) -> tuple[Heard, Plugin]:
    """Return what a server that has just started says, and its plugin."""
    found: list[Heard] = []

    async def job(engine: Engine, plugin: Plugin) -> None:
        found.append(await say(engine, **fields))

    plugin = serve(job, folder, cache)
    return found[0], plugin


# ── the encoded bytes ─────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("cache", [KEPT, BOTH])
@pytest.mark.parametrize("audio_format", ["wav", "mp3"])
@pytest.mark.parametrize("whole", [False, True])
def test_the_same_again_comes_as_it_was_without_model_and_codec(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: CacheSettings,
    audio_format: str,
    whole: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    fields: dict[str, Any] = {"format": audio_format, "whole": whole, "words": True}
    plain, _ = hear(tmp_path, OFF, **fields)
    first, plugin = hear(tmp_path, cache, **fields)
    assert (plugin.loads, len(plugin.said), first.outcome) == (1, 3, "miss")

    def never(*_: object) -> None:
        raise AssertionError("a codec was used")

    monkeypatch.setattr(module, "Encoder", never)
    monkeypatch.setattr(module, "encode", never)
    again, plugin = hear(tmp_path, cache, **fields)
    assert (plugin.loads, plugin.said, again.outcome) == (0, [], "hit")
    assert again.parts == first.parts
    assert all(part.audio or part.words for part in first.parts)
    assert plain.audio == first.audio == again.audio
    assert plain.words == first.words == again.words
    assert plain.usage == first.usage == again.usage
    assert plain.word_source == first.word_source == again.word_source == "native"
    assert len(again.words) == 3


@pytest.mark.parametrize("sound", [False, True])
def test_estimated_words_are_still_called_so(tmp_path: Path, sound: bool) -> None:  # noqa: FBT001 - a parameter
    class Silent(Plugin):
        @hookimpl
        def synthesize(self, model: Model, context: Context) -> Synthesizer | None:
            return NoWords(self)

    class NoWords(Hummer):
        def synthesize(self, request: SynthesizeRequest) -> Iterator[AudioChunk]:
            yield AudioChunk(pcm=bytes(1600 if sound else 0), sample_rate=RATE)

    async def main() -> None:
        plugins = Plugins()
        plugins.register("hum", Silent())
        engine = Engine(Settings(cache=KEPT, data_dir=str(tmp_path)), plugins, Catalog([MODEL]))
        both = [await say(engine, words=True, format="pcm") for _ in range(2)]
        assert [heard.word_source for heard in both] == ["estimated"] * 2
        assert [heard.outcome for heard in both] == ["miss", "hit"]
        await engine.close()

    run(main())


@pytest.mark.parametrize(
    "fields",
    [{"text": "Something else."}, {"voice": "high"}, {"language": "de"}, {"instructions": "x"}, {"options": {"a": 1}}],
)
def test_something_else_to_say_is_made(tmp_path: Path, fields: dict[str, Any]) -> None:
    first, _ = hear(tmp_path, KEPT)
    other, plugin = hear(tmp_path, KEPT, **fields)
    assert other.outcome == "miss"
    assert plugin.said
    assert hear(tmp_path, KEPT)[0].audio == first.audio


@pytest.mark.parametrize("single_flight", [False, True])
@pytest.mark.parametrize(
    "fields", [{"format": "mp3"}, {"format": "pcm"}, {"whole": True}, {"speed": 1.5}, {"words": True}]
)
def test_the_same_sound_in_another_form_needs_no_model(
    tmp_path: Path,
    fields: dict[str, Any],
    single_flight: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    cache = CacheSettings(enabled=True, single_flight=single_flight)
    hear(tmp_path, cache)
    plain, _ = hear(tmp_path, OFF, **fields)
    other, plugin = hear(tmp_path, cache, **fields)
    assert (plugin.loads, plugin.said, other.outcome) == (0, [], "hit")
    assert (other.audio, other.words, other.usage) == (plain.audio, plain.words, plain.usage)


def test_a_sentence_that_was_said_before_is_not_made_again_in_another_text(tmp_path: Path) -> None:
    known, new = "This sentence is long enough to be a piece by itself, more or less. ", "But nobody has said this one."
    hear(tmp_path, KEPT, text=f"{known}And this one is another one, too.")
    heard, plugin = hear(tmp_path, KEPT, text=known + new)
    assert plugin.said == [new]
    assert heard.outcome == "miss"
    assert heard.audio == hear(tmp_path, OFF, text=known + new)[0].audio


def test_no_store_takes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    heard, plugin = hear(tmp_path, KEPT, store=False)
    assert heard.outcome is None
    heard, plugin = hear(tmp_path, KEPT)
    assert (heard.outcome, len(plugin.said)) == ("miss", 3)
    heard, plugin = hear(tmp_path, KEPT, store=False)
    assert (heard.outcome, len(plugin.said)) == (None, 3)


# ── never a part ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("cache", [KEPT, BOTH])
def test_a_listener_who_leaves_in_the_middle_leaves_no_part(tmp_path: Path, cache: CacheSettings) -> None:
    async def job(engine: Engine, plugin: Plugin) -> None:
        speech = Speech(engine, Utterance(model=MODEL, text=LONG, format="mp3"))
        async with aclosing(speech.parts()) as parts:
            await anext(parts)
        assert plugin.inside == 0
        assert engine.running() == 0
        heard = await say(engine, text=LONG, format="mp3")
        assert len(decode(heard.audio, sample_rate=RATE)) / 2 / RATE > len(LONG) / 10 - 5

    serve(job, tmp_path, cache)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("cache", [KEPT, BOTH])
def test_speech_that_fails_in_the_middle_leaves_no_part(
    tmp_path: Path,
    cache: CacheSettings,
    whole: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def job(engine: Engine, plugin: Plugin) -> None:
        plugin.fails_at = "third"
        for _ in range(2):
            with pytest.raises(BackendError, match="told to fail"):
                await say(engine, whole=whole)
        plugin.fails_at = ""
        heard = await say(engine, whole=whole)
        assert heard.outcome == "miss"
        assert heard.audio == hear_plain

    hear_plain = hear(tmp_path / "plain", OFF, whole=whole)[0].audio
    plugin = serve(job, tmp_path, cache)
    assert len([text for text in plugin.said if "first" in text]) == 1, "what was said well is kept as sound"


# ── together ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("cache", [SHARED, BOTH])
def test_fifty_who_want_to_hear_the_same_are_one(
    tmp_path: Path,
    cache: CacheSettings,
    whole: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def job(engine: Engine, plugin: Plugin) -> None:
        requests = [say(engine, whole=whole, format="mp3", words=True) for _ in range(50)]
        all_heard = await asyncio.gather(*map(asyncio.create_task, requests))
        assert len(plugin.said) == 3
        assert len({heard.audio for heard in all_heard}) == 1
        assert all(heard.usage == all_heard[0].usage and heard.words == all_heard[0].words for heard in all_heard)
        assert [heard.outcome for heard in all_heard] == ["miss"] + ["coalesced"] * 49

    serve(job, tmp_path, cache)


def test_in_two_formats_at_once_the_model_speaks_once(tmp_path: Path) -> None:
    async def job(engine: Engine, plugin: Plugin) -> None:
        formats = ("wav", "mp3", "pcm", "flac")
        heard = await asyncio.gather(*(asyncio.create_task(say(engine, format=name)) for name in formats))
        assert len(plugin.said) == 3
        assert len({one.audio for one in heard}) == 4
        assert [one.outcome for one in heard] == ["miss"] + ["coalesced"] * 3

    serve(job, tmp_path, SHARED)


def test_when_the_first_listener_leaves_the_others_hear_all_of_it(tmp_path: Path) -> None:
    async def job(engine: Engine, plugin: Plugin) -> None:
        utterance = Utterance(model=MODEL, text=LONG, format="mp3")
        first = Speech(engine, utterance)
        async with aclosing(first.parts()) as parts:
            await anext(parts)
            follower = asyncio.create_task(say(engine, text=LONG, format="mp3"))
            await turns()
        heard = await follower
        assert heard.outcome == "coalesced"
        assert heard.usage is not None
        assert heard.usage.audio_seconds > len(LONG) / 10 - 5
        assert "".join(plugin.said) == LONG, "each sentence once"

    serve(job, tmp_path, SHARED)


@pytest.mark.parametrize("cache", [KEPT, SHARED, BOTH])
def test_usage_is_of_what_was_heard(tmp_path: Path, cache: CacheSettings) -> None:
    async def job(engine: Engine, plugin: Plugin) -> None:
        heard = await say(engine, text=LONG)
        assert heard.usage is not None
        speech = Speech(engine, Utterance(model=MODEL, text=LONG, format="wav"))
        async with aclosing(speech.parts()) as parts:
            await anext(parts)
            assert 0 < speech.usage.audio_seconds < heard.usage.audio_seconds
            async for _ in parts:
                await turns()
        assert speech.usage == heard.usage

    serve(job, tmp_path, cache)


# ── the model ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("cache", [OFF, KEPT, SHARED, BOTH])
@pytest.mark.parametrize("whole", [False, True])
def test_the_model_stays_loaded_from_the_first_sentence_to_the_last(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: CacheSettings,
    whole: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def job(engine: Engine, plugin: Plugin) -> None:
        running: list[int] = []
        stream = engine.stream

        def watched(*arguments: Any) -> Any:
            running.append(engine.running())
            return stream(*arguments)

        monkeypatch.setattr(engine, "stream", watched)  # to look between two sentences
        await say(engine, whole=whole)
        assert plugin.loads == 1
        assert running == [1, 1, 1], "one request, whatever it consists of"
        assert engine.running() == 0

    serve(job, tmp_path, cache, engine=EngineSettings(keep_alive=0))


def test_a_model_that_cannot_be_loaded_is_counted_as_a_failed_call(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Engine(Settings(data_dir=str(tmp_path)), Plugins(), Catalog([MODEL]))
        with pytest.raises(LoadError):
            await say(engine)
        samples = [sample for metric in engine.meters.calls.collect() for sample in metric.samples]
        outcomes = {sample.labels["outcome"]: sample.value for sample in samples if sample.name.endswith("_total")}
        assert outcomes == {"load_failed": 1}
        await engine.close()

    run(main())


def test_what_is_counted_is_one_answer_of_the_cache_for_each_request(tmp_path: Path) -> None:
    async def job(engine: Engine, plugin: Plugin) -> None:
        text = "One sentence."
        for audio_format in ("wav", "wav", "mp3"):
            await say(engine, text=text, format=audio_format)
        samples = [sample for metric in engine.meters.cached.collect() for sample in metric.samples]
        outcomes = {sample.labels["outcome"]: sample.value for sample in samples if sample.name.endswith("_total")}
        assert outcomes == {"miss": 1, "hit": 2}

    serve(job, tmp_path, BOTH)


def test_when_both_are_off_no_key_is_made_and_nothing_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def job(engine: Engine, plugin: Plugin) -> None:
        async def never(*_: object) -> bytes:
            raise AssertionError("a key was made")

        monkeypatch.setattr(engine.keys, "of", never)
        heard = await asyncio.gather(say(engine), say(engine), say(engine, whole=True))
        assert [one.outcome for one in heard] == [None] * 3
        assert len(plugin.said) == 9

    serve(job, tmp_path, OFF)
    assert not (tmp_path / "cache").exists()
