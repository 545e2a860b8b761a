"""Encoders of speech: bytes flow for every tenth of a second of PCM, in each format the API offers."""

import io
from typing import TYPE_CHECKING, BinaryIO, cast

from yapit.audio.filters import SAMPLE_BYTES, Resampler, to_frame
from yapit.audio.formats import FORMATS, MP3_BIT_RATE, Format
from yapit.errors import InvalidInputError

if TYPE_CHECKING:  # PyAV takes 0.1 s to import; wav and pcm do without
    from av import AudioFrame, AudioStream

_UNKNOWN_SIZE = 0xFFFFFFFF  # in a streamed WAV header; 0 would read as "no WAVE file" to many players
_MP3_DELAY = 576  # samples LAME puts before the sound; players add the 529 of their own filter bank
_FLAC_BLOCK_S = 0.08  # a shorter block than FFmpeg's own, which keeps back up to two chunks of 100 ms


class Encoder:
    """Encodes one response, piece by piece.

    `encode` as often as there is PCM, `finish` once for the rest; `close` instead of `finish` when nobody listens any
    more. What a player gets lasts exactly as long as the PCM in pcm, wav, flac and opus. An mp3 ends up to 27 ms
    later; aac starts 1024 samples (21 to 23 ms) late and ends up to 1023 late: ADTS has no field to say so.

    Args:
        format: a name in `FORMATS`.
        sample_rate: Hz of the PCM.

    Raises:
        InvalidInputError: there is no such format.
    """

    def __init__(self, format: str, sample_rate: int) -> None:  # noqa: A002 # the API's word, as in wave and soundfile
        self._format = _format(format)
        self._sample_rate = sample_rate
        self._made: Resampler | _Wav | _Coder | None = None
        self._ended = False

    @property
    def sample_rate(self) -> int:
        """Hz of the PCM it takes."""
        return self._sample_rate

    def open(self) -> None:
        """Open the codec, if it has one; the first samples do that otherwise, and it takes up to 6 ms."""
        if not self._ended:
            self._stage()

    def encode(self, pcm: bytes) -> bytes:
        """Take any number of samples and return the bytes that are ready, perhaps none.

        Raises:
            ValueError: the encoder was finished or closed.
        """
        if self._ended:
            raise ValueError("this encoder is finished")
        return self._stage().process(pcm)

    def finish(self) -> bytes:
        """Return the last bytes and free everything; once finished or closed there are none."""
        if self._ended:
            return b""
        try:
            return self._stage().finish()
        finally:
            self.close()

    def close(self) -> None:
        """Free everything, whatever is still inside; may be called at any time and again."""
        stage, self._made, self._ended = self._made, None, True
        if isinstance(stage, _Coder):
            stage.close()

    def _stage(self) -> "Resampler | _Wav | _Coder":
        """Return what does the work, made by whoever asks first: opening a codec takes up to 4 ms."""
        if self._made is None:
            if self._format.codec:
                self._made = _Coder(self._format, self._sample_rate, _Pipe())
            elif self._format.name == "wav":
                self._made = _Wav(self._sample_rate)
            else:
                self._made = Resampler(self._sample_rate, self._format.rate_for(self._sample_rate))
        return self._made


def encode(pcm: bytes, format: str, sample_rate: int) -> bytes:  # noqa: A002 # the API's word, as in wave and soundfile
    """Encode complete PCM to a file that states its length: sizes in wav, totals in flac, a Xing header in mp3.

    Args:
        pcm: the samples.
        format: a name in `FORMATS`.
        sample_rate: Hz of `pcm`.

    Raises:
        InvalidInputError: there is no such format.
    """
    chosen = _format(format)
    if chosen.name == "wav":
        return _wav_header(sample_rate, len(pcm)) + pcm
    if not chosen.codec:
        resampler = Resampler(sample_rate, chosen.rate_for(sample_rate))
        return resampler.process(pcm) + resampler.finish()
    sink = io.BytesIO()
    coder = _Coder(chosen, sample_rate, sink)
    step = sample_rate * SAMPLE_BYTES  # a second at a time: the codecs' copies stay small
    try:
        for start in range(0, len(pcm), step):
            coder.process(pcm[start : start + step])
        coder.finish()
    finally:
        coder.close()
    return sink.getvalue()


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise InvalidInputError(
            f"there is no audio format {name!r}; choose one of {', '.join(FORMATS)}", param="response_format"
        )
    return FORMATS[name]


class _Wav:
    """Puts a header of unknown length before PCM at its own rate."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._started = False

    def process(self, pcm: bytes) -> bytes:
        if self._started or not pcm:
            return pcm
        self._started = True
        return _wav_header(self._sample_rate, _UNKNOWN_SIZE) + pcm

    def finish(self) -> bytes:
        return b"" if self._started else _wav_header(self._sample_rate, 0)


def _wav_header(sample_rate: int, data_bytes: int) -> bytes:
    riff_bytes = min(data_bytes + 36, _UNKNOWN_SIZE)
    return b"".join(
        (
            b"RIFF" + riff_bytes.to_bytes(4, "little") + b"WAVE",
            b"fmt " + (16).to_bytes(4, "little"),
            (1).to_bytes(2, "little") + (1).to_bytes(2, "little"),  # PCM, mono
            sample_rate.to_bytes(4, "little") + (sample_rate * SAMPLE_BYTES).to_bytes(4, "little"),
            SAMPLE_BYTES.to_bytes(2, "little") + (8 * SAMPLE_BYTES).to_bytes(2, "little"),
            b"data" + min(data_bytes, _UNKNOWN_SIZE).to_bytes(4, "little"),
        )
    )


class _Pipe(io.RawIOBase):
    """A sink that cannot seek; what was written is taken away after each step."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes") -> int:  # type: ignore[override]  # PyAV writes bytes and nothing else
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


class _Coder:
    """Runs PCM through a codec and a container into a sink; a `_Pipe`'s bytes are returned as they come."""

    def __init__(self, chosen: Format, sample_rate: int, sink: BinaryIO | _Pipe) -> None:
        import av

        rate = chosen.rate_for(sample_rate)
        self._rate, self._sink = rate, sink
        self._resampler = Resampler(sample_rate, rate)
        self._position = 0  # samples at `rate`
        streamed = chosen.stream_options if isinstance(sink, _Pipe) else {}
        self._delay_untold = chosen.name == "mp3" and isinstance(sink, _Pipe)
        # bitexact: the same PCM gives the same bytes, an Ogg stream would else get a random serial number
        options = {"fflags": "bitexact", **chosen.container_options, **streamed}
        self._container = av.open(sink, "w", format=chosen.container, options=options)
        stream = self._container.add_stream(
            chosen.codec, rate=rate, layout="mono", options=_codec_options(chosen, rate)
        )
        self._stream = cast("AudioStream", stream)  # typed by the literal name of a codec
        if chosen.bit_rate:
            self._stream.bit_rate = chosen.bit_rate
        self._stream.codec_context.open(strict=False)  # the first samples would do it otherwise

    def process(self, pcm: bytes) -> bytes:
        self._code(self._resampler.process(pcm))
        return self._sink.take() if isinstance(self._sink, _Pipe) else b""

    def finish(self) -> bytes:
        self._code(self._resampler.finish())
        self._mux(None)
        self._container.close()  # writes the trailer
        return self._sink.take() if isinstance(self._sink, _Pipe) else b""

    def close(self) -> None:
        self._container.close()

    def _code(self, pcm: bytes) -> None:
        if pcm:
            frame = to_frame(pcm, self._rate, self._position)
            self._position += frame.samples
            self._mux(frame)

    def _mux(self, frame: "AudioFrame | None") -> None:
        for packet in self._stream.encode(frame):
            if self._delay_untold:
                self._delay_untold = False
                self._sink.write(_mp3_delay_frame(bytes(packet)[:4], self._rate))
            self._container.mux(packet)


def _codec_options(chosen: Format, rate: int) -> dict[str, str]:
    options = dict(chosen.codec_options)
    if chosen.name == "flac":
        block = 576
        while block * 2 <= rate * _FLAC_BLOCK_S:
            block *= 2
        options["frame_size"] = str(block)
    return options


def _mp3_delay_frame(header: bytes, sample_rate: int) -> bytes:
    """Make the silent first frame of a streamed mp3, which tells players how many samples to skip.

    It is LAME's Info tag without a number of frames. Without it FFmpeg, browsers and libsndfile play 1105 samples of
    silence first (46 ms at 24 kHz). The tag's size field is set, to "unknown" as in a streamed WAV: FFmpeg plays a tag
    frame that has neither frames nor size.

    Args:
        header: the 4 bytes that begin the first frame of sound.
        sample_rate: Hz.
    """
    lowest_rates = not header[1] & 0x08  # MPEG 2 and 2.5: half as many samples in a frame
    frame_bytes = (72 if lowest_rates else 144) * MP3_BIT_RATE // sample_rate
    plain = bytes((header[0], header[1] | 0x01, header[2] & 0xFD, header[3]))  # neither checksum nor padding
    side_information = bytes(9 if lowest_rates else 17)
    info = b"Info" + (2).to_bytes(4, "big") + _UNKNOWN_SIZE.to_bytes(4, "big")  # flag 2: the size follows
    lame = b"LAME3.100" + bytes(12) + (_MP3_DELAY << 12).to_bytes(3, "big")
    return (plain + side_information + info + lame).ljust(frame_bytes, b"\0")
