"""What only the whole shows: many clients, several models in processes of their own, and how they come and go."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from clients.tiny import PATIENCE_S, Tiny, serve_tiny
from live import DEADLINE_S, until


class Stream:
    """An answer that is read line by line."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()
        self.response = response

    def next(self) -> dict[str, Any]:
        """Return the next event."""
        line = next(line for line in self._lines if line)
        event: dict[str, Any] = json.loads(line.removeprefix("data: "))
        return event


def ends(folder: Path) -> dict[str, int]:
    """Return a bias against the tokens that end an answer: it goes on until somebody stops it."""
    config = json.loads((folder / "generation_config.json").read_text())
    return {str(config["eos_token_id"]): -100}


@contextmanager
def endless(tiny: Tiny, model: str) -> Iterator[Stream]:
    """Begin an answer without an end, and leave it at last."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Once upon a time"}],
        "stream": True,
        "temperature": 0,
        "logit_bias": ends(tiny.folders[model]),
    }
    with httpx.stream("POST", f"{tiny.url}/chat/completions", json=body, timeout=PATIENCE_S) as response:
        stream = Stream(response)
        for _ in range(3):
            assert stream.next()["object"] == "chat.completion.chunk"
        yield stream


def chat(tiny: Tiny, content: str, **fields: Any) -> httpx.Response:
    body = {"model": "tiny-chat", "temperature": 0, "max_tokens": 24, **fields}
    return tiny.post("/v1/chat/completions", messages=[{"role": "user", "content": content}], **body)


def message(answer: httpx.Response) -> tuple[str, str, int]:
    assert answer.status_code == httpx.codes.OK, answer.text
    choice = answer.json()["choices"][0]
    return choice["message"]["content"], choice["finish_reason"], answer.json()["usage"]["total_tokens"]


# ── together ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_twelve_clients_at_once_get_what_each_gets_alone(tiny: Tiny) -> None:
    said = [f"Story {number}. " * (1 + number % 4) for number in range(12)]
    alone = [message(chat(tiny, content)) for content in said]
    with ThreadPoolExecutor(12) as pool:
        together = [message(answer) for answer in pool.map(lambda content: chat(tiny, content), said)]
    assert together == alone
    assert len(set(alone)) == 12


def test_models_side_by_side_do_not_wait_for_each_other(tiny: Tiny) -> None:
    alone = chat(tiny, "Hello").json()["choices"]
    with endless(tiny, "tiny-chat") as writing, endless(tiny, "tiny-vision") as seeing:
        vectors = tiny.post("/v1/embeddings", model="minilm", input="cat")
        ranks = tiny.post("/v1/rerank", model="tiny-rank", query="cat", documents=["cat", "dog"])
        assert (vectors.status_code, ranks.status_code) == (200, 200)
        assert chat(tiny, "Hello").json()["choices"] == alone
        assert (tiny.running("tiny-chat"), tiny.running("tiny-vision")) == (1, 1)
        pids = {model["pid"] for model in tiny.loaded().values()}
        assert len(pids) == len(tiny.loaded())
        assert writing.next()["choices"]
        assert seeing.next()["choices"]


def test_a_schema_that_is_none_is_refused_while_others_go_on(tiny: Tiny) -> None:
    broken = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}, "strict": True}}
    with endless(tiny, "tiny-chat") as other:
        for stream in (False, True):
            refused = chat(tiny, "Hello", response_format=broken, stream=stream)
            error = refused.json()["error"]
            assert (refused.status_code, error["param"]) == (400, "response_format")
        assert other.next()["choices"]
        assert tiny.running("tiny-chat") == 1


# ── leaving ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_client_that_leaves_in_mid_stream_stops_its_answer_alone(tiny: Tiny) -> None:
    with endless(tiny, "tiny-chat") as stays:
        with endless(tiny, "tiny-chat"):
            assert until(lambda: tiny.running("tiny-chat") == 2)
        assert until(lambda: tiny.running("tiny-chat") == 1)
        assert stays.next()["choices"]
    assert until(lambda: tiny.running("tiny-chat") == 0)


def test_a_client_that_leaves_gives_its_place_to_the_next(tiny: Tiny) -> None:
    """A model that sees has one place, and one thread that must be free again."""
    with ThreadPoolExecutor(1) as pool:
        with endless(tiny, "tiny-vision"):
            worker = tiny.loaded()["tiny-vision"]["pid"]
            waiting = pool.submit(chat, tiny, "Hello", model="tiny-vision", max_tokens=2)
            assert until(lambda: tiny.loaded()["tiny-vision"]["queued"] == 1)
        assert message(waiting.result(PATIENCE_S))[1] in {"length", "stop"}
    assert until(lambda: tiny.running("tiny-vision") == 0)
    assert tiny.loaded()["tiny-vision"]["pid"] == worker  # it was not killed for not letting go


def test_a_model_that_nobody_asks_any_more_does_not_compute(tiny: Tiny) -> None:
    with endless(tiny, "tiny-chat"), endless(tiny, "tiny-vision"):
        pass
    for name in ("tiny-chat", "tiny-vision"):
        assert until(lambda: tiny.running(name) == 0)
        worker = psutil.Process(tiny.loaded()[name]["pid"])
        assert until(lambda: worker.cpu_percent(0.2) < 10)


# ── unloading ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_model_that_is_unloaded_has_no_process_and_comes_back_when_asked(tiny: Tiny) -> None:
    def ask() -> Any:
        answer = tiny.post("/v1/rerank", model="tiny-rank", query="cat", documents=["cat", "dog"])
        assert answer.status_code == httpx.codes.OK
        return answer.json()["results"]

    before = ask()
    worker = tiny.loaded()["tiny-rank"]["pid"]
    assert tiny.post("/models/unload", model="tiny-rank").status_code == httpx.codes.OK
    assert not psutil.pid_exists(worker)
    assert "tiny-rank" not in tiny.loaded()
    assert ask() == before
    assert tiny.loaded()["tiny-rank"]["pid"] != worker


def test_a_model_that_answers_is_not_unloaded(tiny: Tiny) -> None:
    with endless(tiny, "tiny-chat") as stream:
        refused = tiny.post("/models/unload", model="tiny-chat")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_busy")
        assert stream.next()["choices"]


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_server_that_ends_leaves_no_process_of_an_answer_without_an_end(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Ctrl-C reaches the children of a terminal as well; SIGTERM does not."""
    with ExitStack() as stack:
        servers = []
        for name in ("tiny-chat", "tiny-vision"):
            base = tmp_path / name
            base.mkdir()
            made = {name: tiny_folders[name]}
            servers.append((name, stack.enter_context(serve_tiny(base, made, YAPIT_SERVER_DRAIN_S="1"))))
        with ThreadPoolExecutor(2) as pool:  # they load at the same time
            list(pool.map(lambda each: each[1].post("/models/load", model=each[0]), servers))
        streams = [stack.enter_context(endless(tiny, name)) for name, tiny in servers]
        (_, interrupted), (_, terminated) = servers
        workers = [psutil.Process(tiny.loaded()[name]["pid"]) for name, tiny in servers]
        for pid in (interrupted.server.process.pid, workers[0].pid):
            os.kill(pid, signal.SIGINT)
        os.kill(terminated.server.process.pid, signal.SIGTERM)
        for stream, (_, tiny) in zip(streams, servers, strict=True):
            last = {}
            while "error" not in last:
                last = stream.next()
            assert last["error"]["code"] == "server_draining"
            assert tiny.server.process.wait(DEADLINE_S) == 0
        assert until(lambda: not any(worker.is_running() for worker in workers))
        assert "Traceback" not in json.dumps([tiny.server.lines for _, tiny in servers])
