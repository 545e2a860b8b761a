"""What the server adds to espeak itself: time to the first byte, the whole, and memory.

Offline is the plugin's adapter and the core's encoder in this process, without HTTP. Rounds alternate; the best counts.
"""

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path

from yapit.adapters import Context
from yapit.audio import Encoder
from yapit.plugins import Plugins
from yapit.schemas import AudioChunk, SynthesizeRequest
from yapit.tasks import SYNTHESIZE

YAPIT = str(Path(sys.executable).with_name("yapit"))
PORT = 18_434
FIRST = "This is the first of five sentences, and it is neither very long nor very short."
TEXT = (
    f"{FIRST} The second one follows at once. Here is the third, which says a little more than the second did. "
    "Then comes the fourth sentence. And the fifth one ends the text that this benchmark speaks."
)
WORDS = 10_000
FIRST_LIMIT, WHOLE_LIMIT = 1.3, 1.15
ROUNDS = 15


class Offline:
    """espeak and the encoder in this process."""

    def __init__(self) -> None:
        plugins = Plugins.load(["espeak"])
        (model,) = plugins.models()["espeak"]
        adapter = plugins.adapter(SYNTHESIZE, model, Context())
        self._synthesize = adapter.synthesize  # type: ignore[attr-defined]  # it was asked for this task

    def synthesize(self, text: str) -> list[AudioChunk]:
        """Return the speech of the text in one call."""
        return list(self._synthesize(SynthesizeRequest(text=text, voice="en-us")))

    def whole(self, name: str) -> None:
        """Synthesize the text and encode it."""
        encoder = Encoder(name, 22_050)
        for chunk in self.synthesize(TEXT):
            encoder.encode(chunk.pcm)
        encoder.finish()


def request(connection: http.client.HTTPConnection, text: str, name: str) -> http.client.HTTPResponse:
    """Send a speech request."""
    body = json.dumps({"model": "espeak", "voice": "en-us", "input": text, "response_format": name})
    connection.request("POST", "/v1/audio/speech", body, {"content-type": "application/json"})
    return connection.getresponse()


def served(connection: http.client.HTTPConnection, name: str) -> tuple[float, float]:
    """Return the seconds to the first byte of audio and to the last."""
    started = time.perf_counter()
    response = request(connection, TEXT, name)
    response.read(1)
    first = time.perf_counter() - started
    response.read()
    return first, time.perf_counter() - started


def timed(function: object, *arguments: object) -> float:
    """Return the seconds a call takes."""
    started = time.perf_counter()
    function(*arguments)  # type: ignore[operator]  # any of the two below
    return time.perf_counter() - started


def compare(connection: http.client.HTTPConnection) -> None:
    """Print the table of ratios."""
    offline = Offline()
    print(
        f"{'format':>7} {'first ms':>9} {'offline':>8} {'ratio':>6} {'whole ms':>9} {'offline':>8} {'ratio':>6}", end=""
    )
    print(f"   limits {FIRST_LIMIT} and {WHOLE_LIMIT}")
    for name in ("pcm", "wav", "mp3", "opus", "flac", "aac"):
        firsts, wholes, sentences, encodings = [], [], [], []
        for _ in range(ROUNDS):
            first, whole = served(connection, name)
            firsts.append(first)
            wholes.append(whole)
            sentences.append(timed(offline.synthesize, FIRST))
            encodings.append(timed(offline.whole, name))
        first, sentence, whole, encoding = (1000 * min(times) for times in (firsts, sentences, wholes, encodings))
        print(f"{name:>7} {first:>9.2f} {sentence:>8.2f} {first / sentence:>6.2f}", end=" ")
        print(f"{whole:>9.2f} {encoding:>8.2f} {whole / encoding:>6.2f}")


def memory(connection: http.client.HTTPConnection, process: int) -> None:
    """Print how much the server grows while it streams a long text, at its fullest."""

    def resident_mb() -> float:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    request(connection, "Warm up. " * 50, "mp3").read()
    before, fullest, received = resident_mb(), 0.0, 0
    response = request(connection, "The same ten words are said over and over here. " * (WORDS // 10), "mp3")
    while chunk := response.read(65_536):
        received += len(chunk)
        fullest = max(fullest, resident_mb())
    print(f"{WORDS} words: {received / 1e6:.1f} MB of mp3, {before:.0f} MB resident before, {fullest:.0f} MB at most")


def main() -> None:
    """Start a server, compare, and end it."""
    server = subprocess.Popen(
        [YAPIT, "serve", "--port", str(PORT)],
        env={"YAPIT_SPEECH_MAX_INPUT_CHARS": "0", "PATH": "/usr/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        connection = http.client.HTTPConnection("127.0.0.1", PORT)
        while True:
            try:
                connection.connect()
                break
            except OSError:
                time.sleep(0.05)
        request(connection, TEXT, "mp3").read()
        compare(connection)
        memory(connection, server.pid)
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main()
