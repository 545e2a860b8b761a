"""The formats speech is delivered in, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

PCM_RATE = 24_000  # what OpenAI's `pcm` always is
MP3_BIT_RATE = 64_000


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format that speech is delivered in.

    Args:
        name: what `response_format` says.
        media_type: the Content-Type of such a response.
        container: FFmpeg's muxer; empty where no codec is needed.
        codec: FFmpeg's encoder; empty where no codec is needed.
        bit_rate: bits per second asked of a lossy codec; 0 for the others.
        rates: sample rates in Hz the format can have, ascending; empty if it can have any.
        container_options: options of the muxer.
        stream_options: options of the muxer when the sink cannot seek.
        codec_options: options of the encoder.
    """

    name: str
    media_type: str
    container: str = ""
    codec: str = ""
    bit_rate: int = 0
    rates: tuple[int, ...] = ()
    container_options: Mapping[str, str] = field(default_factory=dict)
    stream_options: Mapping[str, str] = field(default_factory=dict)
    codec_options: Mapping[str, str] = field(default_factory=dict)

    def rate_for(self, sample_rate: int) -> int:
        """Return the rate in Hz that audio of `sample_rate` gets: its own, else the next higher one there is."""
        if not self.rates:
            return sample_rate
        return next((rate for rate in self.rates if rate >= sample_rate), self.rates[-1])


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            name="mp3",
            media_type="audio/mpeg",
            container="mp3",
            codec="libmp3lame",
            bit_rate=MP3_BIT_RATE,
            # at 32 kHz and below 22.05 kHz a frame and LAME's delay together exceed 100 ms: nothing would flow at first
            rates=(22_050, 24_000, 44_100, 48_000),
            container_options={"id3v2_version": "0"},
            stream_options={"write_xing": "0"},
        ),
        Format(
            name="opus",
            media_type="audio/ogg",
            container="ogg",
            codec="libopus",
            bit_rate=32_000,
            # 8, 12 and 16 kHz save no bits at this rate and halve the band
            rates=(24_000, 48_000),
            # the muxer keeps one page back: with 40 ms the first sound leaves with the first 100 ms
            container_options={"page_duration": "40000"},
            # plain VBR overshoots 32k to 45k on a sweep, constrained stays at 37k with the pages' headers
            codec_options={"application": "audio", "vbr": "constrained"},
        ),
        Format(
            name="aac",
            media_type="audio/aac",
            container="adts",
            codec="aac",
            bit_rate=64_000,
            # a frame is 1024 samples at any rate, and one comes first: 23 ms each here, 43 ms at 24 kHz
            rates=(44_100, 48_000),
        ),
        Format(
            name="flac",
            media_type="audio/flac",
            container="flac",
            codec="flac",
            # else 8 KiB of nothing come first, room for tags nobody adds
            container_options={"metadata_header_padding": "0"},
        ),
        Format(name="wav", media_type="audio/wav"),
        Format(name="pcm", media_type=f"audio/pcm;rate={PCM_RATE};channels=1", rates=(PCM_RATE,)),
    )
}
