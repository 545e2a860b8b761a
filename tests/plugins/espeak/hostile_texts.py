"""Speaks texts that have crashed speech synthesizers, and checks the words of each; prints how many."""

import random
import sys
import unicodedata
from collections.abc import Iterator

from yapit import SynthesizeRequest
from yapit_plugin_espeak import register_models
from yapit_plugin_espeak.adapter import EspeakSynthesizer

FIXED = (
    "\0",
    "a\0b\0",
    "".join(map(chr, range(1, 160))),
    "\ud800 lone \udfff surrogates \ud83d",
    "😀" * 1000,
    "👩🏽‍🚀👨‍👩‍👧‍👦🏳️‍🌈" * 100,
    "!?.,;:…—“”()[]{}<>/\\|@#$%^&*~`" * 50,
    "." * 5000,
    "a" * 10_000,
    "pneumono" * 300,
    "9" * 2000,
    "-" * 3000 + "1" * 300 + ",000" * 300,
    "مرحبا بالعالم " * 50,
    "\u202e\u202d\u2066rtl override\u2069\u202c" * 50,
    "\u0301\u0335" * 2000,
    "h\u0335\u0321\u0358" * 500,
    "\ufeff\u200b\u200c\u200d\u2028\u2029\uffff\ufffe\U0010ffff" * 50,
    "[[" * 500 + "]]" * 10,
    "<speak>" * 200,
    "&#0;&#xD800;&amp" * 50,
    "%s%n%x" * 200,
    "(" * 2000,
    "'" * 2000,
    "A.B.C.D." * 300,
    "s’" * 300,  # noqa: RUF001 - the apostrophe of print
    "_.א" * 300,
    "?s" * 300,
    ",-\u0902",
    "http://" + "a/" * 1000,
    "\r\n" * 3000,
)


def random_texts(count: int) -> Iterator[str]:
    chance = random.Random(7)  # noqa: S311 - the same texts every time is the point
    ranges = [(1, 0x250), (0x300, 0x370), (0x370, 0x1000), (0x2000, 0x2800), (0x3000, 0xA000), (0xD800, 0x10000)]
    ranges.append((0x1F000, 0x1FB00))
    for _ in range(count):
        parts = []
        for _ in range(chance.randrange(1, 12)):
            low, high = chance.choice(ranges)
            parts.append("".join(chr(chance.randrange(low, high)) for _ in range(chance.randrange(1, 8))))
        yield " ".join(parts)


def speak(adapter: EspeakSynthesizer, request: SynthesizeRequest) -> None:
    samples, position, time_s = 0, 0, 0.0
    for chunk in adapter.synthesize(request):
        samples += len(chunk.pcm) // 2
        for word in chunk.words:
            assert request.text[word.offset : word.offset + len(word.text)] == word.text != "", word
            assert position <= word.offset, word
            assert time_s <= word.start_s <= word.end_s <= samples / chunk.sample_rate + 1e-9, (word, samples)
            assert not unicodedata.category(word.text[0]).startswith("Z"), word
            position, time_s = word.offset + len(word.text), word.end_s


def main() -> None:
    (model,) = register_models()
    adapter = EspeakSynthesizer(model)
    for text in ('"-xin', "(-một", ",-\u0902 - -s --\u4f60"):
        for voice in ("vi", "hi", "en-us"):
            speak(adapter, SynthesizeRequest(text=text, voice=voice))
    voices = ["en-us", "cmn", "ar", "de+f3", "ja", "hi", "th", "he", "ru+whisper", "yue"]
    spoken = 0
    for text in (*FIXED, *random_texts(250)):
        voice = voices[spoken % len(voices)]
        speak(adapter, SynthesizeRequest(text=text, voice=voice, speed=4.0 if spoken % 2 else 2.5))
        spoken += 1
    sys.stdout.write(f"{spoken} texts")


if __name__ == "__main__":
    main()
