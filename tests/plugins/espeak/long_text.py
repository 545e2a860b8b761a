"""Streams ten thousand words and prints the seconds of audio and the MB by which memory grew at most."""

import resource
import sys

from yapit import SynthesizeRequest
from yapit_plugin_espeak import register_models
from yapit_plugin_espeak.adapter import EspeakSynthesizer


def main() -> None:
    (model,) = register_models()
    adapter = EspeakSynthesizer(model)
    text = "The quick brown fox jumps over the lazy dog, again. " * 1000
    for _ in adapter.synthesize(SynthesizeRequest(text=text[:1000])):
        pass
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = sum(len(chunk.pcm) for chunk in adapter.synthesize(SynthesizeRequest(text=text, speed=2.0))) / 44100
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    sys.stdout.write(f"{seconds:.0f} {grown_kb / 1000:.1f}")


if __name__ == "__main__":
    main()
