"""Transcripts of tiny models, compared with what transformers itself makes of the same weights."""

import asyncio
import itertools
import threading
import warnings
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from numpy.typing import NDArray

import yapit_plugin_hf_generic
from loops import PATIENCE_S, run
from models import speech
from yapit import Context, InvalidInputError, LoadError, Model, Segment, Transcriber, TranscribeRequest
from yapit.audio import Resampler
from yapit.catalog import Catalog
from yapit.engine import Engine
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import TRANSCRIBE
from yapit_plugin_hf_generic import transcribe
from yapit_plugin_hf_generic.listening import HFTranscriber
from yapit_plugin_hf_generic.listening.ctc import Speller, Token
from yapit_plugin_hf_generic.listening.windows import overlapping, quiet_cuts, resampled, sounding

RATE = 16_000
FRAME_S = 0.02
KINDS = ("Wav2Vec2", "Hubert", "WavLM", "Data2VecAudio")
CPU = Context(device="cpu")
Samples = NDArray[np.float32]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("listening")


@pytest.fixture(scope="session")
def ctc(folder: Path) -> Path:
    return speech.save_ctc(folder / "Wav2Vec2")


@pytest.fixture(scope="session")
def moonshine(folder: Path) -> Path:
    return speech.save_moonshine(folder / "moonshine")


@pytest.fixture
def ear(ctc: Path) -> Iterator[HFTranscriber]:
    adapter = load(entry(ctc, options={"window_s": 3}))
    yield adapter
    adapter.close()


def entry(source: Path, **fields: Any) -> Model:
    return Model(
        id=source.name, backend="hf-generic", tasks=("transcribe",), source=str(source), executor="thread", **fields
    )


def load(model: Model) -> HFTranscriber:
    adapter = transcribe(model, CPU)
    assert isinstance(adapter, HFTranscriber)
    return adapter


def chirps(seconds: float, seed: int = 0, rate: int = RATE) -> bytes:
    """Return PCM of tones of a tenth of a second, each of another height."""
    numbers = np.random.default_rng(seed)
    hertz = np.repeat(numbers.uniform(100, 3000, int(seconds * 10) + 1), rate // 10)[: int(seconds * rate)]
    sound = 0.5 * np.sin(2 * np.pi * np.cumsum(hertz) / rate)
    return bytes((sound * 32767).astype("<i2").tobytes())


def silence(seconds: float) -> bytes:
    return bytes(2 * int(seconds * RATE))


def floats(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


def heard(adapter: Transcriber, pcm: bytes, **fields: Any) -> list[Segment]:
    async def gather() -> list[Segment]:
        request = TranscribeRequest(pcm=pcm, **{"sample_rate": RATE, **fields})
        return [segment async for segment in adapter.transcribe(request)]  # type: ignore[union-attr]  # these wait

    return asyncio.run(gather())


def once(model: Model, pcm: bytes, **fields: Any) -> list[Segment]:
    """Load, listen, and close."""
    adapter = load(model)
    try:
        return heard(adapter, pcm, **fields)
    finally:
        adapter.close()


def text_of(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments).strip()


def plain(text: str) -> str:
    """Return the text without the spaces that the pipeline doubles."""
    return " ".join(text.split())


# ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_heard_is_what_the_pipeline_hears(folder: Path, kind: str) -> None:
    source = speech.save_ctc(folder / kind, kind)
    pcm = chirps(6.5)
    pipeline = hf.pipeline("automatic-speech-recognition", model=str(source))
    segments = once(entry(source), pcm)
    text = text_of(segments)
    with warnings.catch_warnings():  # the pipeline hands WavLM a mask that torch complains of
        warnings.simplefilter("ignore")
        assert text == plain(pipeline(floats(pcm))["text"])
    assert len(set(text)) > 4, "the oracle says something"
    assert all(0 <= segment.start_s < segment.end_s <= 6.5 for segment in segments)
    assert all(segment.words == () for segment in segments)


def test_a_frame_that_no_configuration_measures_is_measured(folder: Path) -> None:
    source = speech.save_parakeet(folder / "parakeet")
    words = [word for segment in once(entry(source), chirps(6.5), word_times=True) for word in segment.words]
    model = hf.ParakeetForCTC.from_pretrained(source).eval()
    extractor = hf.AutoFeatureExtractor.from_pretrained(source)
    inputs = extractor(floats(chirps(6.5)), sampling_rate=RATE, return_tensors="pt")
    ids = model(**inputs).logits[0].argmax(-1).tolist()
    wanted = hf.AutoTokenizer.from_pretrained(source).decode([id_ for id_, _ in itertools.groupby(ids)])
    assert " ".join(word.text for word in words) == wanted
    assert len(words) > 3
    steps = [time / 0.08 for word in words for time in (word.start_s, word.end_s)]
    assert steps[:-1] == pytest.approx([round(step) for step in steps[:-1]])
    assert 80 <= steps[-1] <= 81.25


def test_long_sound_is_heard_in_windows_as_the_pipeline_does(ctc: Path, ear: HFTranscriber) -> None:
    pcm = chirps(17.3)
    pipeline = hf.pipeline("automatic-speech-recognition", model=str(ctc))
    segments = heard(ear, pcm)
    assert text_of(segments) == plain(pipeline(floats(pcm), chunk_length_s=3)["text"])
    assert text_of(segments) != plain(pipeline(floats(pcm))["text"]), "the windows are heard in the text"
    assert len(segments) > 5
    times = [time for segment in segments for time in (segment.start_s, segment.end_s)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(17.3, abs=0.3)


def test_words_have_the_times_that_the_pipeline_gives_them(ctc: Path) -> None:
    pcm = chirps(6.5)
    wanted = hf.pipeline("automatic-speech-recognition", model=str(ctc))(floats(pcm), return_timestamps="word")
    words = [(segment, word) for segment in once(entry(ctc), pcm, word_times=True) for word in segment.words]
    assert [word.text for _, word in words] == [chunk["text"] for chunk in wanted["chunks"]]
    assert len(words) > 3
    for (segment, word), chunk in zip(words, wanted["chunks"], strict=True):
        assert (word.start_s, word.end_s) == pytest.approx(tuple(map(float, chunk["timestamp"])))
        assert segment.text[word.offset :].startswith(word.text)
        assert segment.start_s <= word.start_s < word.end_s <= segment.end_s


def test_a_segment_knows_its_tokens_and_how_sure_the_model_is(ctc: Path) -> None:
    pcm = chirps(2.0)
    (segment, *_) = segments = once(entry(ctc), pcm)
    model = hf.Wav2Vec2ForCTC.from_pretrained(ctc).eval()
    inputs = hf.AutoFeatureExtractor.from_pretrained(ctc)(floats(pcm), sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        best = model(**inputs).logits[0].log_softmax(-1).max(-1)
    changes = torch.cat([torch.tensor([True]), best.indices[1:] != best.indices[:-1]])
    letters = [int(token) for token in best.indices[changes] if token not in (0, 4)]
    assert [token for each in segments for token in each.tokens] == letters
    assert segment.average_logprob is not None
    assert best.values.min() - 1e-4 <= segment.average_logprob <= best.values.max() + 1e-4
    assert segment.average_logprob < -1e-4


def test_other_sample_rates_are_resampled(ctc: Path) -> None:
    pcm = chirps(3.0, rate=44_100)
    resampler = Resampler(44_100, RATE)
    wanted = once(entry(ctc), resampler.process(pcm) + resampler.finish())
    assert once(entry(ctc), pcm, sample_rate=44_100) == wanted
    assert text_of(wanted)


def counted(adapter: HFTranscriber) -> list[int]:
    """Return what will have as many items as windows have been heard."""
    calls: list[int] = []
    adapter._ear.model.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.09, 1.0, 20.0])
def test_silence_has_no_segments_and_costs_nothing(ear: HFTranscriber, seconds: float) -> None:
    calls = counted(ear)
    assert heard(ear, silence(seconds)) == []
    noise = (np.random.default_rng(1).normal(size=int(seconds * RATE)) * 5).astype("<i2")
    assert heard(ear, noise.tobytes()) == []
    assert calls == []


def test_what_is_heard_between_silences_is_at_its_place(ear: HFTranscriber) -> None:
    segments = heard(ear, silence(7.0) + chirps(2.0) + silence(9.0))
    # The window with the sound has silence too, in which an untrained model hears something.
    assert 4.0 <= segments[0].start_s <= 7.5
    assert 8.5 <= segments[-1].end_s <= 13.0


def test_sound_too_short_for_a_frame_is_silent(ear: HFTranscriber) -> None:
    assert heard(ear, chirps(0.01)) == []
    assert heard(ear, b"") == []


def test_the_first_segment_comes_while_the_rest_is_unheard(ear: HFTranscriber) -> None:
    calls = counted(ear)

    async def main() -> None:
        request = TranscribeRequest(pcm=chirps(30), sample_rate=RATE)
        async with aclosing(ear.transcribe(request)) as segments:  # type: ignore[type-var]  # these wait
            await anext(segments)
            assert len(calls) == 1
        assert len(calls) == 1

    asyncio.run(main())


# ── tokens to words ───────────────────────────────────────────────────────────────────────────────────────────────────
class Letters:
    """The part of a tokenizer that spelling needs."""

    def __init__(self, *pieces: str, delimiter: str | None = "|") -> None:
        self.pieces = ["_", *([delimiter] if delimiter else []), *pieces]
        self.pad_token_id = 0
        self.all_special_ids: list[int] = [0]
        if delimiter:
            self.word_delimiter_token = delimiter

    def get_vocab(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self.pieces)}

    def ids(self, frames: str) -> NDArray[np.int64]:
        return np.array(
            [self.pieces.index(piece) for piece in frames.split()]
            if " " in frames
            else [self.pieces.index(letter) for letter in frames]
        )


def words_of(letters: Letters, *portions: str, pause: int = 5) -> list[str]:
    """Return each word as its letters, with the frames of each."""
    speller, frame, words = Speller(letters, pause), 0, list[list[Token]]()
    for portion in portions:
        ids = letters.ids(portion)
        words += speller.hear(ids, np.zeros(len(ids), np.float32), frame)
        frame += len(ids)
    words += speller.finish()
    return [" ".join(f"{letters.pieces[token.id]}{token.start}-{token.end}" for token in word) for word in words]


LATIN = Letters(*"abc")


@pytest.mark.parametrize(
    ("portions", "words"),
    [
        (["aab"], ["a0-2 b2-3"]),
        (["a_a"], ["a0-1 a2-3"]),
        (["_a__b_"], ["a1-2 b4-5"]),
        (["ab|c"], ["a0-1 b1-2", "c3-4"]),
        (["||a||_|b|"], ["a2-3", "b7-8"]),
        (["aa", "ab"], ["a0-3 b3-4"]),
        (["aa_", "ab"], ["a0-2 a3-4 b4-5"]),
        (["a|", "|b"], ["a0-1", "b3-4"]),
        (["a", "_", "", "b|c"], ["a0-1 b2-3", "c4-5"]),
        (["a_____b"], ["a0-1 b6-7"]),
        (["a______", "b"], ["a0-1", "b7-8"]),
        (["____"], []),
        (["|"], []),
        ([], []),
    ],
)
def test_frames_become_letters_and_words(portions: list[str], words: list[str]) -> None:
    assert words_of(LATIN, *portions) == words


def test_pieces_that_begin_words_part_them() -> None:
    pieces = Letters("\u2581he", "llo", "\u2581you", delimiter=None)
    assert words_of(pieces, "\u2581he _ llo llo \u2581you _") == ["\u2581he0-1 llo2-4", "\u2581you4-5"]


def test_without_marks_between_words_pauses_part_them() -> None:
    chinese = Letters(*"\u4f60\u597d\u5417", delimiter=None)
    assert words_of(chinese, "\u4f60_\u597d______\u5417") == ["\u4f600-1 \u597d2-3", "\u54179-10"]


# ── windows ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("length", [1, 99, 100, 101, 159, 160, 161, 1000, 1001])
def test_the_middles_of_overlapping_windows_are_the_whole(length: int) -> None:
    samples = np.arange(length, dtype=np.float32)
    windows = [*overlapping(samples, 100, 20)]
    own = [each.samples[each.before : len(each.samples) - each.after] for each, _ in windows]
    assert np.array_equal(np.concatenate(own), samples)
    assert [last for _, last in windows] == [False] * (len(windows) - 1) + [True]
    assert all(len(each.samples) <= 100 for each, _ in windows)
    assert all(each.samples[0] == each.start for each, _ in windows)


@pytest.mark.parametrize("seconds", [0.5, 3.0, 3.1, 11.0])
def test_windows_are_cut_where_it_is_quiet(seconds: float) -> None:
    samples = floats(chirps(seconds))
    quiet = [slice(int((at - 0.1) * RATE), int((at + 0.1) * RATE)) for at in (2.5, 5.0, 7.2, 9.7)]
    for each in quiet:
        samples[each] = 0
    windows = [*quiet_cuts(samples, RATE, 3.0)]
    assert np.array_equal(np.concatenate([window.samples for window in windows]), samples)
    assert [window.start for window in windows] == [
        sum(len(each.samples) for each in windows[:number]) for number in range(len(windows))
    ]
    assert all(len(window.samples) <= 3 * RATE for window in windows)
    assert all(any(each.start <= window.start <= each.stop for each in quiet) for window in windows[1:])


def test_sound_is_where_it_is_loud() -> None:
    samples = np.concatenate([floats(silence(1)), floats(chirps(2)), floats(silence(0.5))])
    begin, end = sounding(samples, RATE)
    assert begin == pytest.approx(RATE, abs=20)
    assert end == pytest.approx(3 * RATE, abs=20)
    assert sounding(floats(silence(3)), RATE) == (0, 0)


def test_equal_rates_are_not_resampled() -> None:
    pcm = chirps(0.2)
    assert np.array_equal(resampled(np.frombuffer(pcm, "<i2"), RATE, RATE), floats(pcm))


# ── token by token ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_model_that_writes_whole_windows_writes_what_generate_writes(moonshine: Path) -> None:
    pcm = silence(0.5) + chirps(2.0) + silence(0.5)
    (segment,) = once(entry(moonshine), pcm)
    model = hf.MoonshineForConditionalGeneration.from_pretrained(moonshine).eval()
    inputs = hf.AutoFeatureExtractor.from_pretrained(moonshine)(floats(pcm), sampling_rate=RATE, return_tensors="pt")
    # 6.5 tokens a second, and some.
    tokens = model.generate(**inputs, max_new_tokens=27)[0]
    assert segment.text.strip() == hf.AutoTokenizer.from_pretrained(moonshine).decode(tokens, skip_special_tokens=True)
    assert segment.tokens == tuple(tokens.tolist())
    assert len(segment.text) > 20
    assert (segment.start_s, segment.end_s) == pytest.approx((0.5, 2.5), abs=0.01)


def test_each_window_of_such_a_model_is_a_segment_and_silent_ones_are_none(moonshine: Path) -> None:
    adapter = load(entry(moonshine, options={"window_s": 2.5}))
    pcm = chirps(1.5) + silence(3.0) + chirps(1.0)
    segments = heard(adapter, pcm, word_times=True)
    assert heard(adapter, silence(5)) == []
    adapter.close()
    assert [(round(each.start_s, 1), round(each.end_s, 1)) for each in segments] == [(0.0, 1.5), (4.5, 5.5)]
    assert all(each.words == () for each in segments)


def test_the_model_s_own_limit_is_kept(moonshine: Path, folder: Path) -> None:
    import json
    import shutil

    source = shutil.copytree(moonshine, folder / "short")
    path = source / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_new_tokens": 3}))
    (segment,) = once(entry(source), chirps(2.0))
    assert len(segment.tokens) == 4, "the first one is the beginning"


# ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_language_the_model_does_not_know_is_refused(ctc: Path) -> None:
    adapter = load(entry(ctc, languages=("en", "en-GB")))
    with pytest.raises(InvalidInputError, match="knows no 'de'; it knows en") as refused:
        heard(adapter, chirps(1), language="de")
    assert refused.value.param == "language"
    assert {segment.language for segment in heard(adapter, chirps(1), language="en-US")} == {"en-US"}
    adapter.close()


def test_the_only_language_of_a_model_is_the_segments_s(ctc: Path) -> None:
    assert {segment.language for segment in once(entry(ctc, languages=("en",)), chirps(1))} == {"en"}
    assert {segment.language for segment in once(entry(ctc), chirps(1))} == {None}
    assert {segment.language for segment in once(entry(ctc), chirps(1), language="fr")} == {"fr"}


@pytest.mark.parametrize("name", ["ctc", "moonshine"])
def test_a_translation_is_refused(request: pytest.FixtureRequest, name: str) -> None:
    adapter = load(entry(request.getfixturevalue(name)))
    with pytest.raises(InvalidInputError, match="does not translate") as refused:
        heard(adapter, chirps(1), translate=True)
    assert refused.value.param == "translate"
    adapter.close()


def test_a_prompt_and_a_temperature_change_nothing(ctc: Path) -> None:
    wanted = once(entry(ctc), chirps(1))
    assert once(entry(ctc), chirps(1), prompt="Names: Zoe", temperature=0.5) == wanted


def test_a_model_that_cannot_listen_is_refused(folder: Path) -> None:
    source = speech.save_vits(folder / "deaf")
    with pytest.raises(LoadError, match="no class that writes down speech for the type 'vits'"):
        load(entry(source))


# ── all ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["ctc", "moonshine"])
def test_many_at_once_are_heard_as_one_alone(request: pytest.FixtureRequest, name: str) -> None:
    model = entry(request.getfixturevalue(name), options={"window_s": 3})
    recordings = [chirps(4.0, seed) for seed in range(4)]
    alone = [once(model, pcm) for pcm in recordings]
    assert len({text_of(segments) for segments in alone}) > 1
    plugins = Plugins()
    plugins.register("hf-generic", yapit_plugin_hf_generic)

    async def main() -> None:
        engine = Engine(Settings(device="cpu"), plugins, Catalog([model]))

        async def ask(number: int) -> None:
            wanted = TranscribeRequest(pcm=recordings[number], sample_rate=RATE)
            async with aclosing(engine.stream(TRANSCRIBE, model, wanted)) as segments:
                assert [segment async for segment in segments] == alone[number]

        async with asyncio.TaskGroup() as group:
            for number in (*range(4), *range(4)):
                group.create_task(ask(number))
        await engine.close()

    run(main())


@pytest.mark.parametrize("name", ["ctc", "moonshine"])
def test_a_client_that_leaves_stops_the_model_inside_of_a_window(request: pytest.FixtureRequest, name: str) -> None:
    adapter = load(entry(request.getfixturevalue(name)))
    inside, go_on, layers = threading.Event(), threading.Event(), list[int]()

    def hold(*_: Any) -> None:
        inside.set()
        assert go_on.wait(PATIENCE_S)

    model = adapter._ear.model
    stacks = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part)]
    stacks[0][0].register_forward_hook(hold)
    stacks[-1][-1].register_forward_hook(lambda *_: layers.append(1))

    async def main() -> None:
        async def hear() -> None:
            request = TranscribeRequest(pcm=chirps(2), sample_rate=RATE)
            async with aclosing(adapter.transcribe(request)) as segments:  # type: ignore[type-var]  # these wait
                async for _ in segments:
                    pass

        listener = asyncio.create_task(hear())
        assert await asyncio.to_thread(inside.wait, PATIENCE_S)
        listener.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await listener

    asyncio.run(main())
    assert layers == []
    assert text_of(heard(adapter, chirps(2))), "the next call is as good as any"
    adapter.close()
