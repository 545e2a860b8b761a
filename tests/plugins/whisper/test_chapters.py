"""Long recordings: chapter by chapter they are what they are in one piece, and take no more memory."""

import asyncio
import tracemalloc
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from loops import run, turns
from models.whisperers import CARELESS, RATE, Load, chirps, floats, hear
from yapit import Segment, TranscribeRequest
from yapit_plugin_whisper import chapters
from yapit_plugin_whisper.engines.facts import Result
from yapit_plugin_whisper.sound import Spectrum, anybody_speaks, pause_before_end

FAST = CARELESS | {"beam_size": 1}
TIMES = 50364  # <|0.00|>


class Counting:
    """An engine that computes nothing: in each window two sentences of 9 s are said, and it counts the windows.

    Args:
        pausing: one sentence is said, and then nothing till the end of the window.
    """

    is_multilingual = True
    device, n_mels = "cpu", 80

    def __init__(self, *, pausing: bool = False) -> None:
        self.pausing = pausing
        self.device_index = [0]
        self.languages = {"en": 50259, "de": 50261}
        self.windows = 0
        self.prompts: list[list[int]] = []

    def encode(self, features: Any, **_: Any) -> Any:
        return np.zeros((len(features), 1500, 8), np.float32)

    def detect_language(self, encoded: Any) -> Any:
        return [[("<|en|>", 0.9), ("<|de|>", 0.1)]] * len(encoded)

    def generate(self, encoded: Any, prompts: list[list[int]], **_: Any) -> list[Result]:
        self.windows += 1
        self.prompts.append(prompts[0])
        hello, number = 300, 300 + self.windows
        text = [TIMES, hello, number, TIMES + 450, TIMES + 450, hello, hello, number, TIMES + 900, TIMES + 900]
        if self.pausing:
            text = text[:4]
        return [Result(sequences_ids=[text], scores=[-0.1], no_speech_prob=0.0)] * len(encoded)


@pytest.fixture
def like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the first chapter as long as all others."""
    monkeypatch.setattr(chapters, "_FIRST_WINDOWS", 1_000)


@pytest.fixture
def counting(random: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model with such an engine, whose chapters have `chapter_s`."""

    def made(chapter_s: float, *, pausing: bool = False) -> tuple[Any, Counting]:
        ear, engine = load(random, chapter_s=chapter_s), Counting(pausing=pausing)
        monkeypatch.setattr(ear, "engine", engine)
        monkeypatch.setattr(ear.algorithm, "model", engine)
        return ear, engine

    return made


def told(segments: list[Segment]) -> list[tuple[Any, ...]]:
    return [
        (each.text, round(each.start_s, 3), round(each.end_s, 3), round(each.window_start_s or 0, 3))
        for each in segments
    ]


# ── the same ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.usefixtures("like_the_others")
def test_chapters_cut_the_windows_where_one_piece_does(counting: Any) -> None:
    pcm = chirps(400)
    whole, one = counting(600)
    expected = told(hear(whole, pcm, options=FAST))
    chaptered, other = counting(60)
    found = told(hear(chaptered, pcm, options=FAST))
    assert len(expected) == 2 * one.windows > 40
    assert [times for _, *times in found] == [times for _, *times in expected]
    # A window that is not whole in a chapter was decoded in vain.
    assert one.windows < other.windows <= one.windows + 400 // 30 + 1


@pytest.mark.usefixtures("like_the_others")
def test_chapters_cut_no_window_that_ends_in_silence(counting: Any) -> None:
    pcm = chirps(200)
    whole, _ = counting(600, pausing=True)
    chaptered, _ = counting(70, pausing=True)
    expected, found = (told(hear(ear, pcm, options=FAST)) for ear in (whole, chaptered))
    assert [times for _, *times in found] == [times for _, *times in expected]
    assert [begin for *_, begin in found] == [0, 30, 60, 90, 120, 150, 180]


def test_what_was_written_hot_is_forgotten_in_the_next_chapter(counting: Any) -> None:
    ear, engine = counting(60)
    hear(ear, chirps(100), options=FAST, temperature=0.7)
    assert [len(prompt) for prompt in engine.prompts] == [3] * engine.windows


def test_a_chapter_knows_what_was_said_before(counting: Any) -> None:
    ear, engine = counting(60)
    hear(ear, chirps(100), options=FAST, prompt="hello")
    # Of the first chapter, the window at 36 s is not whole; what is written there is not known to the second one.
    before = engine.prompts[2][1:-3]
    assert engine.prompts[3][1:-3] == before
    assert len(before) > 15
    alone, forgetful = counting(60)
    hear(alone, chirps(100), options=FAST | {"condition_on_previous_text": False}, prompt="hello")
    assert [len(prompt) for prompt in forgetful.prompts[1:]] == [3] * (forgetful.windows - 1)


@pytest.mark.usefixtures("like_the_others")
def test_a_real_model_writes_nearly_the_same_in_chapters(random: Path, load: Load) -> None:
    pcm = chirps(150)
    expected = hear(load(random), pcm, language="en", options=FAST)
    found = hear(load(random, chapter_s=90), pcm, language="en", options=FAST)
    (last, *_) = (each.window_start_s for each in reversed(expected))
    assert (last or 0) > 90
    first = [each for each in expected if each.end_s < 55]
    assert first
    assert told(found)[: len(first)] == told(first)
    assert all(each.start_s <= each.end_s <= 150 for each in found)
    starts = [each.start_s for each in found]
    assert starts == sorted(starts)
    assert starts[-1] > 120


def test_chapters_of_speech_end_in_pauses(counting: Any, long_speech: bytes) -> None:
    pcm = long_speech * 4
    ear, _ = counting(60)
    for options in ({"vad": True}, {"batched": True}):
        found = hear(ear, pcm, options=options)
        times = [time for each in found for time in (each.start_s, each.end_s)]
        assert times == sorted(times)
        assert times[-1] > len(pcm) / 2 / RATE - 20


def test_silence_between_is_passed_over(counting: Any) -> None:
    ear, engine = counting(60)
    pcm = chirps(20) + bytes(2 * RATE * 200) + chirps(20)
    found = hear(ear, pcm, options={"vad": False})
    assert min(each.start_s for each in found if each.start_s > 61) > 150
    assert engine.windows < 12


@pytest.mark.parametrize("options", [{}, {"vad": True}, {"batched": True}])
def test_a_short_first_chapter_loses_nothing(counting: Any, long_speech: bytes, options: dict[str, Any]) -> None:
    ear, _ = counting(600)
    found = hear(ear, long_speech * 5, options=options or FAST)
    starts = [each.start_s for each in found]
    assert starts == sorted(starts)
    assert max(later - before for before, later in pairwise(starts)) < 31


# ── still being decoded ───────────────────────────────────────────────────────────────────────────────────────────────
def test_what_is_decoded_is_heard_while_more_comes(counting: Any, tmp_path: Path) -> None:
    pcm = chirps(200)
    ear, _ = counting(600)
    expected = told(hear(ear, pcm, options=FAST))
    path = tmp_path / "pcm"
    path.write_bytes(pcm[: 2 * 121 * RATE])
    path.chmod(0o700)

    async def main() -> None:
        request = TranscribeRequest(path=str(path), sample_rate=RATE, options=FAST)
        found = []
        async with aclosing(ear.transcribe(request)) as segments:
            async for segment in segments:
                found.append(segment)
                if segment.end_s > 90 and path.stat().st_size < len(pcm):
                    with path.open("ab") as file:
                        file.write(pcm[2 * 121 * RATE :])
                    path.chmod(0o600)
        assert [times for _, *times in told(found)] == [times for _, *times in expected]

    run(main())


def test_who_waits_for_more_leaves_at_once(counting: Any, tmp_path: Path) -> None:
    path = tmp_path / "pcm"
    path.write_bytes(chirps(30))
    path.chmod(0o700)
    ear, engine = counting(600)

    async def main() -> None:
        request = TranscribeRequest(path=str(path), sample_rate=RATE, options=FAST)
        hearing = asyncio.ensure_future(anext(ear.transcribe(request)))
        await turns()
        assert not hearing.done()
        hearing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hearing
        assert engine.windows == 0

    asyncio.run(main())  # the model's thread outlives it


# ── bounded ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_recording_of_any_length_takes_the_memory_of_a_chapter(counting: Any, tmp_path: Path) -> None:
    file = tmp_path / "pcm"
    peaks = []
    for minutes in (4, 16):
        file.write_bytes(chirps(60) * minutes)
        ear, engine = counting(120)
        tracemalloc.start()
        found = hear(ear, b"", path=str(file), options=FAST)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert engine.windows > minutes * 3
        assert len(found) >= minutes * 6
    assert peaks[1] < peaks[0] * 1.1 < 100_000_000


def test_the_first_segment_comes_before_the_second_window(counting: Any) -> None:
    ear, engine = counting(60)
    wanted = ear._wanted(TranscribeRequest(sample_rate=RATE, options=FAST))
    request = TranscribeRequest(pcm=chirps(90), sample_rate=RATE)
    segments = ear._segments(request, wanted)
    next(segments)
    assert engine.windows == 1
    segments.close()


# ── sound ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("seconds", [59, 60.5, 61, 119.995, 180])
def test_a_spectrum_made_in_parts_is_the_same(seconds: float) -> None:
    sound = floats(chirps(seconds))
    expected = FeatureExtractor()(sound)
    found = Spectrum()(sound)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_voice_is_told_from_noise(long_speech: bytes) -> None:
    voice = floats(long_speech)
    noise = np.random.default_rng(0).normal(0, 0.1, 40 * RATE).astype(np.float32)
    assert anybody_speaks(voice)
    assert anybody_speaks(np.concatenate([np.zeros(45 * RATE, np.float32), voice]))
    assert not anybody_speaks(noise)
    assert not anybody_speaks(np.zeros(0, np.float32))


def test_a_pause_is_found_before_the_end(long_speech: bytes) -> None:
    voice = floats(long_speech)
    end = pause_before_end(voice[: -RATE // 2])
    assert len(voice) * 0.6 < end < len(voice) - RATE
    assert np.abs(voice[end - 800 : end + 800]).max() < 0.05
    assert pause_before_end(np.concatenate([voice, np.zeros(2 * RATE, np.float32)])) == len(voice) + 2 * RATE
