"""How soon a slot is free again when its client leaves: while the model works, and in the middle of the audio."""

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

YAPIT = str(Path(sys.executable).with_name("yapit"))
PORT = 18_435
LIMIT_MS = 200
ROUNDS = 15
MODELS = """
- {id: stuck, backend: echo, tasks: [synthesize], options: {delay_s: 60, max_concurrency: 1}}
- {id: slow, backend: echo, tasks: [synthesize], options: {delay_s: 0.05, seconds: 600, max_concurrency: 1}}
"""
LONG = "Nobody will hear the end of this sentence. " * 2000


def running(control: http.client.HTTPConnection) -> int:
    """Return how many calls the server runs."""
    control.request("GET", "/health")
    return int(json.loads(control.getresponse().read())["running"])


def freed_ms(control: http.client.HTTPConnection, model: str, text: str, *, mid_stream: bool) -> float:
    """Start a request, leave it, and return the milliseconds until nothing runs."""
    client = http.client.HTTPConnection("127.0.0.1", PORT)
    body = json.dumps({"model": model, "input": text, "response_format": "pcm"})
    client.request("POST", "/v1/audio/speech", body, {"content-type": "application/json"})
    if mid_stream:
        client.getresponse().read(1)
    else:
        while not running(control):
            time.sleep(0.001)
        time.sleep(0.1)
    if client.sock is not None:
        client.sock.shutdown(2)
    client.close()
    started = time.perf_counter()
    while running(control):
        pass
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Start a server, measure, and end it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "models.yaml").write_text(MODELS)
        environ = {"YAPIT_SPEECH_MAX_INPUT_CHARS": "0", "PATH": "/usr/bin"}
        null = subprocess.DEVNULL
        server = subprocess.Popen([YAPIT, "serve", "--port", str(PORT)], cwd=folder, env=environ, stderr=null)
        try:
            control = http.client.HTTPConnection("127.0.0.1", PORT)
            while control.sock is None:
                with contextlib.suppress(OSError):
                    control.connect()
            print(f"{'model':>7} {'left':>16} {'median ms':>10} {'worst ms':>9}   limit {LIMIT_MS}")
            for model, text, mid in (("stuck", "x", False), ("slow", "x", True), ("espeak", LONG, True)):
                times = sorted(freed_ms(control, model, text, mid_stream=mid) for _ in range(ROUNDS))
                when = "in mid-stream" if mid else "before the audio"
                print(f"{model:>7} {when:>16} {times[len(times) // 2]:>10.1f} {times[-1]:>9.1f}")
        finally:
            server.terminate()
            server.wait(10)


if __name__ == "__main__":
    main()
