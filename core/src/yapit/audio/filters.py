"""Streaming changes of rate and tempo, and the two functions that move PCM into and out of FFmpeg frames."""

from fractions import Fraction
from typing import TYPE_CHECKING

from yapit.errors import InvalidInputError

if TYPE_CHECKING:  # PyAV takes 0.1 s to import; a server that only sends wav or pcm never does
    from av import AudioFrame, AudioResampler
    from av.filter import Graph

SAMPLE_BYTES = 2
SLOWEST, FASTEST = 0.25, 4.0
_STEP_SLOWEST, _STEP_FASTEST = 0.5, 2.0  # beyond these a single atempo drops samples instead of blending them


def to_frame(pcm: bytes, sample_rate: int, position: int) -> "AudioFrame":
    """Copy PCM of at least one sample into a frame that starts `position` samples into its stream."""
    from av import AudioFrame

    frame = AudioFrame(format="s16", layout="mono", samples=len(pcm) // SAMPLE_BYTES)
    frame.planes[0].update(pcm)
    frame.sample_rate = sample_rate
    frame.time_base = Fraction(1, sample_rate)
    frame.pts = position
    return frame


def from_frame(frame: "AudioFrame") -> bytes:
    """Copy the PCM out of a mono s16 frame; a plane may be longer than its samples."""
    return bytes(memoryview(frame.planes[0])[: frame.samples * SAMPLE_BYTES])


_WINDOW_S = 0.5  # of silence behind the end: more than atempo's windows hold, at any speed


class Resampler:
    """Changes the sample rate of a stream of PCM; equal rates pass the very same bytes through.

    The whole output has exactly `round(samples * rate_out / rate_in)` samples, and at least one if any came in:
    swresample alone swallows inputs of a few samples and rounds up by one elsewhere.

    Args:
        rate_in: Hz of what `process` takes.
        rate_out: Hz of what comes out.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self._rate_in, self._rate_out = rate_in, rate_out
        self._taken = self._given = 0  # samples
        self._converter = None if rate_in == rate_out else _converter(rate_out)

    def process(self, pcm: bytes) -> bytes:
        """Take any number of samples and return those that are ready, perhaps none."""
        if self._converter is None or not pcm:
            return pcm
        frame = to_frame(pcm, self._rate_in, self._taken)
        self._taken += frame.samples
        out = b"".join(map(from_frame, self._converter.resample(frame)))
        self._given += len(out) // SAMPLE_BYTES
        return out

    def finish(self) -> bytes:
        """Return the samples still inside; the resampler is used up."""
        converter, self._converter = self._converter, None
        if converter is None or not self._taken:
            return b""
        wanted = max(1, round(self._taken * self._rate_out / self._rate_in)) - self._given
        rest = b"".join(map(from_frame, converter.resample(None)))
        return rest[: wanted * SAMPLE_BYTES].ljust(wanted * SAMPLE_BYTES, b"\0")


def _converter(sample_rate: int) -> "AudioResampler":
    from av import AudioResampler

    return AudioResampler(format="s16", layout="mono", rate=sample_rate)


class Tempo:
    """Speaks a stream of PCM faster or slower at the same pitch; speed 1.0 passes the very same bytes through.

    The whole output has `round(samples / speed)` samples: the filter swallows its last window, so silence is put behind
    the sound and cut off again.

    Args:
        sample_rate: Hz, in and out.
        speed: 0.25 to 4; the output lasts `1 / speed` times as long.

    Raises:
        InvalidInputError: `speed` is outside of its range.
    """

    def __init__(self, sample_rate: int, speed: float) -> None:
        if not SLOWEST <= speed <= FASTEST:
            raise InvalidInputError(f"speed must be between {SLOWEST} and {FASTEST:g}", param="speed")
        self._sample_rate = sample_rate
        self._speed = speed
        self._taken = 0  # samples
        self._given = 0  # samples
        self._due: int | None = None  # samples, known at the end
        self._graph = None if speed == 1 else _tempo_graph(sample_rate, speed)

    def process(self, pcm: bytes) -> bytes:
        """Take any number of samples and return those that are ready, perhaps none."""
        if self._graph is None or not pcm:
            return pcm
        frame = to_frame(pcm, self._sample_rate, self._taken)
        self._taken += frame.samples
        self._graph.push(frame)
        return self._cut(_pull(self._graph))

    def finish(self) -> bytes:
        """Return the samples still inside; the filter is used up."""
        if self._graph is None or not self._taken:
            return b""
        self._due = round(self._taken / self._speed)
        rest = self.process(bytes(round(_WINDOW_S * self._sample_rate) * SAMPLE_BYTES))
        graph, self._graph = self._graph, None
        graph.push(None)
        return rest + self._cut(_pull(graph))

    def _cut(self, pcm: bytes) -> bytes:
        """Count what is given, and give no more than is due once that is known."""
        if self._due is not None:
            pcm = pcm[: max(0, self._due - self._given) * SAMPLE_BYTES]
        self._given += len(pcm) // SAMPLE_BYTES
        return pcm


def _tempo_graph(sample_rate: int, speed: float) -> "Graph":
    from av.filter import Graph

    graph = Graph()
    source = graph.add_abuffer(sample_rate=sample_rate, format="s16", layout="mono", time_base=Fraction(1, sample_rate))
    steps = [graph.add("atempo", f"{step:.6f}") for step in _tempo_steps(speed)]
    graph.link_nodes(source, *steps, graph.add("abuffersink")).configure()
    return graph


def _tempo_steps(speed: float) -> list[float]:
    """Split a speed into factors that one atempo does well."""
    steps = []
    while not _STEP_SLOWEST <= speed <= _STEP_FASTEST:
        steps.append(_STEP_FASTEST if speed > 1 else _STEP_SLOWEST)
        speed /= steps[-1]
    return [*steps, speed]


def _pull(graph: "Graph") -> bytes:
    """Take what a graph has ready; EAGAIN says not yet, EOF says no more."""
    out = bytearray()
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):  # PyAV's classes for these two derive from the built-in ones
            return bytes(out)
        out += from_frame(frame)  # type: ignore[arg-type]  # the graph holds audio filters only
