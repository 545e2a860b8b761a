"""Leaves the interpreter while the library is speaking a long text that nobody reads."""

from yapit import SynthesizeRequest
from yapit_plugin_espeak import register_models
from yapit_plugin_espeak.adapter import EspeakSynthesizer

if __name__ == "__main__":
    adapter = EspeakSynthesizer(register_models()[0])
    text = "<speak>" + "Many words, one after the other. " * 400 + "</speak>"
    chunks = adapter.synthesize(SynthesizeRequest(text=text, options={"ssml": True}))
    next(chunks)
