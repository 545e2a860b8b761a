"""What transcription over HTTP costs beside the call of the faster engine, and what everything but the model costs.

A Whisper of the true size of `tiny` (38 million parameters, random weights) on one thread hears 30 s of speech that
espeak made, sent as mp3. The limit is faster-whisper's own `transcribe` of the same file with the same weights and
settings, in a process of its own. Then four clients send it at once. At last the echo model hears it: receiving,
decoding, resampling and answering are all that is left then, as a share of the recording's length.
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
from typing import Any

from bench_server import ask_for_life, p99_ms, ready, running

os.environ |= {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

PORT = 18_437
ROUNDS, CLIENTS = 3, 4
SECONDS = 30
SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody knows why it does so every single morning. "
# What random weights write is never likely: without this they would be asked again and again.
PATIENT = {"log_prob_threshold": None, "compression_ratio_threshold": None, "no_speech_threshold": None, "beam_size": 1}
TINY = {
    "d_model": 384,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
}
MODELS = """
models:
  - {{id: tiny, backend: whisper, tasks: [transcribe], source: {folder}, options: {{threads: 1}}}}
  - {{id: hollow, backend: echo, tasks: [transcribe]}}
"""


def speech() -> bytes:
    """Return 30 s of speech as mp3."""
    from yapit.adapters import Context
    from yapit.audio import encode
    from yapit.plugins import Plugins
    from yapit.schemas import SynthesizeRequest
    from yapit.tasks import SYNTHESIZE

    plugins = Plugins.load(["espeak"])
    (model,) = plugins.models()["espeak"]
    speaker: Any = plugins.adapter(SYNTHESIZE, model, Context())
    chunks = list(speaker.synthesize(SynthesizeRequest(text=SENTENCE * 8, voice="en-us")))
    rate = chunks[0].sample_rate
    return encode(b"".join(chunk.pcm for chunk in chunks)[: SECONDS * rate * 2], "mp3", rate)


# ── offline ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def offline(converted: str, recording: str) -> None:
    """Answer each line on standard input with the seconds of one call."""
    from faster_whisper import WhisperModel

    model = WhisperModel(converted, device="cpu", compute_type="float32", cpu_threads=1, local_files_only=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        segments, _ = model.transcribe(recording, language="en", **PATIENT)
        text = "".join(segment.text for segment in segments)
        print(time.perf_counter() - began, len(text), flush=True)


# ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────────────
async def ask(model: str, sound: bytes) -> float:
    """Return the seconds until the transcript is there."""
    fields = {"model": model, "language": "en", "options": json.dumps(PATIENT if model == "tiny" else {})}
    part = '--x\r\ncontent-disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    parts = [part.format(name, value) for name, value in fields.items()]
    file = '--x\r\ncontent-disposition: form-data; name="file"; filename="a.mp3"\r\ncontent-type: audio/mpeg\r\n\r\n'
    body = "".join([*parts, file]).encode() + sound + b"\r\n--x--\r\n"
    head = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += f"content-type: multipart/form-data; boundary=x\r\ncontent-length: {len(body)}\r\n\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(head.encode() + body)
    answer = await reader.read()
    assert b" 200 " in answer.split(b"\r\n", 1)[0], answer[:500]
    writer.close()
    return time.perf_counter() - began


async def compare(limit: "subprocess.Popen[str]", sound: bytes) -> None:
    """Print the table."""
    for model in ("tiny", "hollow"):
        await ask(model, sound)
    alone, together, hollow, bases, lags = list[float](), list[float](), list[float](), list[float](), list[float]()
    for _ in range(ROUNDS):
        assert limit.stdin is not None
        assert limit.stdout is not None
        print("once", file=limit.stdin, flush=True)
        base = float((await asyncio.to_thread(limit.stdout.readline)).split()[0])
        bases.append(base)
        asking = asyncio.create_task(ask_for_life(PORT, lags))
        alone.append(await ask("tiny", sound) / base)
        began = time.perf_counter()
        await asyncio.gather(*(ask("tiny", sound) for _ in range(CLIENTS)))
        together.append(CLIENTS * base / (time.perf_counter() - began))
        asking.cancel()
        hollow.append(await ask("hollow", sound))
    print(f"offline, s                        {statistics.median(bases):6.2f}")
    print(f"one client, times offline         {statistics.median(alone):6.2f}  limit 1.1")
    print(f"{CLIENTS} clients, of offline throughput  {statistics.median(together):6.2f}  limit 0.9")
    print(f"all but the model, of real time   {statistics.median(hollow) / SECONDS:6.3f}  limit 0.05")
    print(f"/livez p99, ms                    {p99_ms(lags):6.1f}")


# ── everything ────────────────────────────────────────────────────────────────────────────────────────────────────────
def main() -> None:
    """Make the model and the recording, start everything, compare, and end it."""
    if len(sys.argv) > 1:
        offline(*sys.argv[1:])
        return
    from models import whisperers

    folder = Path(tempfile.mkdtemp())
    model = whisperers.save_whisper(folder / "model", sizes=TINY)
    sound = speech()
    (folder / "speech.mp3").write_bytes(sound)
    converted = convert(model, folder / "converted")
    (folder / "models.yaml").write_text(MODELS.format(folder=model))
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    command = [sys.executable, __file__, str(converted), str(folder / "speech.mp3")]
    yapit = str(Path(sys.executable).with_name("yapit"))
    with (
        running(*command, folder=folder, stdin=pipe, stdout=pipe, stderr=null) as limit,
        running(yapit, "serve", "--port", str(PORT), folder=folder, stdout=null, stderr=null),
    ):
        asyncio.run(ready(PORT))
        asyncio.run(compare(limit, sound))


def convert(model: Path, folder: Path) -> Path:
    """Return the model as CTranslate2 reads it."""
    from ctranslate2.converters import TransformersConverter

    files = [path.name for path in model.iterdir() if path.name in ("tokenizer.json", "preprocessor_config.json")]
    TransformersConverter(str(model), copy_files=files).convert(str(folder))
    return folder


if __name__ == "__main__":
    main()
