"""Encoders, resampler, tempo and seams."""

import io
import itertools
import math
import subprocess
import sys
import wave
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from yapit.audio import FORMATS, PCM_RATE, Encoder, Joiner, Resampler, Tempo, decode, encode
from yapit.errors import InvalidInputError

RATES = [16_000, 22_050, 24_000, 44_100, 48_000]
CODED = [name for name, entry in FORMATS.items() if entry.codec]
SILENT_PEAK = 103  # -50 dBFS


def sweep(seconds: float, sample_rate: int = 24_000, amplitude: int = 8_000) -> bytes:
    """A tone that climbs from 150 Hz to 1.5 kHz: every stretch of it differs from every other."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    return pcm_of(amplitude * np.sin(2 * np.pi * (150 * t + 1350 / (2 * seconds) * t * t)))


def tone(hertz: float, seconds: float, sample_rate: int = 24_000, phase: float = 0, amplitude: int = 8_000) -> bytes:
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    return pcm_of(amplitude * np.sin(2 * np.pi * hertz * t + phase))


def pcm_of(values: NDArray[np.float64] | Iterable[int]) -> bytes:
    return np.asarray(values).astype("<i2").tobytes()


def samples_of(pcm: bytes) -> NDArray[np.int16]:
    return np.frombuffer(pcm, "<i2")


def silence(samples: int) -> bytes:
    return bytes(2 * samples)


def peak_hertz(pcm: bytes, sample_rate: int) -> float:
    x = samples_of(pcm).astype(float)
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))
    return float(spectrum.argmax() * sample_rate / len(x))


def cut(pcm: bytes, sizes: Iterable[int]) -> list[bytes]:
    """Cut PCM into chunks of the given numbers of samples, over and over."""
    chunks: list[bytes] = []
    position = 0
    for size in itertools.cycle(sizes):
        if position >= len(pcm):
            return chunks
        chunks.append(pcm[position : position + 2 * size])
        position += 2 * size
    raise AssertionError


def run(stage: Resampler | Tempo, chunks: Iterable[bytes]) -> bytes:
    return b"".join([*map(stage.process, chunks), stage.finish()])


def streamed(name: str, sample_rate: int, chunks: Iterable[bytes]) -> bytes:
    encoder = Encoder(name, sample_rate)
    return b"".join([*map(encoder.encode, chunks), encoder.finish()])


def played(data: bytes, sample_rate: int) -> NDArray[np.float64]:
    """Decode with PyAV alone, as a player does, at the rate of the file, then look at it at `sample_rate`."""
    with av.open(io.BytesIO(data), "r") as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)
        frames = [*container.decode(audio=0), None]
        parts = [out.to_ndarray()[0] for frame in frames for out in resampler.resample(frame)]
    return np.concatenate(parts).astype(float)


def likeness(original: bytes, decoded: NDArray[np.float64]) -> tuple[float, int]:
    """Return the best correlation of the middle of the original with the decoded samples, and its shift."""
    margin, reach = 2_500, 1_200
    a = samples_of(original).astype(float)[margin:-margin]
    b = decoded[margin - 64 : margin + reach + len(a)]
    power = np.concatenate([[0], np.cumsum(b * b)])
    alike = np.correlate(b, a, "valid") / np.sqrt((a @ a) * (power[len(a) :] - power[: -len(a)]))
    return float(alike.max()), int(alike.argmax()) - 64


class TestFormats:
    def test_media_types(self) -> None:
        assert {name: entry.media_type for name, entry in FORMATS.items()} == {
            "mp3": "audio/mpeg",
            "opus": "audio/ogg",
            "aac": "audio/aac",
            "flac": "audio/flac",
            "wav": "audio/wav",
            "pcm": "audio/pcm;rate=24000;channels=1",
        }

    @pytest.mark.parametrize("make", [lambda: Encoder("midi", 24_000), lambda: encode(b"", "midi", 24_000)])
    def test_unknown_format_names_the_known_ones(self, make: Callable[[], object]) -> None:
        with pytest.raises(InvalidInputError, match="mp3, opus, aac") as caught:
            make()
        assert caught.value.param == "response_format"

    def test_import_and_wav_need_no_pyav(self) -> None:
        code = (
            "import sys; from yapit.audio import *; e = Encoder('wav', 8000); e.encode(b'12'); e.finish();"
            "p = Encoder('pcm', 24000); p.encode(b'12'); p.finish(); encode(b'12', 'wav', 8000);"
            "Resampler(8000, 8000).process(b'12'); Tempo(8000, 1.0).process(b'12'); assert 'av' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestEncoder:
    @pytest.mark.parametrize("sample_rate", RATES)
    @pytest.mark.parametrize("name", FORMATS)
    def test_bytes_flow_for_every_tenth_of_a_second(self, name: str, sample_rate: int) -> None:
        encoder = Encoder(name, sample_rate)
        chunks = cut(sweep(1, sample_rate), [sample_rate // 10])
        assert all(encoder.encode(chunk) for chunk in chunks)
        encoder.close()

    @pytest.mark.parametrize("sample_rate", RATES)
    @pytest.mark.parametrize("name", CODED)
    def test_length_and_sound_survive(self, name: str, sample_rate: int) -> None:
        pcm = sweep(1.3, sample_rate)
        length = len(pcm) // 2
        for data in (streamed(name, sample_rate, cut(pcm, [sample_rate // 10])), encode(pcm, name, sample_rate)):
            decoded = played(data, sample_rate)
            ours = decode(data, sample_rate=sample_rate)
            frames = 2 * 1024 / FORMATS["aac"].rate_for(sample_rate) if name == "aac" else 0  # ADTS cannot trim
            assert abs(len(decoded) - length) <= max(0.02 * length, frames * sample_rate + 2)
            assert abs(len(ours) // 2 - len(decoded)) <= 2
            alike, shift = likeness(pcm, decoded)
            assert alike > 0.98
            assert abs(shift) <= (frames * sample_rate / 2 + 2 if name == "aac" else 2)

    @pytest.mark.parametrize("name", ["opus", "flac"])
    @pytest.mark.parametrize("complete", [True, False])
    def test_opus_and_flac_are_as_long_as_the_pcm(self, name: str, *, complete: bool) -> None:
        pcm = sweep(1)[: 2 * 23_457]
        data = encode(pcm, name, 24_000) if complete else streamed(name, 24_000, cut(pcm, [2_400]))
        assert len(decode(data, sample_rate=24_000)) == len(pcm)

    def test_complete_mp3_states_its_length(self) -> None:
        pcm = sweep(1)[: 2 * 23_457]
        assert len(decode(encode(pcm, "mp3", 24_000), sample_rate=24_000)) == len(pcm)

    @pytest.mark.parametrize("sizes", [[240], [2_400], [1, 7, 4_801, 0, 333], [24_000]])
    @pytest.mark.parametrize("name", FORMATS)
    def test_chunking_does_not_matter(self, name: str, sizes: list[int]) -> None:
        pcm = sweep(0.7)
        data = streamed(name, 24_000, cut(pcm, sizes))
        assert data == streamed(name, 24_000, [pcm])

    @pytest.mark.parametrize("name", FORMATS)
    def test_single_samples(self, name: str) -> None:
        data = streamed(name, 22_050, cut(sweep(0.1, 22_050), [1]))
        pcm = data if name == "pcm" else decode(data, sample_rate=PCM_RATE)
        assert 2_399 <= len(pcm) // 2 <= 2_400 + 2_048

    @pytest.mark.parametrize("sample_rate", RATES)
    def test_flac_keeps_every_sample(self, sample_rate: int) -> None:
        pcm = sweep(0.5, sample_rate)
        for data in (streamed("flac", sample_rate, cut(pcm, [777])), encode(pcm, "flac", sample_rate)):
            assert decode(data, sample_rate=sample_rate) == pcm

    def test_complete_flac_states_its_samples(self) -> None:
        with av.open(io.BytesIO(encode(sweep(0.5), "flac", 24_000)), "r") as container:
            assert container.duration == 500_000

    @pytest.mark.parametrize("sample_rate", RATES)
    def test_streamed_wav_opens_in_wave(self, sample_rate: int) -> None:
        pcm = sweep(0.5, sample_rate)
        data = streamed("wav", sample_rate, cut(pcm, [100]))
        with wave.open(io.BytesIO(data)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, sample_rate)
            assert file.readframes(10 * sample_rate) == pcm
        assert data[4:8] == data[40:44] == b"\xff" * 4
        assert decode(data, sample_rate=sample_rate) == pcm

    def test_complete_wav_has_exact_sizes(self) -> None:
        pcm = sweep(0.5)
        data = encode(pcm, "wav", 24_000)
        assert int.from_bytes(data[4:8], "little") == len(data) - 8
        with wave.open(io.BytesIO(data)) as file:
            assert file.getnframes() == len(pcm) // 2
            assert file.readframes(file.getnframes()) == pcm

    def test_pcm_at_its_rate_is_the_very_object(self) -> None:
        pcm = sweep(0.1)
        assert Encoder("pcm", PCM_RATE).encode(pcm) is pcm

    def test_pcm_of_another_rate_is_resampled(self) -> None:
        pcm = tone(440, 1, 16_000)
        for data in (streamed("pcm", 16_000, cut(pcm, [1_600])), encode(pcm, "pcm", 16_000)):
            assert len(data) == 2 * PCM_RATE
            assert peak_hertz(data, PCM_RATE) == pytest.approx(440, abs=2)

    @pytest.mark.parametrize("name", FORMATS)
    def test_no_audio_is_no_error(self, name: str) -> None:
        data = Encoder(name, 24_000).finish()
        assert len(data) == len(encode(b"", name, 24_000))
        encoder = Encoder(name, 24_000)
        assert encoder.encode(b"") + encoder.finish() == data

    def test_empty_wav_is_a_wav(self) -> None:
        with wave.open(io.BytesIO(Encoder("wav", 24_000).finish())) as file:
            assert file.getnframes() == 0

    @pytest.mark.parametrize("name", FORMATS)
    def test_end_of_life(self, name: str) -> None:
        encoder = Encoder(name, 22_050)
        encoder.encode(sweep(0.3, 22_050))
        encoder.finish()
        assert encoder.finish() == b""
        encoder.close()
        with pytest.raises(ValueError, match="finished"):
            encoder.encode(b"\0\0")

    @pytest.mark.parametrize("name", FORMATS)
    def test_close_gives_up_what_is_inside(self, name: str) -> None:
        encoder = Encoder(name, 22_050)
        encoder.encode(sweep(0.3, 22_050))
        encoder.close()
        encoder.close()
        assert encoder.finish() == b""

    @pytest.mark.parametrize("name", FORMATS)
    def test_threads_do_not_disturb_each_other(self, name: str) -> None:
        voices = [sweep(1), tone(330, 1)]
        alone = [streamed(name, 24_000, cut(pcm, [500])) for pcm in voices]
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda pcm: streamed(name, 24_000, cut(pcm, [500])), voices)) == alone


class TestResampler:
    @pytest.mark.parametrize(("rate_in", "rate_out"), [(24_000, 16_000), (22_050, 24_000), (8_000, 48_000)])
    @pytest.mark.parametrize("sizes", [[99_999], [1_000], [13, 1, 0, 700]])
    def test_length_and_pitch(self, rate_in: int, rate_out: int, sizes: list[int]) -> None:
        pcm = tone(440, 1.01, rate_in)
        out = run(Resampler(rate_in, rate_out), cut(pcm, sizes))
        assert len(out) // 2 == round(len(pcm) / 2 * rate_out / rate_in)
        assert peak_hertz(out, rate_out) == pytest.approx(440, abs=2)

    @given(st.integers(1, 60), st.sampled_from(RATES), st.sampled_from(RATES))
    @settings(max_examples=40, deadline=None)
    def test_not_even_a_few_samples_are_lost(self, count: int, rate_in: int, rate_out: int) -> None:
        out = run(Resampler(rate_in, rate_out), [silence(count)])
        assert len(out) // 2 == max(1, round(count * rate_out / rate_in))

    def test_equal_rates_pass_through(self) -> None:
        pcm = sweep(0.1)
        resampler = Resampler(24_000, 24_000)
        assert resampler.process(pcm) is pcm
        assert resampler.finish() == b""

    def test_nothing_in_nothing_out(self) -> None:
        assert run(Resampler(24_000, 16_000), [b""]) == b""


class TestTempo:
    @pytest.mark.parametrize("speed", [0.25, 0.4, 0.5, 0.8, 1.0, 1.3, 2.0, 3.1, 4.0])
    def test_duration_changes_and_pitch_does_not(self, speed: float) -> None:
        pcm = tone(440, 3)
        out = run(Tempo(24_000, speed), cut(pcm, [2_400]))
        assert len(out) / 2 / 24_000 == pytest.approx(3 / speed, rel=0.03, abs=0.03)
        assert peak_hertz(out, 24_000) == pytest.approx(440, rel=0.01)

    def test_one_passes_through(self) -> None:
        pcm = sweep(0.1)
        assert Tempo(24_000, 1).process(pcm) is pcm

    @pytest.mark.parametrize("speed", [0.24, 4.01, math.nan, -1])
    def test_out_of_range(self, speed: float) -> None:
        with pytest.raises(InvalidInputError) as caught:
            Tempo(24_000, speed)
        assert caught.value.param == "speed"

    @pytest.mark.parametrize("chunks", [[], [b""], [b"\1\0"], cut(sweep(0.01), [1])])
    def test_little_audio_is_no_error(self, chunks: list[bytes]) -> None:
        assert len(run(Tempo(24_000, 2.5), chunks)) <= 2 * 240


PIECES = st.lists(
    st.lists(st.one_of(st.integers(-32768, 32767), st.integers(-120, 120), st.just(0)), max_size=60).map(pcm_of),
    max_size=5,
)
SIZES = st.lists(st.integers(0, 25), min_size=1, max_size=6).filter(any)
EVERYTHING = {"fade_ms": 0.0, "lead_ms": math.inf, "tail_ms": math.inf}


def join(joiner: Joiner, pieces: Iterable[bytes], sizes: Iterable[int] = (1 << 40,)) -> bytes:
    sizes = list(sizes)
    out = []
    for piece in pieces:
        joiner.begin()
        out += [joiner.push(chunk) for chunk in cut(piece, sizes)]
    return b"".join([*out, joiner.finish()])


class TestJoiner:
    @given(PIECES, SIZES)
    @settings(deadline=None)
    def test_without_trimming_and_fade_it_concatenates(self, pieces: list[bytes], sizes: list[int]) -> None:
        assert join(Joiner(24_000, **EVERYTHING), pieces, sizes) == b"".join(pieces)

    @given(PIECES, SIZES, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
    @settings(deadline=None)
    def test_chunking_does_not_matter(
        self, pieces: list[bytes], sizes: list[int], fade: int, lead: int, tail: int
    ) -> None:
        def fresh() -> Joiner:
            return Joiner(1_000, fade_ms=fade, lead_ms=lead, tail_ms=tail)  # 1 ms is one sample

        assert join(fresh(), pieces, sizes) == join(fresh(), pieces)

    @given(PIECES, st.integers(0, 9), st.integers(0, 9))
    @settings(deadline=None)
    def test_trims_as_slicing_would(self, pieces: list[bytes], lead: int, tail: int) -> None:
        def trimmed(piece: bytes) -> bytes:
            loud = np.flatnonzero(np.abs(samples_of(piece).astype(int)) > SILENT_PEAK)
            if not len(loud):
                return piece[max(0, len(piece) - 2 * (lead + tail)) :]
            return piece[2 * max(0, int(loud[0]) - lead) : 2 * (int(loud[-1]) + 1 + tail)]

        out = join(Joiner(1_000, fade_ms=0, lead_ms=lead, tail_ms=tail), pieces)
        assert out == b"".join(map(trimmed, pieces))

    @given(PIECES, SIZES, st.integers(0, 9))
    @settings(deadline=None)
    def test_a_seam_costs_a_fade_and_no_more(self, pieces: list[bytes], sizes: list[int], fade: int) -> None:
        out = join(Joiner(1_000, fade_ms=fade, lead_ms=math.inf, tail_ms=math.inf), pieces, sizes)
        filled = [len(piece) // 2 for piece in pieces if piece]
        longest = sum(filled)
        assert longest - fade * max(0, len(filled) - 1) <= len(out) // 2 <= longest

    def test_a_single_piece_comes_out_as_it_went_in(self) -> None:
        pcm = pcm_of(samples_of(tone(440, 1, phase=1)))
        assert join(Joiner(24_000), [pcm], [2_400]) == pcm

    def test_nothing_in_nothing_out(self) -> None:
        joiner = Joiner(24_000)
        assert joiner.push(b"") + joiner.finish() + joiner.finish() == b""
        assert joiner.offset_s == 0

    def test_default_bounds(self) -> None:
        sound = tone(440, 0.3, phase=1)
        piece = silence(24_000) + sound + silence(12_000) + sound + silence(24_000)
        out = join(Joiner(24_000), [piece], [999])
        assert out == silence(1_200) + sound + silence(12_000) + sound + silence(4_800)

    @pytest.mark.parametrize("phase", [0, math.pi / 2, math.pi, 4])
    @pytest.mark.parametrize("end_phase", [0, math.pi / 2, 1])
    def test_no_click_between_sines_out_of_phase(self, phase: float, end_phase: float) -> None:
        seconds = 0.5 + end_phase / (2 * math.pi * 100)
        out = samples_of(join(Joiner(24_000), [tone(100, seconds), tone(100, 0.5, phase=phase)])).astype(int)
        step = 8_000 * 2 * math.pi * 100 / 24_000
        gains = 8_000 * math.sqrt(2) * math.pi / 2 / 120  # the fade's own slope: two gains that change over 5 ms
        inside = np.abs(np.diff(out[100:-100])).max()
        assert inside <= math.sqrt(2) * step + gains
        assert len(out) == round(seconds * 24_000) + 12_000 - 120

    def test_opposite_sines_step_no_more_than_they_do_themselves(self) -> None:
        out = samples_of(join(Joiner(24_000), [tone(1_000, 0.5), tone(1_000, 0.5, phase=math.pi)])).astype(int)
        own = np.abs(np.diff(samples_of(tone(1_000, 0.5)).astype(int))).max()
        assert np.abs(np.diff(out)).max() <= own + 8_000 * math.pi / 2 / 120

    def test_cross_fade_keeps_the_power(self) -> None:
        noise = np.random.default_rng(1)
        first, second = (pcm_of(noise.normal(0, 3_000, 24_000).clip(-30_000, 30_000)) for _ in range(2))
        out = samples_of(join(Joiner(24_000, fade_ms=500), [first, second])).astype(float)
        assert len(out) == 36_000
        assert out[12_000:24_000].std() == pytest.approx(3_000, rel=0.05)

    def test_a_loud_fade_saturates(self) -> None:
        loud = pcm_of([32_767] * 500)
        assert samples_of(join(Joiner(24_000), [loud, loud])).min() == 32_767

    @given(
        st.lists(st.tuples(st.integers(0, 90), st.integers(10, 80), st.integers(0, 90)), min_size=1, max_size=5),
        st.integers(0, 10),
        st.data(),
    )
    @settings(deadline=None)
    def test_offset_leads_to_the_marker(
        self, shapes: list[tuple[int, int, int]], fade: int, data: st.DataObject
    ) -> None:
        """Each piece: silence, sound with one marker outside of the fades, silence."""
        joiner = Joiner(1_000, fade_ms=fade, lead_ms=20, tail_ms=30)
        out, expected = b"", []
        for lead, length, tail in shapes:
            sound = [300] * (length + 2 * fade)
            position = data.draw(st.integers(fade, fade + length - 1))
            sound[position] = 20_000
            joiner.begin()
            out += joiner.push(silence(lead) + pcm_of(sound[: position + 1]))
            expected.append(joiner.offset_s + (lead + position) / 1_000)
            out += joiner.push(pcm_of(sound[position + 1 :]) + silence(tail))
            assert joiner.offset_s + (lead + position) / 1_000 == expected[-1]
        markers = np.flatnonzero(samples_of(out + joiner.finish()) == 20_000) / 1_000
        assert list(markers) == pytest.approx(expected)

    def test_holds_back_only_the_fade(self) -> None:
        joiner = Joiner(24_000)
        sound = tone(440, 0.1, phase=1)
        assert joiner.push(sound) == sound[:-240]
        assert len(joiner.push(silence(2_400))) == 4_800  # silence within the bound is not held
        joiner.begin()
        assert len(joiner.push(silence(24_000))) == 0
        assert len(joiner.push(sound)) == len(sound) + 2 * (1_200 - 120)

    def test_hours_of_silence_take_no_memory(self) -> None:
        joiner = Joiner(8_000)
        hush = silence(80_000)
        held = 0
        for _ in range(360):  # an hour before the sound
            assert joiner.push(hush) == b""
            held = max(held, len(joiner._piece._silence))
        joiner.push(tone(300, 0.1, 8_000))
        for _ in range(360):  # an hour after it
            joiner.push(hush)
            held = max(held, len(joiner._piece._silence))
        assert held <= 2 * 10 * 8_000
        assert len(joiner.finish()) <= 2 * 40

    def test_long_silence_inside_keeps_its_length(self) -> None:
        sound = tone(300, 0.1, 8_000, phase=1)
        murmur = pcm_of([1, -1] * 8_000 * 15)  # 30 s below the threshold
        out = join(Joiner(8_000), [sound + murmur + sound], [4_000])
        assert len(out) == len(sound + murmur + sound)
        assert out.startswith((sound + murmur)[: 2 * 8_000 * 10])
        assert out.endswith(sound)

    def test_a_piece_of_silence_is_kept_to_a_bound(self) -> None:
        sound = tone(440, 0.1, phase=1)
        out = join(Joiner(24_000, fade_ms=0), [sound, silence(100_000), sound])
        assert out == sound + silence(6_000) + sound

    def test_a_pause_is_heard_at_its_length_wherever_it_is(self) -> None:
        sound, pause = tone(440, 0.1, phase=1), silence(48_000)
        joiner = Joiner(24_000, fade_ms=0)
        out = joiner.push(pause, pause=True) + joiner.push(silence(100)) + joiner.push(pause, pause=True)
        joiner.begin()
        out += joiner.push(sound) + joiner.push(pause, pause=True)
        joiner.begin()
        out += joiner.push(pause, pause=True)
        joiner.begin()
        out += joiner.push(silence(24_000)) + joiner.push(sound) + joiner.finish()
        trimmed = silence(1_200)
        assert out == pause + silence(100) + pause + sound + pause + pause + trimmed + sound


@pytest.mark.parametrize("name", FORMATS)
def test_an_encoder_opened_early_gives_the_same_bytes(name: str) -> None:
    pcm = sweep(0.5)
    early = Encoder(name, 24_000)
    early.open()
    assert early.sample_rate == 24_000
    assert early.encode(pcm) + early.finish() == streamed(name, 24_000, [pcm])
    early.open()  # after the end it opens nothing
    assert early._made is None
    assert early.finish() == b""
