"""Uploads: every format, every way to be broken."""

import gc
import io
import math
import os
import tracemalloc
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from yapit.audio import Encoder, decode, decode_chunks, encode
from yapit.audio.decoding import _Mono
from yapit.audio.filters import to_frame
from yapit.errors import InvalidInputError

RATE = 44_100
UPLOADS = [  # muxer, codec, sample format, sample rate
    ("flac", "flac", "s16", RATE),
    ("mp3", "libmp3lame", "fltp", RATE),
    ("mp4", "aac", "fltp", RATE),
    ("ipod", "aac", "fltp", RATE),  # m4a
    ("mov", "pcm_s24le", "s32", RATE),
    ("adts", "aac", "fltp", RATE),
    ("ogg", "libopus", "s16", 48_000),
    ("ogg", "flac", "s16", RATE),
    ("webm", "libopus", "flt", 48_000),
    ("matroska", "pcm_f32le", "flt", RATE),
    ("mpeg", "mp2", "s16", RATE),
    ("wav", "pcm_s16le", "s16", RATE),
    ("wav", "pcm_u8", "u8", 8_000),
    ("wav", "pcm_s24le", "s32", 96_000),
    ("wav", "pcm_s32le", "s32", RATE),
    ("wav", "pcm_f32le", "flt", RATE),
    ("wav", "pcm_f64le", "dbl", RATE),
    ("wav", "pcm_mulaw", "s16", 8_000),
]


def made(muxer: str, codec: str, kind: str, sample_rate: int, *, layout: str = "mono", seconds: float = 1) -> bytes:
    """Make a file of a 440 Hz tone at a quarter of full scale with PyAV alone."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=muxer) as container:
        stream: Any = container.add_stream(codec, rate=sample_rate, layout=layout, format=kind)
        add_tone(container, stream, sample_rate, layout, seconds)
    return sink.getvalue()


def add_tone(container: Any, stream: Any, sample_rate: int, layout: str, seconds: float) -> None:
    samples = (8_192 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * sample_rate)) / sample_rate)).astype("<i2")
    channels = av.AudioLayout(layout).nb_channels
    frame = av.AudioFrame.from_ndarray(np.repeat(samples, channels).reshape(1, -1), format="s16", layout=layout)
    frame.sample_rate, frame.pts = sample_rate, 0
    for piece in (frame, None):
        for packet in stream.encode(piece):
            container.mux(packet)


def video(*, sound: bool) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        stream: Any = container.add_stream("aac", rate=RATE, layout="mono") if sound else None
        for _ in range(10):
            for packet in pictures.encode(av.VideoFrame(32, 32, "yuv420p")):
                container.mux(packet)
        for packet in pictures.encode(None):
            container.mux(packet)
        if sound:
            add_tone(container, stream, RATE, "mono", 1)
    return sink.getvalue()


def wav_of(channels: int, samples: NDArray[Any], sample_rate: int = 16_000) -> bytes:
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return sink.getvalue()


def assert_tone(pcm: bytes, *, seconds: float = 1, sample_rate: int = 16_000) -> None:
    samples = np.frombuffer(pcm, "<i2").astype(float)
    assert len(samples) == pytest.approx(seconds * sample_rate, abs=0.08 * sample_rate)
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * sample_rate / len(middle) == pytest.approx(440, abs=3)
    assert np.sqrt((middle**2).mean()) == pytest.approx(
        8_192 / math.sqrt(2), rel=0.2
    )  # a coder leaves 440 Hz out of the LFE channel


def refused(source: Any, **options: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        decode(source, param="upload", **options)
    assert caught.value.param == "upload"
    return caught.value


class TestFormats:
    @pytest.mark.parametrize(("muxer", "codec", "kind", "sample_rate"), UPLOADS)
    def test_every_upload_format(self, muxer: str, codec: str, kind: str, sample_rate: int) -> None:
        assert_tone(decode(made(muxer, codec, kind, sample_rate)))

    @pytest.mark.parametrize(("muxer", "codec", "kind"), [("flac", "flac", "s16"), ("ipod", "aac", "fltp")])
    @pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1"])
    def test_layouts(self, muxer: str, codec: str, kind: str, layout: str) -> None:
        assert_tone(decode(made(muxer, codec, kind, RATE, layout=layout)))

    @pytest.mark.parametrize("layout", ["octagonal", "24 channels"])
    def test_planar_layouts_of_many_channels(self, layout: str) -> None:
        """PyAV cannot list more than seven planes; libopus decodes to planes."""
        sink = io.BytesIO()
        with av.open(sink, "w", format="matroska") as container:
            options = {"mapping_family": "255"}
            stream: Any = container.add_stream("libopus", rate=48_000, layout=layout, options=options)
            stream.bit_rate = 64_000 * av.AudioLayout(layout).nb_channels
            add_tone(container, stream, 48_000, layout, 1)
        assert_tone(decode(sink.getvalue()))

    @pytest.mark.parametrize("channels", range(1, 25))
    def test_any_number_of_channels(self, channels: int) -> None:
        pcm = decode(wav_of(channels, np.full(channels * 1_600, 1_000)))
        assert len(pcm) == 3_200
        assert set(np.frombuffer(pcm, "<i2").tolist()) <= {999, 1_000, 1_001}

    def test_channels_are_averaged(self) -> None:
        samples = np.tile(np.arange(0, 1_200, 100), 160)  # twelve channels of 0, 100, … 1100
        assert np.frombuffer(decode(wav_of(12, samples)), "<i2").tolist() == [550] * 160

    def test_video_with_sound(self) -> None:
        assert_tone(decode(video(sound=True)))

    def test_exact_at_its_own_rate(self) -> None:
        samples = np.random.default_rng(3).integers(-32_768, 32_767, 5_000)
        assert decode(wav_of(1, samples)) == samples.astype("<i2").tobytes()

    @pytest.mark.parametrize("sample_rate", [8_000, 16_000, 24_000, 48_000])
    def test_rate_of_the_output(self, sample_rate: int) -> None:
        assert_tone(decode(made("flac", "flac", "s16", RATE), sample_rate=sample_rate), sample_rate=sample_rate)

    @pytest.mark.parametrize("sample_rate", [8_000, 16_000, 44_100])
    def test_one_sample(self, sample_rate: int) -> None:
        assert 1 <= len(decode(wav_of(1, np.array([7]), sample_rate))) // 2 <= 2

    def test_rate_that_changes_on_the_way(self) -> None:
        parts = [encode(bytes(2 * rate), "mp3", rate) for rate in (24_000, 48_000)]
        assert len(decode(b"".join(parts))) / 2 == pytest.approx(2 * 16_000, abs=3_000)

    def test_no_sample_is_lost_where_the_rate_changes(self) -> None:
        mono = _Mono(16_000)
        parts = [mono.process(to_frame(bytes(2 * rate), rate, 0)) for rate in (24_000, 48_000, 16_000, 22_050)]
        assert len(b"".join([*parts, mono.finish()])) == 2 * 4 * 16_000

    def test_a_stream_that_begins_late(self) -> None:
        """PyAV cannot count streams that begin after it has looked at the file's first 5 s."""
        sound = made("mpeg", "mp2", "s16", RATE, seconds=30)
        sink = io.BytesIO()
        with av.open(sink, "w", format="mpeg") as container:
            pictures = container.add_stream("mpeg1video", rate=25)
            pictures.width = pictures.height = 32
            pictures.pix_fmt = "yuv420p"
            for picture in [*(av.VideoFrame(32, 32, "yuv420p") for _ in range(25)), None]:
                for packet in pictures.encode(picture):
                    container.mux(packet)
        assert_tone(decode(sound + sink.getvalue() + sound), seconds=60)

    def test_tags_in_no_encoding(self) -> None:
        title = b"TIT2" + (5).to_bytes(4, "big") + b"\0\0" + b"\x03\xff\xfe\xff\xff"
        tag = b"ID3\x03\0\0" + bytes((0, 0, 0, len(title))) + title
        assert_tone(decode(tag + made("mp3", "libmp3lame", "fltp", RATE)))


class TestSources:
    def test_bytes_file_and_path(self, tmp_path: Path) -> None:
        data = made("ipod", "aac", "fltp", RATE)
        path = tmp_path / "speech.bin"
        path.write_bytes(data)
        expected = decode(data)
        assert decode(path) == expected
        with path.open("rb") as file:
            file.seek(100)
            assert decode(file) == expected
            assert not file.closed

    def test_a_pipe(self) -> None:
        reading, writing = os.pipe()
        data = made("flac", "flac", "s16", RATE, seconds=0.2)
        assert len(data) < 65_536  # fits the pipe
        os.write(writing, data)
        os.close(writing)
        with open(reading, "rb") as file:  # noqa: PTH123 # a descriptor, not a path
            assert decode(file) == decode(data)

    def test_missing_path_is_not_the_clients_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            decode(tmp_path / "absent.wav")

    def test_early_close_frees_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "speech.flac"
        path.write_bytes(made("flac", "flac", "s16", RATE))
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 # names only
        chunks = decode_chunks(path)
        assert next(chunks)
        assert isinstance(chunks, Iterator)
        chunks.close()  # type: ignore[attr-defined]  # a generator, as every caller may close it
        gc.collect()
        assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 # likewise

    def test_chunks_make_the_whole(self) -> None:
        data = made("mp3", "libmp3lame", "fltp", RATE)
        chunks = list(decode_chunks(data))
        assert len(chunks) > 10
        assert all(chunks)
        assert b"".join(chunks) == decode(data)


class TestRefused:
    def test_empty(self) -> None:
        assert "empty" in refused(b"").message
        assert "empty" in refused(io.BytesIO()).message

    @pytest.mark.parametrize(
        "data",
        [
            np.random.default_rng(1).bytes(100_000),
            bytes(100_000),
            b"hello world " * 5_000,
            b"RIFF",
            b"\x89PNG\r\n\x1a\n" + bytes(1_000),
        ],
        ids=["noise", "zeros", "text", "stub", "png"],
    )
    def test_not_audio(self, data: bytes) -> None:
        assert "not audio" in refused(data).message

    def test_playlists_open_nothing(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret.wav"
        secret.write_bytes(wav_of(1, np.full(1_600, 1_000)))
        refused(f"ffconcat version 1.0\nfile {secret}\n".encode())
        refused(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n".encode())

    @pytest.mark.parametrize("muxer", ["au", "caf", "avi"])
    def test_containers_off_the_list_are_not_opened(self, muxer: str) -> None:
        assert "not audio" in refused(made(muxer, "pcm_s16le" if muxer != "au" else "pcm_s16be", "s16", RATE)).message

    def test_video_without_sound(self) -> None:
        assert "no audio stream" in refused(video(sound=False)).message

    def test_container_without_its_index(self) -> None:
        data = made("ipod", "aac", "fltp", RATE, seconds=3)
        refused(data[: len(data) // 2])

    @pytest.mark.parametrize("name", ["wav", "flac"])
    def test_no_samples(self, name: str) -> None:
        refused(encode(b"", name, 24_000))

    @pytest.mark.parametrize("sample_rate", [1, 500, 4_000_000_000])
    def test_absurd_rates(self, sample_rate: int) -> None:
        data = bytearray(wav_of(1, np.full(160, 1_000)))
        data[24:28] = sample_rate.to_bytes(4, "little")
        refused(bytes(data))

    def test_longer_than_allowed(self) -> None:
        data = made("flac", "flac", "s16", RATE, seconds=3)
        error = refused(data, max_seconds=2.5)
        assert error.code == "audio_too_long"
        assert "2.5 s" in error.message
        assert_tone(decode(data, max_seconds=3), seconds=3)

    def test_bomb_is_given_up_early(self) -> None:
        """An hour of silence is 300 kB of flac and 115 MB of PCM."""
        encoder = Encoder("flac", 24_000)
        minute = bytes(2 * 60 * 24_000)
        data = b"".join([*(encoder.encode(minute) for _ in range(60)), encoder.finish()])
        assert len(data) < 2_000_000
        chunks = decode_chunks(data, max_seconds=10)
        got = 0

        def drain() -> None:
            nonlocal got
            for chunk in chunks:
                got += len(chunk)

        tracemalloc.start()
        with pytest.raises(InvalidInputError):
            drain()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 9 * 32_000 < got <= 10 * 32_000
        assert peak < 4_000_000


class TestDamaged:
    def test_truncated_mp3_decodes_what_is_there(self) -> None:
        data = made("mp3", "libmp3lame", "fltp", RATE, seconds=4)
        assert_tone(decode(data[: len(data) // 2]), seconds=2)

    @pytest.mark.parametrize(
        ("muxer", "codec"), [("ogg", "libopus"), ("webm", "libopus"), ("adts", "aac"), ("wav", "pcm_s16le")]
    )
    def test_truncated_streams_decode_what_is_there(self, muxer: str, codec: str) -> None:
        data = made(muxer, codec, "fltp" if codec == "aac" else "s16", 48_000, seconds=4)
        seconds = len(decode(data[: len(data) // 2])) / 32_000
        assert 1 < seconds < 2.6

    @pytest.mark.parametrize(("muxer", "codec", "kind", "sample_rate"), UPLOADS)
    def test_damage_never_lets_another_error_out(self, muxer: str, codec: str, kind: str, sample_rate: int) -> None:
        data = made(muxer, codec, kind, sample_rate)
        for seed in range(12):
            chance = np.random.default_rng(seed)
            broken = bytearray(data[: chance.integers(1, len(data))] if seed % 3 == 0 else data)
            for _ in range(20):
                broken[chance.integers(len(broken))] = chance.integers(256)
            try:
                decode(bytes(broken), max_seconds=20)
            except InvalidInputError:
                continue
