"""How long a person waits for `yapit --help`, and for a server with twenty plugins of which one is broken."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from twenty_plugins import install

YAPIT = str(Path(sys.executable).with_name("yapit"))
PORT = 18_433
HELP_LIMIT_S = 0.4
READY_LIMIT_S = 1.5
ROUNDS = 5


def help_s(environ: dict[str, str]) -> float:
    """Return the seconds `yapit --help` takes."""
    started = time.perf_counter()
    subprocess.run([YAPIT, "--help"], env=environ, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def ready_s(environ: dict[str, str]) -> float:
    """Return the seconds from the start of the command to the first good answer of /readyz."""
    started = time.perf_counter()
    server = subprocess.Popen(
        [YAPIT, "serve", "--port", str(PORT)], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz"):
                    return time.perf_counter() - started
            except OSError:
                time.sleep(0.005)
    finally:
        server.terminate()
        server.wait(10)


def main() -> None:
    """Print the table; the best of some rounds counts, after one that fills the caches."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        site.mkdir()
        install(site)
        environ = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": folder}
        print(f"{'':>28} {'seconds':>8} {'limit':>6}")
        for name, measure, limit in (("yapit --help", help_s, HELP_LIMIT_S), ("ready", ready_s, READY_LIMIT_S)):
            cold = measure(environ)
            best = min(measure(environ) for _ in range(ROUNDS))
            print(f"{name + ', 20 plugins':>28} {best:>8.2f} {limit:>6} (first time {cold:.2f})")


if __name__ == "__main__":
    main()
