"""What is counted and measured, for Prometheus."""

from collections.abc import Callable, Iterable
from time import perf_counter

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from yapit.catalog import Model
from yapit.schemas import AudioChunk, Chunk, Embedding, Request, Score, Segment, SynthesizeRequest, TextChunk
from yapit.schemas import TranscribeRequest as Transcribe
from yapit.tasks import Task

LABELS = ("model", "task", "plugin")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Gauge(Struct, frozen=True, kw_only=True):
    """What is true of one model now; its labels are model, task and plugin."""

    labels: tuple[str, str, str]
    loaded: bool
    running: int
    queued: int
    memory_bytes: int


class Usage(Struct, kw_only=True):
    """What one call took in and gave back."""

    characters: int = 0
    audio_seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    def begin(self, request: Request) -> None:
        """Count what the request brings."""
        if isinstance(request, SynthesizeRequest):
            self.characters += len(request.text)

    def end(self, request: Request) -> None:
        """Count what has come by now of a recording that was still being decoded when the call began."""
        if isinstance(request, Transcribe):
            self.audio_seconds += request.duration_s

    def add(self, chunk: Chunk) -> None:
        """Count what a chunk holds or says."""
        match chunk:
            case AudioChunk():
                self.audio_seconds += len(chunk.pcm) / 2 / chunk.sample_rate
            case Embedding() | Score():
                self.input_tokens += chunk.tokens
            case Segment():
                self.characters += len(chunk.text)
                self.output_tokens += len(chunk.tokens)
            case TextChunk():
                self.characters += len(chunk.text)
                if chunk.usage is not None:
                    self.input_tokens += chunk.usage.input_tokens
                    self.output_tokens += chunk.usage.output_tokens


class Meters:
    """The metrics of one engine, in a registry of their own.

    Args:
        plugin_of: returns the name of the plugin that runs a model.
        gauges: returns what is true of the models now; asked at each scrape.
    """

    def __init__(self, plugin_of: Callable[[Model], str | None], gauges: Callable[[], Iterable[Gauge]]) -> None:
        self._plugin_of = plugin_of
        self._bound: dict[tuple[str, str], Meter] = {}
        self.registry = CollectorRegistry()
        self.registry.register(_Gauges(gauges))
        registry = self.registry
        self.calls = Counter("yapit_calls", "Calls that ended, by how.", (*LABELS, "outcome"), registry=registry)
        self.duration = Histogram(
            "yapit_call_duration_seconds", "From the call to its end.", LABELS, buckets=_SECONDS, registry=registry
        )
        self.first_chunk = Histogram(
            "yapit_first_chunk_seconds",
            "From the call to its first chunk.",
            LABELS,
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_wait = Histogram(
            "yapit_queue_wait_seconds", "From the queue's end to a slot.", LABELS, buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "yapit_batch_size", "Inputs that were run together.", LABELS, buckets=_SIZES, registry=registry
        )
        self.load = Histogram(
            "yapit_load_duration_seconds", "Loading a model.", LABELS, buckets=_SECONDS, registry=registry
        )
        self.evictions = Counter(
            "yapit_evictions", "Models that were unloaded, by why.", (*LABELS, "reason"), registry=registry
        )
        self.restarts = Counter(
            "yapit_worker_deaths", "Processes of models that ended by themselves.", LABELS, registry=registry
        )
        self.cached = Counter(
            "yapit_cache_requests",
            "Calls that asked the cache, by what it had.",
            (*LABELS, "outcome"),
            registry=registry,
        )
        self.characters = Counter("yapit_characters", "Characters read or written.", LABELS, registry=registry)
        self.audio = Counter("yapit_audio_seconds", "Seconds of audio heard or made.", LABELS, registry=registry)
        self.tokens = Counter("yapit_tokens", "Tokens.", (*LABELS, "direction"), registry=registry)

    def of(self, task: Task, model: Model) -> "Meter":
        """Return the meter of one model's task."""
        key = (task.name, model.id)
        if key not in self._bound:
            self._bound[key] = Meter(self, (model.id, task.name, self._plugin_of(model) or "none"))
        return self._bound[key]


class Meter:
    """The metrics of one model's task."""

    def __init__(self, meters: Meters, labels: tuple[str, str, str]) -> None:
        self.labels = labels
        self._meters = meters
        self.duration = meters.duration.labels(*labels)
        self.first_chunk = meters.first_chunk.labels(*labels)
        self.queue_wait = meters.queue_wait.labels(*labels)
        self.batch_size = meters.batch_size.labels(*labels)
        self.load = meters.load.labels(*labels)
        self.restarts = meters.restarts.labels(*labels)
        self._calls: dict[str, Counter] = {}
        self._characters = meters.characters.labels(*labels)
        self._audio = meters.audio.labels(*labels)
        self._input_tokens = meters.tokens.labels(*labels, "input")
        self._output_tokens = meters.tokens.labels(*labels, "output")

    def evicted(self, reason: str) -> None:
        """Count a model that was unloaded."""
        self._meters.evictions.labels(*self.labels, reason).inc()

    def cached(self, outcome: str) -> None:
        """Count a call that asked the cache."""
        self._meters.cached.labels(*self.labels, outcome).inc()

    def call(self, request: Request) -> "CallMeter":
        """Begin to measure a call."""
        return CallMeter(self, request)

    def ended(self, outcome: str, usage: Usage) -> None:
        """Count a call that has ended."""
        if outcome not in self._calls:
            self._calls[outcome] = self._meters.calls.labels(*self.labels, outcome)
        self._calls[outcome].inc()
        for counter, amount in (
            (self._characters, usage.characters),
            (self._audio, usage.audio_seconds),
            (self._input_tokens, usage.input_tokens),
            (self._output_tokens, usage.output_tokens),
        ):
            if amount:
                counter.inc(amount)


class CallMeter:
    """One call being measured."""

    def __init__(self, meter: Meter, request: Request) -> None:
        self._meter = meter
        self._request = request
        self._began = perf_counter()
        self._first = True
        self.usage = Usage()
        self.usage.begin(request)

    def chunk(self, chunk: Chunk) -> None:
        """Count a chunk."""
        if self._first:
            self._first = False
            self._meter.first_chunk.observe(perf_counter() - self._began)
        self.usage.add(chunk)

    def end(self, outcome: str) -> None:
        """Count the end: `ok`, `cancelled`, or the code of an error."""
        self._meter.duration.observe(perf_counter() - self._began)
        self.usage.end(self._request)
        self._meter.ended(outcome, self.usage)


class _Gauges(Collector):
    """Asks at each scrape, so that nothing has to be kept up to date."""

    def __init__(self, gauges: Callable[[], Iterable[Gauge]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges' values of now."""
        loaded = GaugeMetricFamily("yapit_models_loaded", "1 for each loaded model.", labels=LABELS)
        running = GaugeMetricFamily("yapit_calls_running", "Calls that run.", labels=LABELS)
        queued = GaugeMetricFamily("yapit_queue_depth", "Requests that wait for a slot.", labels=LABELS)
        memory = GaugeMetricFamily("yapit_model_memory_bytes", "What a loaded model takes.", labels=LABELS)
        for gauge in self._gauges():
            loaded.add_metric(gauge.labels, float(gauge.loaded))
            running.add_metric(gauge.labels, gauge.running)
            queued.add_metric(gauge.labels, gauge.queued)
            memory.add_metric(gauge.labels, gauge.memory_bytes)
        return (loaded, running, queued, memory)
