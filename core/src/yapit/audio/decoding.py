"""Decoder of uploads: any container and codec the API takes, told apart by their bytes, to mono PCM."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from yapit.audio.filters import Resampler, from_frame
from yapit.errors import InvalidInputError

if TYPE_CHECKING:  # PyAV takes 0.1 s to import; a server without uploads never does
    from av import AudioFrame
    from av.container import InputContainer

# Nothing else is opened: playlists (hls, concat, dash) would let an upload name files and hosts to read
_CONTAINERS = "mp3,flac,ogg,wav,w64,aiff,mov,mp4,matroska,webm,aac,mpeg"
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000  # Hz; the resampler's tables grow with the ratio of the rates
_MOST_CHANNELS = 64
_MIXED_BY_FFMPEG = 2  # channels; FFmpeg refuses layouts it has no name for, such as 9 channels of WAV


def decode(
    source: bytes | BinaryIO | Path, *, sample_rate: int = 16_000, max_seconds: float | None = None, param: str = "file"
) -> bytes:
    """Decode an upload to PCM at `sample_rate`; arguments and errors are those of `decode_chunks`."""
    return b"".join(decode_chunks(source, sample_rate=sample_rate, max_seconds=max_seconds, param=param))


def decode_chunks(
    source: bytes | BinaryIO | Path, *, sample_rate: int = 16_000, max_seconds: float | None = None, param: str = "file"
) -> Iterator[bytes]:
    """Decode an upload bit by bit; memory stays bounded whatever its length.

    Understands flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav, webm and aac by their bytes, never by a name. Channels are
    mixed to mono. Broken or missing parts are left out: what can be decoded is. Errors are raised while iterating, the
    first chunk brings those of opening; closing the iterator early frees everything.

    Args:
        source: the file's bytes, a binary file (read from its start if it can seek, and left open), or a path.
        sample_rate: Hz of the PCM that comes out.
        max_seconds: the longest audio that is accepted; decoding stops as soon as it is exceeded.
        param: the request field that errors name.

    Yields:
        PCM, never empty.

    Raises:
        InvalidInputError: empty, not audio, without an audio stream, cut off before its index, without a single
            sample, or too long (code `audio_too_long`).
        OSError: a path that cannot be opened, or a file whose `read` fails.
    """
    import av

    mono = _Mono(sample_rate)
    seconds = 0.0
    some = False
    with ExitStack() as stack:
        container = _open(_file(source, stack), param)
        stack.callback(container.close)
        try:
            for frame in _frames(container, param):
                seconds += frame.samples / _checked_rate(frame, param)
                if max_seconds is not None and seconds > max_seconds:
                    message = f"the audio is longer than {max_seconds:g} s"
                    raise InvalidInputError(message, param=param, code="audio_too_long")
                pcm = mono.process(frame)
                some = some or bool(pcm)
                if pcm:
                    yield pcm
        except av.FFmpegError as error:
            raise InvalidInputError(f"the audio could not be decoded: {error.strerror}", param=param) from error
        if pcm := mono.finish():
            yield pcm
        elif not some:
            raise InvalidInputError("the file has an audio stream without any sound in it", param=param)


def _file(source: bytes | BinaryIO | Path, stack: ExitStack) -> BinaryIO:
    if isinstance(source, Path):
        return stack.enter_context(source.open("rb"))
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    if file.seekable():
        file.seek(0)
    return file


def _open(file: BinaryIO, param: str) -> "InputContainer":
    import av

    try:
        # tags in a strange encoding must not spoil the sound: strict is PyAV's default
        return av.open(file, "r", options={"format_whitelist": _CONTAINERS}, metadata_errors="replace")
    except av.FFmpegError as error:
        message = "the file is not audio in a format this server reads (flac, mp3, mp4, m4a, ogg, wav, webm, aac)"
        if file.seekable() and not file.seek(0, io.SEEK_END):
            message = "the file is empty"
        raise InvalidInputError(message, param=param) from error


def _frames(container: "InputContainer", param: str) -> "Iterator[AudioFrame]":
    """Decode packet after packet; a broken one is skipped, a broken container ends it."""
    import av

    stream = container.streams.best("audio")
    if stream is None or stream.codec_context is None:
        raise InvalidInputError("the file has no audio stream that can be decoded", param=param)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, IndexError):  # PyAV's IndexError: a stream began after the header was read
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        yield from frames  # type: ignore[misc]  # packets of an audio stream hold audio frames


def _checked_rate(frame: "AudioFrame", param: str) -> int:
    if not _LOWEST_RATE <= frame.sample_rate <= _HIGHEST_RATE:
        raise InvalidInputError(f"a sample rate of {frame.sample_rate} Hz is not supported", param=param)
    if not 0 < frame.layout.nb_channels <= _MOST_CHANNELS:
        raise InvalidInputError(f"audio of {frame.layout.nb_channels} channels is not supported", param=param)
    return frame.sample_rate


class _Mono:
    """Mixes frames of any format and rate, even if it changes on the way, to PCM at one rate."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._kind: tuple[str, str, int] | None = None

    def process(self, frame: "AudioFrame") -> bytes:
        from av import AudioResampler

        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        rest = b""
        if kind != self._kind:
            rest = self.finish()
            self._kind = kind
            self._channels = frame.layout.nb_channels
            self._resampler = Resampler(frame.sample_rate, self._sample_rate)
            known = self._channels <= _MIXED_BY_FFMPEG
            self._mixer = AudioResampler(format="s16", layout="mono") if known else AudioResampler(format="flt")
        pcm = b"".join(map(self._mix, self._mixer.resample(frame)))
        return rest + self._resampler.process(pcm)

    def finish(self) -> bytes:
        return b"" if self._kind is None else self._resampler.finish()

    def _mix(self, frame: "AudioFrame") -> bytes:
        if self._channels <= _MIXED_BY_FFMPEG:
            return from_frame(frame)
        import numpy as np

        # packed, because PyAV reads past the end of the list of planes from 8 planar channels on, and crashes
        packed = np.frombuffer(memoryview(frame.planes[0]), "<f4", frame.samples * self._channels)
        mixed = packed.reshape(-1, self._channels).mean(axis=1) * 32768
        pcm: bytes = mixed.round().clip(-32768, 32767).astype("<i2").tobytes()
        return pcm
