"""What Kokoro over HTTP costs beside the bare model: time to the first sound of a page, and the whole page.

A Kokoro of its true size (82 million parameters, random weights, so that what it says is noise) on one thread speaks a
page of ten sentences. The limit is a bare loop over the same sentences, in a process of its own: misaki's phonemes, and
the model in the same precision, bfloat16, or the one that `DTYPE` names. Rounds alternate, ratios are of one round, and
the median counts.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_server import ask_for_life, p99_ms, ready, running

os.environ |= {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

PORT = 18_438
ROUNDS = 3
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
async def speak() -> tuple[float, float]:
    """Return the seconds until the first sound, and until the last."""
    said = {"model": "page", "voice": VOICE, "input": " ".join(SENTENCES), "response_format": "pcm"}
    body = json.dumps(said).encode()
    head = "POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    await reader.read(1)
    first = time.perf_counter() - began
    while await reader.read(1 << 16):
        pass
    writer.close()
    return first, time.perf_counter() - began


async def compare(limit: "subprocess.Popen[str]") -> None:
    """Print the table."""
    await speak()
    firsts, wholes, bases, lags = list[float](), list[float](), list[tuple[float, float]](), list[float]()
    for _ in range(ROUNDS):
        assert limit.stdin is not None
        assert limit.stdout is not None
        print("once", file=limit.stdin, flush=True)
        first, whole = map(float, (await asyncio.to_thread(limit.stdout.readline)).split())
        asking = asyncio.create_task(ask_for_life(PORT, lags))
        ours = await speak()
        asking.cancel()
        bases.append((first, whole))
        firsts.append(ours[0] / first)
        wholes.append(ours[1] / whole)
    first, whole = (statistics.median(each) for each in zip(*bases, strict=True))
    print(f"first sound: offline {first:.2f} s, ratio {statistics.median(firsts):.2f}, limit {FIRST_LIMIT}")
    print(f"whole page:  offline {whole:.2f} s, ratio {statistics.median(wholes):.2f}, limit {WHOLE_LIMIT}")
    print(f"/livez p99:  {p99_ms(lags):.1f} ms")


# ── everything ────────────────────────────────────────────────────────────────────────────────────────────────────────
def main() -> None:
    """Make the model, start everything, compare, and end it."""
    if len(sys.argv) > 1:
        offline(*sys.argv[1:])
        return
    from models import kokoros

    folder = Path(tempfile.mkdtemp())
    model = kokoros.save_kokoro(folder / "model", (VOICE,), sizes=TRUE_SIZE)
    (folder / "models.yaml").write_text(MODELS.format(folder=model, options=f"{{threads: 1, dtype: {DTYPE}}}"))
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    command = [sys.executable, __file__, str(model), DTYPE]
    yapit = str(Path(sys.executable).with_name("yapit"))
    with (
        running(*command, folder=folder, stdin=pipe, stdout=pipe, stderr=null) as limit,
        running(yapit, "serve", "--port", str(PORT), folder=folder, stdout=null, stderr=null),
    ):
        asyncio.run(ready(PORT))
        asyncio.run(compare(limit))


if __name__ == "__main__":
    main()
