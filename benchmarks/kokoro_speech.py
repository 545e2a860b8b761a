"""What Kokoro over HTTP costs beside the bare model: time to the first sound of a page, and the whole page.

A Kokoro of its true size (82 million parameters, random weights, so that what it says is noise) on one thread speaks a
page of ten sentences. The limit is a bare loop over the same sentences, in a process of its own: misaki's phonemes, and
the model in the same precision, bfloat16, or the one that `DTYPE` names. Rounds alternate, ratios are of one round, and
the median counts.

With `--server URL` a server that speaks the same weights, such as Kokoro-FastAPI, has its turn in each round:

    python benchmarks/kokoro_speech.py --keep FOLDER      makes the model's files and ends
    python benchmarks/kokoro_speech.py --model FOLDER --server http://127.0.0.1:8880 --format mp3
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from bench_server import ask_for_life, p99_ms, ready, running

os.environ |= {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

PORT = 18_438
ROUNDS = int(os.environ.get("ROUNDS", "3"))
VOICE = "af_heart"
DTYPE = os.environ.get("DTYPE", "bfloat16")
FIRST_LIMIT, WHOLE_LIMIT = 1.25, 1.05
SENTENCES = [
    "The old harbour was quiet in the early morning.",
    "A few boats came home with the night's catch.",
    "Gulls circled above them and cried for their share.",
    "On the pier an old man mended his nets without looking up.",
    "He had done it for fifty years and knew every knot by heart.",
    "Children ran past on their way to school.",
    "The baker opened his door, and the smell of bread filled the street.",
    "Nobody was in a hurry on such a morning.",
    "Even the clock on the church tower seemed to take its time.",
    "Only the tide kept its appointment, as it always had.",
]
TRUE_SIZE = {
    "n_layer": 3,
    "max_dur": 6,  # 50 in the real one, which has learned to use few of them
    "plbert": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 2048, "num_hidden_layers": 12},
    "istftnet": {"resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5]] * 3},
}
MODELS = "models: [{{id: page, backend: kokoro, tasks: [synthesize], source: {folder}, options: {options}}}]"


# ── offline ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def offline(folder: str, dtype: str) -> None:
    """Answer each line on standard input with the seconds of the first sentence, and those of all."""
    import torch

    from models.kokoros import load_kokoro
    from yapit_plugin_kokoro.english import EnglishReader
    from yapit_plugin_kokoro.precision import Rounded

    torch.set_num_threads(1)
    kokoro = load_kokoro(Path(folder))
    styles = torch.load(Path(folder) / "voices" / f"{VOICE}.pt", weights_only=True)
    if dtype != "float32":
        kokoro.decoder = Rounded(kokoro.decoder, getattr(torch, dtype))
    read = EnglishReader(british=False)
    for _ in sys.stdin:
        began, first = time.perf_counter(), 0.0
        for sentence in SENTENCES:
            phonemes, _ = read(sentence)
            with torch.inference_mode():
                kokoro(phonemes, styles[len(phonemes) - 1], 1.0, return_output=True)
            first = first or time.perf_counter() - began
        print(first, time.perf_counter() - began, flush=True)


# ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────────────
class Page(NamedTuple):
    """Seconds until the first sound, until the last, and of sound, if the format says them."""

    first_s: float
    whole_s: float
    sound_s: float = 0.0


async def speak(host: str, port: int, model: str, response_format: str) -> Page:
    """Have the page spoken."""
    said = {"model": model, "voice": VOICE, "input": " ".join(SENTENCES), "response_format": response_format}
    body = json.dumps(said).encode()
    # Without chunks of HTTP, so that what comes is the sound.
    head = f"POST /v1/audio/speech HTTP/1.0\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in answer, answer
    received = len(await reader.read(1))
    first = time.perf_counter() - began
    while part := await reader.read(1 << 16):
        received += len(part)
    writer.close()
    assert received > 1000, received
    return Page(first, time.perf_counter() - began, received / 48_000 if response_format == "pcm" else 0.0)


async def ours(response_format: str, lags: list[float]) -> Page:
    """Have yapit speak the page, while somebody asks whether it lives."""
    asking = asyncio.create_task(ask_for_life(PORT, lags))
    try:
        return await speak("127.0.0.1", PORT, "page", response_format)
    finally:
        asking.cancel()


async def compare(limit: "subprocess.Popen[str]", server: str | None, response_format: str) -> None:
    """Print the tables."""
    rival = urlsplit(server) if server is not None else None
    bare, mine, theirs, lags = list[Page](), list[Page](), list[Page](), list[float]()
    await speak("127.0.0.1", PORT, "page", response_format)
    for _ in range(ROUNDS):
        assert limit.stdin is not None
        assert limit.stdout is not None
        print("once", file=limit.stdin, flush=True)
        bare.append(Page(*map(float, (await asyncio.to_thread(limit.stdout.readline)).split())))
        mine.append(await ours(response_format, lags))
        if rival is not None:
            theirs.append(await speak(str(rival.hostname), rival.port or 80, "kokoro", response_format))
    print(f"first sound: offline {median(bare, 0):.2f} s, ratio {ratio(mine, bare, 0)}, limit {FIRST_LIMIT}")
    print(f"whole page:  offline {median(bare, 1):.2f} s, ratio {ratio(mine, bare, 1)}, limit {WHOLE_LIMIT}")
    print(f"/livez p99:  {p99_ms(lags):.1f} ms")
    if theirs:
        print(f"{server}, its time in ours:")
        print(f"first sound: {median(theirs, 0):.2f} s, ratio {ratio(theirs, mine, 0)}")
        print(f"whole page:  {median(theirs, 1):.2f} s, ratio {ratio(theirs, mine, 1)}")
        print(f"sound:       {median(theirs, 2):.1f} s, ours {median(mine, 2):.1f} s")


def median(pages: list[Page], field: int) -> float:
    """Return the median of a field."""
    return statistics.median(page[field] for page in pages)


def ratio(pages: list[Page], others: list[Page], field: int) -> str:
    """Return the median of what one is in the other, each in its round, and the least and the most."""
    ratios = [page[field] / other[field] for page, other in zip(pages, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


# ── everything ────────────────────────────────────────────────────────────────────────────────────────────────────────
def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="make the model in this folder and end")
    parser.add_argument("--model", type=Path, help="folder of a model that was made before")
    parser.add_argument("--server", help="URL of another server with the same weights")
    parser.add_argument("--format", choices=["pcm", "mp3"], default="pcm")
    parser.add_argument("--offline", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Make the model, start everything, compare, and end it."""
    asked = arguments()
    if asked.offline:
        offline(*asked.offline)
        return
    from models import kokoros

    folder = Path(tempfile.mkdtemp())
    model = asked.model or kokoros.save_kokoro(asked.keep or folder / "model", (VOICE,), sizes=TRUE_SIZE)
    if asked.keep:
        return
    options = f"{{threads: 1, dtype: {DTYPE}}}"
    (folder / "models.yaml").write_text(MODELS.format(folder=model.resolve(), options=options))
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    command = [sys.executable, str(Path(__file__).resolve()), "--offline", str(model.resolve()), DTYPE]
    yapit = str(Path(sys.executable).with_name("yapit"))
    with (
        running(*command, folder=folder, stdin=pipe, stdout=pipe, stderr=null) as limit,
        running(yapit, "serve", "--port", str(PORT), folder=folder, stdout=null, stderr=null),
    ):
        asyncio.run(ready(PORT))
        asyncio.run(compare(limit, asked.server, asked.format))


if __name__ == "__main__":
    main()
