"""Servers as benchmarks need them: started, awaited, asked whether they live, and ended."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def running(*command: str, folder: Path, **pipes: Any) -> Iterator["subprocess.Popen[str]"]:
    """Run a process; end it afterwards."""
    process = subprocess.Popen(command, cwd=folder, text=True, **pipes)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def ready(port: int) -> None:
    """Wait until a server listens."""
    for _ in range(1200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError(f"nothing listens on {port}")


async def ask_for_life(port: int, lags: list[float]) -> None:
    """Note how long `/livez` takes, until cancelled."""
    while True:
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        lags.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)


def p99_ms(lags: list[float]) -> float:
    """Return the milliseconds that all but the slowest hundredth took at most."""
    return sorted(lags)[len(lags) * 99 // 100] * 1000
