"""Speaks from several threads, an adapter each, while others are cancelled; prints whether all is as when alone."""

import sys
import threading
from collections.abc import Generator
from typing import Any

from yapit import SynthesizeRequest
from yapit_plugin_espeak import register_models
from yapit_plugin_espeak.adapter import EspeakSynthesizer

TEXT = "Hello brave new world. The weather is very nice today, is it not? " * 8
# klatt6 has no noise and no flutter: the same request is the same bytes.
REQUESTS: list[dict[str, Any]] = [
    {"voice": "en-us+klatt6"},
    {"voice": "de+klatt6", "speed": 2.0},
    {"voice": "fr+klatt6", "options": {"pitch": 90}},
    {"voice": "en+klatt6", "speed": 0.5, "options": {"volume": 50}},
    {"voice": "es+klatt6", "speed": 3.0},
]
ROUNDS = 3


def pcm(adapter: EspeakSynthesizer, fields: dict[str, Any]) -> bytes:
    return b"".join(chunk.pcm for chunk in adapter.synthesize(SynthesizeRequest(text=TEXT, **fields)))


def main() -> None:
    (model,) = register_models()
    alone = [pcm(EspeakSynthesizer(model), fields) for fields in REQUESTS]
    different: list[int] = []

    def repeat(index: int) -> None:
        adapter = EspeakSynthesizer(model)
        different.extend(index for _ in range(ROUNDS) if pcm(adapter, REQUESTS[index]) != alone[index])

    def cancel() -> None:
        adapter = EspeakSynthesizer(model)
        for _ in range(20 * ROUNDS):
            chunks = adapter.synthesize(SynthesizeRequest(text=TEXT, voice="ru+klatt6"))
            assert isinstance(chunks, Generator)
            next(chunks)
            chunks.close()

    threads = [threading.Thread(target=repeat, args=(index,)) for index in range(len(REQUESTS))]
    threads += [threading.Thread(target=cancel) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{len(alone)} voices, different: {different}")


if __name__ == "__main__":
    main()
