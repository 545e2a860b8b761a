"""How models were used so far, read from the engine's meters."""

from msgspec import Struct

from yapit.engine import Engine


class Usage(Struct, kw_only=True):
    """What a model has done since the server started.

    Args:
        calls: that ended, however.
        busy_s: seconds that its calls took for speech.
        audio_s: seconds of speech that it made.
    """

    calls: float = 0.0
    busy_s: float = 0.0
    audio_s: float = 0.0

    @property
    def audio_rate(self) -> float | None:
        """Seconds of speech that it makes in one; None if it has made none."""
        return self.audio_s / self.busy_s if self.audio_s and self.busy_s else None


def usage_of(engine: Engine) -> dict[str, Usage]:
    """Return how each model was used, by its id."""
    found: dict[str, Usage] = {}
    for metric in engine.meters.registry.collect():
        for sample in metric.samples:
            name = sample.labels.get("model")
            if name is None:
                continue
            usage = found.setdefault(name, Usage())
            if sample.name == "yapit_calls_total":
                usage.calls += sample.value
            elif sample.labels.get("task") == "synthesize":
                if sample.name == "yapit_call_duration_seconds_sum":
                    usage.busy_s += sample.value
                elif sample.name == "yapit_audio_seconds_total":
                    usage.audio_s += sample.value
    return found


def hit_rate(engine: Engine) -> float | None:
    """Return which part of the calls that asked the cache of results got theirs from it; None if none has asked."""
    if not engine.cache.on:
        return None
    counts: dict[str, float] = {}
    for metric in engine.meters.cached.collect():
        for sample in metric.samples:
            if sample.name == "yapit_cache_requests_total":
                outcome = sample.labels["outcome"]
                counts[outcome] = counts.get(outcome, 0.0) + sample.value
    asked = sum(counts.values())
    return None if not asked else round((asked - counts.get("miss", 0.0)) / asked, 4)
