"""From text to encoded speech, with a model whose every sample a test knows."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from yapit import (
    AudioChunk,
    BackendError,
    Context,
    InvalidInputError,
    Model,
    Synthesizer,
    SynthesizeRequest,
    Word,
    hookimpl,
)
from yapit.audio import decode
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.schemas import WordSource
from yapit.settings import Settings
from yapit.speech import Speech, SpeechUsage, Utterance
from yapit.tasks import SYNTHESIZE
from yapit.timeline import Part

RATE = 8_000
SENTENCES = "The first sentence is here. The second one is a little longer than it. And the third ends it all."


class Hummer(Synthesizer):
    """A tone of 100 ms for each character, framed by silence; says its words' times if told to."""

    def __init__(self, model: Model) -> None:
        self.options = model.options
        self.requests: list[SynthesizeRequest] = []
        self.closed = 0

    def synthesize(self, request: SynthesizeRequest) -> Iterator[AudioChunk]:
        self.requests.append(request)
        if request.text.strip() == self.options.get("fails_at"):
            raise InvalidInputError("not this one", param="input")
        silence = np.zeros(round(self.options.get("silence_s", 0) * RATE), np.int16)
        tone = np.full(len(request.text) * RATE // 10, 5000, np.int16)
        words: tuple[Word, ...] = ()
        if self.options.get("marks"):
            lead_s = len(silence) / RATE
            starts = [i for i, c in enumerate(request.text) if c != " " and (i == 0 or request.text[i - 1] == " ")]
            words = tuple(
                Word(text=request.text[i:].split()[0], start_s=lead_s + i / 10, end_s=lead_s + i / 10 + 0.1, offset=i)
                for i in starts
            )
        source: WordSource = "estimated" if self.options.get("marks") == "estimated" else "native"
        if request.text.startswith("[pause:"):
            yield AudioChunk(pcm=bytes(RATE), sample_rate=RATE, pause=True)
            return
        try:
            for number, part in enumerate(np.array_split(np.concatenate([silence, tone, silence]), 3)):
                rate = self.options.get("other_rate", RATE) if number else RATE
                yield AudioChunk.from_samples(part, rate, words if number == 0 else (), source)
        finally:
            self.closed += 1


class Plugin:
    def __init__(self) -> None:
        self.hummer: Hummer | None = None

    @hookimpl
    def synthesize(self, model: Model, context: Context) -> Synthesizer | None:
        self.hummer = Hummer(model)
        return self.hummer


def run(
    job: Callable[[Speech], Awaitable[Any]],
    text: str = SENTENCES,
    *,
    speed_range: tuple[float, float] = (1.0, 1.0),
    options: dict[str, Any] | None = None,
    entry: dict[str, Any] | None = None,
    asked: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[Any, Hummer, Speech]:
    """Make the speech of a text and give it to `job`; return its answer, the adapter and the speech."""
    said = {"options": options or {}, "speed_range": speed_range, **(entry or {})}
    model = Model(id="hum", backend="hum", tasks=("synthesize",), **said)
    plugin, plugins = Plugin(), Plugins()
    plugins.register("hum", plugin)

    async def main() -> tuple[Any, Speech]:
        engine = Engine(Settings(), plugins, Catalog([model]))
        speech = Speech(engine, Utterance(model=model, text=text, options=asked or {}, **{"format": "wav", **fields}))
        try:
            return await job(speech), speech
        finally:
            await engine.close()
            assert len(asyncio.all_tasks()) == 1

    answer, speech = asyncio.run(main())
    assert plugin.hummer is not None
    return answer, plugin.hummer, speech


async def gather(speech: Speech) -> list[Part]:
    async with aclosing(speech.parts()) as parts:
        return [part async for part in parts]


async def complete(speech: Speech) -> Part:
    return await speech.complete()


def words_of(parts: list[Part]) -> list[Word]:
    return [word for part in parts for word in part.words]


def test_the_pieces_are_the_text_and_are_heard_in_order() -> None:
    parts, hummer, speech = run(gather)
    assert "".join(request.text for request in hummer.requests) == SENTENCES
    assert len(hummer.requests) == 3
    assert hummer.closed == 3
    pcm = decode(b"".join(part.audio for part in parts), sample_rate=RATE)
    seams = len(hummer.requests) - 1
    assert len(pcm) // 2 == len(SENTENCES) * RATE // 10 - seams * 5 * RATE // 1000
    assert speech.usage == SpeechUsage(input_characters=len(SENTENCES), audio_seconds=len(pcm) / 2 / RATE)


def test_streamed_and_complete_are_the_same_sound() -> None:
    streamed, *_ = run(gather)
    whole, *_ = run(complete)
    audio = b"".join(part.audio for part in streamed)
    assert decode(audio, sample_rate=RATE) == decode(whole.audio, sample_rate=RATE)


def test_every_field_reaches_the_adapter_in_every_piece() -> None:
    fields: dict[str, Any] = {"voice": "v", "language": "de", "instructions": "slowly", "speed": 1.5}
    _, hummer, _ = run(gather, speed_range=(0.5, 2), **fields)
    for request in hummer.requests:
        assert (request.voice, request.language, request.instructions, request.speed) == ("v", "de", "slowly", 1.5)


@pytest.mark.parametrize(
    ("speed", "speed_range", "own"),
    [(2.0, (1.0, 1.0), 1.0), (2.0, (0.5, 1.5), 1.5), (0.25, (0.5, 1.5), 0.5), (1.2, (0.5, 1.5), 1.2)],
)
def test_the_core_stretches_what_the_model_does_not(speed: float, speed_range: tuple[float, float], own: float) -> None:
    normal, *_ = run(complete)
    changed, hummer, _ = run(complete, speed=speed, speed_range=speed_range, words=True)
    assert hummer.requests[0].speed == own
    # The tone's length does not follow the speed: what has changed is the core's part.
    seconds = [len(decode(part.audio, sample_rate=RATE)) / 2 / RATE for part in (normal, changed)]
    assert seconds[1] == pytest.approx(seconds[0] * own / speed, rel=0.01)
    assert changed.words[-1].end_s == pytest.approx(seconds[1], rel=0.02)


def test_silence_at_the_edges_of_pieces_is_cut_and_words_move_with_it() -> None:
    parts, *_ = run(gather, options={"silence_s": 1.0, "marks": True}, words=True)
    words = words_of(parts)
    assert [word.text for word in words] == SENTENCES.split()
    assert all(SENTENCES[word.offset :].startswith(word.text) for word in words)
    pcm = np.frombuffer(decode(b"".join(part.audio for part in parts), sample_rate=RATE), np.int16)
    for word in words:
        heard = pcm[round((word.start_s + 0.02) * RATE) : round((word.start_s + 0.08) * RATE)]
        assert heard.min() > 4000, f"{word.text!r} is where there is silence"
    first = next(i for i, sample in enumerate(pcm) if sample > 1000) / RATE
    assert words[0].start_s == pytest.approx(first, abs=0.01)
    for sentence_end in ("here.", "it."):
        last, following = next((a, b) for a, b in itertools.pairwise(words) if a.text == sentence_end)
        # Up to 200 ms after a piece and 50 ms before the next one are left; the space is hummed too.
        assert following.start_s - last.start_s < 0.1 * len(f"{sentence_end} ") + 0.3


def test_words_are_estimated_where_the_model_says_none() -> None:
    (parts, _, speech) = run(gather, "Hi there, 3.5 o'clock. 你好 ok", words=True)
    assert speech.word_source == "estimated"
    assert [word.text for word in words_of(parts)] == ["Hi", "there", "3.5", "o'clock", "你", "好", "ok"]
    assert all(a.end_s <= b.start_s + 0.006 for a, b in itertools.pairwise(words_of(parts)))
    assert run(gather, options={"marks": True}, words=True)[2].word_source == "native"
    assert words_of(run(gather, options={"marks": True})[0]) == []


def test_a_model_may_say_that_its_words_are_estimated() -> None:
    (parts, _, speech) = run(gather, options={"marks": "estimated"}, words=True)
    assert [word.text for word in words_of(parts)] == SENTENCES.split()
    assert speech.word_source == "estimated"


def test_a_piece_that_is_only_a_pause_has_no_words() -> None:
    text = "[pause:1s]\n\nThe first sentence is here."
    (parts, hummer, speech) = run(gather, text, options={"marks": True}, entry={"markup": True}, words=True)
    assert [request.text for request in hummer.requests] == ["[pause:1s]\n\n", "The first sentence is here."]
    assert [word.text for word in words_of(parts)] == ["The", "first", "sentence", "is", "here."]
    assert speech.word_source == "native"


@pytest.mark.parametrize(
    ("entry", "asked", "whole"),
    [
        ({}, {}, False),
        ({"markup": True}, {}, True),
        ({"markup": True}, {"markup": False}, False),
        ({"markup": True, "defaults": {"markup": False}}, {}, False),
        ({"markup": True, "defaults": {"markup": False}}, {"markup": True}, True),
        ({"markup": True, "options": {"markup": False}}, {"markup": True}, False),
    ],
)
def test_markup_reaches_the_model_whole_where_it_is_on(
    entry: dict[str, Any], asked: dict[str, Any], *, whole: bool
) -> None:
    markup = "[two words. More than one sentence](/wan/)"
    text = f"This begins {markup} and goes on."
    _, hummer, _ = run(gather, text, entry=entry, asked=asked)
    assert "".join(request.text for request in hummer.requests) == text
    assert any(markup in request.text for request in hummer.requests) == whole


def test_a_model_that_changes_its_rate_is_at_fault() -> None:
    with pytest.raises(BackendError, match="sample rate from 8000 to 16000"):
        run(gather, options={"other_rate": 16_000})


def test_an_error_in_a_later_piece_comes_after_the_audio_before_it() -> None:
    heard: list[Part] = []

    async def listen(speech: Speech) -> None:
        async with aclosing(speech.parts()) as parts:
            async for part in parts:
                heard.append(part)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(InvalidInputError, match="not this one"):
        run(listen, options={"fails_at": SENTENCES.split(". ")[2]})
    assert len(decode(b"".join(part.audio for part in heard), sample_rate=RATE)) > RATE


def test_leaving_closes_the_adapter_and_starts_nothing_more() -> None:
    async def leave(speech: Speech) -> None:
        async with aclosing(speech.parts()) as parts:
            await anext(parts)

    text = "This is a sentence that is long enough to be a piece of its own, nearly. " * 50
    _, hummer, _ = run(leave, text)
    assert hummer.closed == len(hummer.requests) < 10


def test_a_slow_listener_holds_back_the_next_piece_and_no_slot() -> None:
    async def listen_slowly(speech: Speech) -> int:
        engine, model = speech._engine, speech._utterance.model
        async with aclosing(speech.parts()) as parts:
            await anext(parts)
            for _ in range(100):
                await asyncio.sleep(0.005)
            async with aclosing(engine.stream(SYNTHESIZE, model, SynthesizeRequest(text="Others"))) as chunks:
                return len([chunk async for chunk in chunks])

    text = "This is a sentence that is long enough to be a piece of its own, nearly. " * 50
    others, hummer, _ = run(listen_slowly, text)
    assert others == 3, "the one slot is free"
    assert len(hummer.requests) < 10


def test_a_text_with_nothing_to_say_is_a_valid_file_without_sound() -> None:
    class Mute(Hummer):
        def synthesize(self, request: SynthesizeRequest) -> Iterator[AudioChunk]:
            return iter(())

    class Silent:
        @hookimpl
        def synthesize(self, model: Model, context: Context) -> Synthesizer | None:
            return Mute(model)

    plugins = Plugins()
    plugins.register("silent", Silent())
    model = Model(id="silent", backend="silent", tasks=("synthesize",))

    async def main() -> list[bytes]:
        engine = Engine(Settings(), plugins, Catalog([model]))
        utterances = [Utterance(model=model, text="…", format=name) for name in ("wav", "mp3", "opus", "pcm")]
        found = [b"".join([part.audio for part in await gather(Speech(engine, said))]) for said in utterances]
        await engine.close()
        return found

    wav, *_, pcm = asyncio.run(main())
    assert wav.startswith(b"RIFF")
    assert pcm == b""
