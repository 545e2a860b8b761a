"""What a speech request costs beside the bare framework.

An echo request of 1 s of pcm through yapit, against the same bytes sent by a bare Litestar handler on the same uvicorn:
in one piece (`"stream": false` against `Response`) and streamed (against `Stream`), sequential and with 64 keep-alive
clients. Rounds alternate between the two servers; the best of each counts.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_server import ready

BARE = """
import uvicorn, sys
from litestar import Litestar, Response, Request, post
from litestar.response import Stream
BODY = bytes(48_000)
@post("/whole", status_code=200)
async def whole(request: Request) -> Response[bytes]:
    await request.json()
    return Response(BODY, media_type="audio/pcm")
async def chunks():
    yield BODY
@post("/stream", status_code=200)
async def stream(request: Request) -> Stream:
    await request.json()
    return Stream(chunks(), media_type="audio/pcm")
app = Litestar([whole, stream], openapi_config=None)
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""
MODELS = "models: [{id: second, backend: echo, tasks: [synthesize], sample_rate: 24000, options: {seconds: 1}}]"
SPEECH = {"model": "second", "input": "One second.", "voice": "low", "response_format": "pcm"}
AUDIO_BYTES = 48_000
LIMIT = 1.5
ROUNDS = 7


def request(path: str, *, stream: bool) -> bytes:
    """Return the request as it goes over the wire."""
    body = json.dumps({**SPEECH, "stream": stream}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> int:
    """Send one request and return the length of the response's body."""
    writer.write(message)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise RuntimeError(head.decode())
    if b"content-length: " in head:
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        return length
    total = 0
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
        total += size
    await reader.readexactly(2)
    return total


async def client(port: int, message: bytes, count: int) -> None:
    """Make `count` requests over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    for _ in range(count):
        assert await call(reader, writer, message) == AUDIO_BYTES
    writer.close()


async def measure(port: int, message: bytes, clients: int, count: int) -> float:
    """Return the seconds per request."""
    started = time.perf_counter()
    await asyncio.gather(*(client(port, message, count // clients) for _ in range(clients)))
    return (time.perf_counter() - started) / count


async def compare(bare: int, ours: int) -> None:
    """Print the table."""
    print(f"{'answer':>9} {'clients':>8} {'bare ms':>9} {'yapit ms':>9} {'ratio':>6}   limit {LIMIT}")
    for port in (bare, ours):
        await ready(port)
    for answer, stream in (("/whole", False), ("/stream", True)):
        messages = {bare: request(answer, stream=stream), ours: request("/v1/audio/speech", stream=stream)}
        for clients, count in ((1, 400), (64, 1920)):
            times: dict[int, list[float]] = {bare: [], ours: []}
            for _ in range(ROUNDS):
                for port, found in times.items():
                    found.append(await measure(port, messages[port], clients, count))
            base, cost = min(times[bare]) * 1000, min(times[ours]) * 1000
            print(f"{answer[1:]:>9} {clients:>8} {base:>9.3f} {cost:>9.3f} {cost / base:>6.2f}")


def main() -> None:
    """Start both servers, compare, and end them."""
    folder = Path(tempfile.mkdtemp())
    (folder / "models.yaml").write_text(MODELS)
    bare, ours = 18_431, 18_432
    null = subprocess.DEVNULL
    yapit = [str(Path(sys.executable).with_name("yapit")), "serve", "--port", str(ours)]
    servers = [
        subprocess.Popen([sys.executable, "-c", BARE, str(bare)], stdout=null, stderr=null),
        subprocess.Popen(yapit, cwd=folder, stdout=null, stderr=null),
    ]
    try:
        asyncio.run(compare(bare, ours))
    finally:
        for server in servers:
            server.send_signal(signal.SIGTERM)
            server.wait(10)


if __name__ == "__main__":
    main()
