"""A real server for tests: the installed command, on a free port, ended by its own id."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

YAPIT = str(Path(sys.executable).with_name("yapit"))
DEADLINE_S = 10
# Echo models with scripted trouble; `espeak` comes from its plugin.
MODELS = """
models:
  - {id: org/echo, backend: echo, tasks: [synthesize], aliases: [slashed], voices: [{id: low}, {id: high}]}
  - {id: slow, backend: echo, tasks: [synthesize], options: {delay_s: 0.05, seconds: 120, max_concurrency: 1}}
  - {id: stuck, backend: echo, tasks: [synthesize], options: {delay_s: 60, max_concurrency: 1}}
  - {id: turn, backend: echo, tasks: [synthesize], options: {delay_s: 0.15, seconds: 1, max_concurrency: 1}}
  - {id: warm, backend: echo, tasks: [synthesize], options: {delay_s: 0.3, seconds: 1}}
  - {id: failing, backend: echo, tasks: [synthesize], options: {fail: true, seconds: 3}}
  - {id: second, backend: echo, tasks: [synthesize], options: {seconds: 1}}
  - {id: unserved, backend: nobody, tasks: [synthesize]}
  - {id: deaf, backend: echo, tasks: [embed], context_length: 512, dimensions: 8}
  - {id: pensive, backend: echo, tasks: [embed, rerank, classify], options: {delay_s: 60, max_concurrency: 1}}
"""
# Echo models that write, and what they are told to write.
WRITERS = """
models:
  - {id: org/writer, backend: echo, tasks: [generate], aliases: [writer]}
  - {id: brief, backend: echo, tasks: [generate], context_length: 4, defaults: {max_tokens: 2}}
  - id: caller
    backend: echo
    tasks: [generate]
    options:
      answer:
        - {reasoning: Let me}
        - {reasoning: " see."}
        - {text: Calling.}
        - {tool_calls: [{index: 0, id: call_a, name: weather, arguments: ""}]}
        - {tool_calls: [{index: 0, arguments: '{"city":'}]}
        - {tool_calls: [{index: 0, arguments: ' "Rome"}'}, {index: 1, id: call_b, name: clock, arguments: "{}"}]}
        - finish_reason: tool_calls
          usage: {input_tokens: 9, output_tokens: 12, cached_tokens: 4, reasoning_tokens: 3}
  - id: only-caller
    backend: echo
    tasks: [generate]
    options:
      answer:
        - {tool_calls: [{index: 0, id: call_a, name: weather, arguments: '{"city": "Rome"}'}]}
        - {finish_reason: tool_calls, usage: {input_tokens: 9, output_tokens: 4}}
  - id: cut-caller
    backend: echo
    tasks: [generate]
    options:
      answer:
        - {tool_calls: [{index: 0, id: call_a, name: clock, arguments: "{}"}, {index: 1, id: call_b, name: weather}]}
        - {tool_calls: [{index: 1, arguments: '{"ci'}], finish_reason: length}
  - id: json
    backend: echo
    tasks: [generate]
    options:
      answer:
        - {text: '{"city": "Rome", '}
        - {text: '"degrees": 21}'}
        - {finish_reason: stop, usage: {input_tokens: 5, output_tokens: 8}}
  - id: unsure
    backend: echo
    tasks: [generate]
    options:
      answer:
        - text: Hé
          logprobs:
            - {text: H, logprob: -0.25, data: SA==, top: [{text: H, logprob: -0.25}, {text: J, logprob: -2}]}
            - {text: "\ufffd", logprob: -0.5, data: ww==, top: [{text: e, logprob: -.inf}]}
            - {text: "\ufffd", logprob: 0, data: qQ==}
        - {finish_reason: length, usage: {input_tokens: 1, output_tokens: 3}}
  - {id: slow-writer, backend: echo, tasks: [generate], options: {delay_s: 0.05}}
  - {id: stuck-writer, backend: echo, tasks: [generate], options: {delay_s: 60}}
  - {id: failing-writer, backend: echo, tasks: [generate], options: {fail: true}}
  - {id: deaf, backend: echo, tasks: [embed]}
"""


@dataclass
class Server:
    """A running server and what it has logged so far."""

    url: str
    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def events(self) -> list[str]:
        """The names of the logged events."""
        return [str(line.get("event")) for line in self.lines]


@contextmanager
def serve(folder: Path, *before: str, **environ: str) -> Iterator[Server]:
    """Run `yapit serve` in `folder` and yield it once it says where it listens; then end it and wait.

    Words `before` the command run it in surroundings of its own.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("YAPIT_")}
    process = subprocess.Popen(
        [*before, YAPIT, "serve", "--port", "0"],
        cwd=folder,
        env={**clean, "YAPIT_LOG_FORMAT": "json", **environ},
        stderr=subprocess.PIPE,
        text=True,
    )
    server, urls = Server("", process), queue.Queue[str]()
    reader = threading.Thread(target=_read, args=(server, urls), daemon=True)
    reader.start()
    try:
        server.url = urls.get(timeout=30)
        if not server.url:
            raise RuntimeError(f"the server did not start: {server.lines}")
        yield server
    finally:
        process.terminate()
        process.wait(20)
        reader.join(10)
        if process.stderr is not None:
            process.stderr.close()


def until(condition: Callable[[], bool]) -> bool:
    """Wait for the condition, bounded; how soon it comes is measured in benchmarks/."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def _read(server: Server, urls: "queue.Queue[str]") -> None:
    stderr = server.process.stderr
    for line in stderr or ():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"event": "unparsed", "line": line}
        server.lines.append(entry)
        if entry.get("event") == "serving":
            urls.put(entry["url"])
    urls.put("")
