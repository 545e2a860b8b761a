"""What chat over HTTP leaves of what the model can do offline, and how soon the first token comes.

A Llama of random weights (70 million parameters) writes 64 tokens for each of 1, 8 and 32 streams, greedy. The limit is
transformers' own `generate` with the same prompts in one static batch, in a process of its own with as many threads.
Rounds alternate, ratios are of one round, and the median counts. Meanwhile `/livez` is asked every 20 ms, to see
whether the event loop answers.

With the packages of `transformers serve` installed, its times to the first token are measured too.
"""

import asyncio
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_server import ask_for_life, p99_ms, ready, running

os.environ |= {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

LENGTH = 64
STREAMS = (1, 8, 32)
LIMITS = {1: 0.95, 8: 0.85, 32: 0.85}
ROUNDS = 3
OURS, THEIRS = 18_433, 18_434
_CONTENT = re.compile(rb'"content": ?"[^"]')
MODELS = "models: [{{id: bench, source: {folder}, options: {{threads: 1}}}}]"


def prompt(number: int) -> str:
    """Return a prompt like no other, of 40 tokens and a few more."""
    return f"{number:03d}" + chr(ord("a") + number % 26) * (37 + number % 8)


# ── offline ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def offline(folder: str) -> None:
    """Answer each number on standard input with the tokens a second of a static batch of so many prompts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for line in sys.stdin:
        chats = [[{"role": "user", "content": prompt(number)}] for number in range(int(line))]
        how = {"add_generation_prompt": True, "padding": True, "return_dict": True, "return_tensors": "pt"}
        read = words.apply_chat_template(chats, **how)  # what the servers read, too
        with torch.inference_mode():
            began = time.perf_counter()
            whole = model.generate(**read, max_new_tokens=LENGTH, do_sample=False)
        assert whole.shape[1] == read.input_ids.shape[1] + LENGTH
        print(int(line) * LENGTH / (time.perf_counter() - began), flush=True)


# ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────────────
async def stream(port: int, number: int, model: str) -> tuple[float, int]:
    """Return the seconds to the first token, and the tokens that came."""
    asked = {"model": model, "messages": [{"role": "user", "content": prompt(number)}], "stream": True}
    asked |= {"temperature": 0, "max_tokens": LENGTH, "stream_options": {"include_usage": True}}
    body = json.dumps(asked).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    first, tokens = 0.0, 0
    async for line in reader:
        if not first and _CONTENT.search(line):
            first = time.perf_counter() - began
        if b'"completion_tokens"' in line:
            tokens = json.loads(line[6:])["usage"]["completion_tokens"]
    writer.close()
    return first, tokens


async def streams(port: int, count: int, model: str) -> tuple[float, float]:
    """Return tokens a second, and the median seconds to a first token."""
    began = time.perf_counter()
    found = await asyncio.gather(*(stream(port, number, model) for number in range(count)))
    tokens = sum(tokens for _, tokens in found)
    return tokens / (time.perf_counter() - began), statistics.median(first for first, _ in found)


async def compare(limit: "subprocess.Popen[str]", theirs: str | None) -> None:
    """Print the table."""
    await streams(OURS, 1, "bench")
    if theirs:
        await streams(THEIRS, 1, theirs)
    print(f"{'streams':>7} {'offline tok/s':>14} {'yapit tok/s':>12} {'ratio':>6} {'limit':>6}", end=" ")
    print(f"{'first ms':>9} {'theirs ms':>10} {'livez p99 ms':>13}")
    for count in STREAMS:
        rates, ratios, firsts, others, lags = list[float](), list[float](), list[float](), list[float](), list[float]()
        for _ in range(ROUNDS):
            assert limit.stdin is not None
            assert limit.stdout is not None
            print(count, file=limit.stdin, flush=True)
            offline_rate = float(await asyncio.to_thread(limit.stdout.readline))
            asking = asyncio.create_task(ask_for_life(OURS, lags))
            rate, first = await streams(OURS, count, "bench")
            asking.cancel()
            rates.append(offline_rate)
            ratios.append(rate / offline_rate)
            firsts.append(first * 1000)
            if theirs:
                others.append((await streams(THEIRS, count, theirs))[1] * 1000)
        ratio, base = statistics.median(ratios), statistics.median(rates)
        other = f"{statistics.median(others):.0f}" if others else "-"
        print(f"{count:>7} {base:>14.0f} {ratio * base:>12.0f} {ratio:>6.2f} {LIMITS[count]:>6}", end=" ")
        print(f"{statistics.median(firsts):>9.0f} {other:>10} {p99_ms(lags):>13.1f}")


# ── everything ────────────────────────────────────────────────────────────────────────────────────────────────────────
def make(folder: Path) -> Path:
    """Write a model that writes letters only, and so never ends an answer by itself."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from models import writers

    writers.llama(folder, layers=8, hidden=768)
    model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    letters = words("abcdefghijklmnopqrstuvwxyz").input_ids
    others = [token for token in range(model.config.vocab_size) if token not in letters]
    with torch.no_grad():
        model.lm_head.weight[others] = 0
    model.save_pretrained(folder)
    return folder


def main() -> None:
    """Start everything, compare, and end it."""
    if len(sys.argv) > 1:
        offline(sys.argv[1])
        return
    folder = Path(tempfile.mkdtemp())
    model = make(folder / "model")
    (folder / "models.yaml").write_text(MODELS.format(folder=model))
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    beside = Path(sys.executable).parent
    serve = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn", "rich"))
    with (
        running(sys.executable, __file__, str(model), folder=folder, stdin=pipe, stdout=pipe, stderr=null) as limit,
        running(str(beside / "yapit"), "serve", "--port", str(OURS), folder=folder, stdout=null, stderr=null),
    ):
        asyncio.run(ready(OURS))
        if not serve:
            asyncio.run(compare(limit, None))
            return
        command = [str(beside / "transformers"), "serve", "--port", str(THEIRS), "--host", "127.0.0.1"]
        command += ["--dtype", "float32", "--continuous-batching", str(model)]
        command += ["--cb-block-size", "128", "--cb-num-blocks", "256", "--cb-max-batch-tokens", "512"]
        with running(*command, folder=folder, stdout=null, stderr=null):
            asyncio.run(ready(THEIRS))
            asyncio.run(compare(limit, str(model)))


if __name__ == "__main__":
    main()
