"""Leaves the interpreter while the library is speaking a long text that nobody reads."""

import msgspec

from yapit import SynthesizeRequest
from yapit_plugin_espeak import register_models
from yapit_plugin_espeak.adapter import EspeakSynthesizer

if __name__ == "__main__":
    model = msgspec.structs.replace(register_models()[0], options={"allow_ssml": True})
    adapter = EspeakSynthesizer(model)
    text = "<speak>" + "Many words, one after the other. " * 400 + "</speak>"
    chunks = adapter.synthesize(SynthesizeRequest(text=text, options={"ssml": True}))
    next(chunks)
