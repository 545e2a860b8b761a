"""A hub of models on this machine: the part of the Hugging Face hub's protocol that fetching a repository needs.

It refuses what the real one refuses, in the same words, and remembers what it was asked. With `redirect` the large
files are at a second host, the storage. Trouble is ordered by the test: `refuse`, `cut`, `spoil`, `hold`, `drip`.
"""

import hashlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_test"  # noqa: S105 - the only one this hub knows
_INFO = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LARGE = (".safetensors", ".bin", ".pt", ".h5", ".onnx", ".msgpack", ".npy", ".zip")  # kept apart from the text files
_BLOCK = 64 * 1024  # bytes that are made, and sent, at a time


class Generated:
    """The content of a large file, made when it is sent.

    Args:
        size: in bytes.
        seed: another one is another content.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def blocks(self, start: int = 0) -> Iterator[bytes]:
        for at in range(start - start % _BLOCK, self.size, _BLOCK):
            block = hashlib.blake2b(b"%d %d" % (self.seed, at)).digest() * (_BLOCK // 64)
            yield block[max(0, start - at) : self.size - at]

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


Content = bytes | Generated
Files = Mapping[str, Content]


@dataclass
class Repo:
    """A repository.

    Args:
        files: of its newest revision.
        older: files of further revisions, by the name of their branch or tag.
        past: files of what `main` was before.
        private: those who have no token are told that it does not exist.
        gated: everybody may know of it, and only those who have a token may read it.
        tag: what the hub believes that it is for.
    """

    files: Files
    older: Mapping[str, Files] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    tag: str | None = None
    past: list[Files] = field(default_factory=list)

    def at(self, revision: str) -> Files | None:
        """Return the files of a branch, a tag or a commit; None if there is none."""
        named = {"main": self.files, **self.older}
        return named.get(revision) or {commit(files): files for files in (*self.past, *named.values())}.get(revision)

    def push(self, files: Files) -> None:
        """Move `main` to other files; the commit before it stays."""
        self.past.append(self.files)
        self.files = files


def commit(files: Files) -> str:
    """Return the hash of a revision with these files."""
    lines = "".join(f"{name} {_digest(files[name])}\n" for name in sorted(files))
    return hashlib.sha1(lines.encode()).hexdigest()  # noqa: S324 - as git


def files_of(folder: Path) -> dict[str, Content]:
    """Return the files of a folder, as those of a repository."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Trouble:
    """What becomes of the next answers that hold a file, or whose path holds a word.

    Args:
        word: part of the path, or the name of the file.
        times: how often; None is always.
        status: is answered.
        headers: of that answer.
        after: bytes of an answer that come before the connection is cut.
        spoilt: other bytes come than the file has.
        bytes_per_s: no more come.
    """

    word: str
    times: int | None = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int | None = None
    spoilt: bool = False
    bytes_per_s: float | None = None


class Hold:
    """An answer that stops in its middle until the test goes on; `after` None stops it before its head."""

    def __init__(self, name: str, after: int | None) -> None:
        self.name, self.after = name, after
        self.reached, self.released = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        self.released.wait(60)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave: tests make them leave."""


class Storage(_Server):
    """The second host of a hub, which has the large files by their checksum; `tokens` are those that it was given."""

    def __init__(self, hub: "Hub") -> None:
        super().__init__(("127.0.0.1", 0), _StorageHandler)
        self.hub = hub
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.expired = 0  # the next so many URLs are refused

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Hub(_Server):
    """Serves repositories; `asked` has all requests so far, `sent` the bytes of each file that left."""

    def __init__(self, models: Mapping[str, Repo], datasets: Mapping[str, Repo] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos = {"models": models, "datasets": datasets or {}}
        self.asked: list[str] = []
        self.ranges: list[tuple[str, str | None, str | None]] = []  # file, Range and If-Range of each GET
        self.sent: Counter[str] = Counter()
        self.ill = False  # answers 503 to everything
        self.ranges_ignored = False  # knows whole files only
        self.range_shift = 0  # bytes that are left out of what was asked for
        self.storage: Storage | None = None
        self.contents: dict[str, Content] = {}  # what the storage was asked to give, by checksum
        self.troubles: list[Trouble] = []
        self.holds: list[Hold] = []
        self.closing = threading.Event()
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def fetched(self) -> list[str]:
        """The names of the files whose contents were asked for, in alphabetical order."""
        return sorted(match[4] for line in self.asked if (match := _FILE.fullmatch(line.removeprefix("GET "))))

    def refuse(self, status: int, word: str = "/resolve/", times: int | None = 1, **headers: str) -> None:
        """Answer the next requests whose path holds the word with a status; `Retry_After="1"` is a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.troubles.append(Trouble(word, times, status=status, headers=named))

    def cut(self, name: str, after: int, times: int | None = 1) -> None:
        """Cut the connection after so many bytes of the next answers that hold the file."""
        self.troubles.append(Trouble(name, times, after=after))

    def spoil(self, name: str, times: int | None = 1) -> None:
        """Send other bytes than the file has."""
        self.troubles.append(Trouble(name, times, spoilt=True))

    def drip(self, name: str, bytes_per_s: float, times: int | None = None) -> None:
        """Send the file slowly; where a test can, `hold` is better."""
        self.troubles.append(Trouble(name, times, bytes_per_s=bytes_per_s))

    def hold(self, name: str, after: int | None) -> Hold:
        """Stop the next answer that holds the file after so many bytes of it, counted from the file's start."""
        self.holds.append(hold := Hold(name, after))
        return hold

    def trouble(self, word: str, *, refusing: bool) -> Trouble | None:
        """Return what is ordered for an answer, and count it."""
        with self._guard:
            for trouble in self.troubles:
                if trouble.word in word and (trouble.status is not None) == refusing and trouble.times != 0:
                    trouble.times = trouble.times and trouble.times - 1
                    return trouble
        return None

    def held(self, name: str) -> Hold | None:
        """Return what stops the answer."""
        with self._guard:
            return next((hold for hold in self.holds if hold.name == name and not hold.reached.is_set()), None)

    def count(self, name: str, sent: int) -> None:
        """Note bytes that left."""
        with self._guard:
            self.sent[name] += sent


@contextmanager
def serve_hub(
    models: Mapping[str, Repo], datasets: Mapping[str, Repo] | None = None, *, redirect: bool = False
) -> Iterator[Hub]:
    """Serve repositories until the block is left."""
    hub = Hub(models, datasets)
    servers: list[_Server] = [hub]
    if redirect:
        hub.storage = Storage(hub)
        servers.append(hub.storage)
    threads = [threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.02}) for each in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        for hold in hub.holds:
            hold.released.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class _RefusedError(Exception):
    """An answer that says no: status, the hub's code for it, its words."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message, **headers} | ({"X-Error-Code": code} if code else {})


class _Answering(BaseHTTPRequestHandler):
    """Sends files, whole or from a byte on, with the trouble that is ordered for them."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        raise NotImplementedError

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Say nothing: tests look at `asked`."""

    def _answer(self) -> None:
        raise NotImplementedError

    def _content(self, path: str, body: Content, tag: str, headers: Mapping[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if self.command == "GET":
            self.hub.ranges.append((path, self.headers.get("Range"), condition))
        if self.hub.ranges_ignored or (condition is not None and condition != f'"{tag}"'):
            wanted = None
        start = int(wanted[1]) + self.hub.range_shift if wanted else 0
        if wanted and start >= len(body):
            raise _RefusedError(416, "", "Range Not Satisfiable", **{"Content-Range": f"bytes */{len(body)}"})
        more = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if wanted else {}
        hold = self.hub.held(path) if self.command == "GET" else None
        if hold is not None and hold.after is None:
            hold.wait()
        known = {"Content-Type": "application/octet-stream", "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        self._head(206 if wanted else 200, len(body) - start, {**known, **headers, **more})
        if self.command == "GET":
            self._body(path, body, start, hold)

    def _body(self, path: str, body: Content, start: int, hold: Hold | None) -> None:
        trouble = self.hub.trouble(path, refusing=False)
        blocks = body.blocks(start) if isinstance(body, Generated) else _sliced(body, start)
        sent, stop = 0, hold.after - start if hold is not None and hold.after is not None else None
        for block in blocks:
            for piece in _parted(block, sent, {stop, trouble.after if trouble else None}):
                if hold is not None and sent == stop:
                    hold.wait()
                if trouble is not None and sent == trouble.after:
                    self._cut()
                    return
                self.wfile.write(bytes(255 - byte for byte in piece) if trouble and trouble.spoilt else piece)
                self.hub.count(path, len(piece))
                if trouble is not None and trouble.bytes_per_s is not None:
                    self.hub.closing.wait(len(piece) / trouble.bytes_per_s)
                sent += len(piece)

    def _cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self._head(status, len(body), {"Content-Type": "application/json", **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class _StorageHandler(_Answering):
    server: Storage

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append(f"{self.command} {parts.path}")
        if token := self.headers.get("Authorization"):
            self.server.tokens.append(token)
        if self.server.expired:
            self.server.expired -= 1
            self._json({"error": "Request has expired"}, 403)
            return
        try:
            # A storage has names of its own for contents, as the real one.
            name = parse_qs(parts.query)["name"][0]
            self._content(name, self.hub.contents[parts.path[1:]], f"s3-{parts.path[1:9]}", {})
        except _RefusedError as refusal:
            self._json({"error": refusal.message}, refusal.status, refusal.headers)


class _Handler(_Answering):
    server: Hub

    @property
    def hub(self) -> Hub:
        return self.server

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        try:
            self._route(path)
        except _RefusedError as refusal:
            self._json({"error": refusal.message}, refusal.status, refusal.headers)

    def _route(self, path: str) -> None:
        if (trouble := self.server.trouble(path, refusing=True)) is not None and trouble.status is not None:
            raise _RefusedError(trouble.status, "", f"Refused for a test: {trouble.status}", **trouble.headers)
        if self.server.ill:
            raise _RefusedError(503, "", "Service Unavailable")
        self._check_token()
        if info := _INFO.fullmatch(path):
            self._json(self._about(*info.groups()))
        elif file := _FILE.fullmatch(path):
            self._file(*file.groups())
        else:
            raise _RefusedError(404, "", "Not Found")

    def _check_token(self) -> None:
        if self.headers.get("Authorization", f"Bearer {TOKEN}") != f"Bearer {TOKEN}":
            raise _RefusedError(401, "", "Invalid credentials in Authorization header")

    def _find(self, kind: str, name: str, revision: str | None) -> tuple[Repo, Files]:
        repo = self.server.repos[kind].get(name)
        known = "Authorization" in self.headers
        if repo is None or (repo.private and not known):
            raise _RefusedError(404 if known else 401, "RepoNotFound", "Repository not found")
        files = repo.at(revision or "main")
        if files is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, files

    def _about(self, kind: str, name: str, what: str | None, revision: str | None) -> Any:
        repo, files = self._find(kind, name, revision)
        if what == "tree":
            self._check_gate(repo, name)
            folders = {str(above) for file in files for above in Path(file).parents} - {"."}
            return [
                *({"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in sorted(folders)),
                *(_listed(file, body) for file, body in files.items()),
            ]
        return {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": commit(files),
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "tags": [],
            "pipeline_tag": repo.tag,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "lastModified": "2026-01-01T00:00:00.000Z",
            "siblings": [self._sibling(file, body) for file, body in files.items()],
        }

    def _check_gate(self, repo: Repo, name: str) -> None:
        if repo.gated and "Authorization" not in self.headers:
            raise _RefusedError(401, "GatedRepo", f"Access to model {name} is restricted. You must be authenticated.")

    def _file(self, kind: str | None, name: str, revision: str, path: str) -> None:
        repo, files = self._find((kind or "models").rstrip("/"), name, revision)
        self._check_gate(repo, name)
        if path not in files:
            raise _RefusedError(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit(files)})
        body, tag = files[path], _etag(path, files[path])
        headers = {"X-Repo-Commit": commit(files)}
        if path.endswith(_LARGE):
            headers |= {"X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(body))}
            if self.server.storage is not None:
                self.server.contents[tag] = body
                location = f"{self.server.storage.url}/{tag}?name={path}&signature=secret"
                self._head(302, 0, {**headers, "Location": location})
                return
        self._content(path, body, tag, headers)

    def _sibling(self, name: str, body: Content) -> dict[str, Any]:
        if "blobs" not in parse_qs(urlsplit(self.path).query):
            return {"rfilename": name}
        listed = _listed(name, body)
        found = {"rfilename": name, "size": listed["size"], "blobId": listed["oid"]}
        if "lfs" in listed:
            found["lfs"] = {"sha256": listed["lfs"]["oid"], "size": len(body), "pointerSize": 134}
        return found


def _sliced(body: bytes, start: int) -> Iterator[bytes]:
    yield from (body[at : at + _BLOCK] for at in range(start, len(body), _BLOCK))
    yield b""  # trouble at the very end comes before this


def _parted(block: bytes, sent: int, marks: set[int | None]) -> Iterator[bytes]:
    """Return the block in parts that end where trouble comes."""
    cuts = sorted(mark - sent for mark in marks if mark is not None and 0 < mark - sent < len(block))
    for start, end in zip([0, *cuts], [*cuts, len(block)], strict=True):
        yield block[start:end]


def _digest(body: Content) -> str:
    return body.sha256 if isinstance(body, Generated) else hashlib.sha1(body).hexdigest()  # noqa: S324 - as git


def _etag(path: str, body: Content) -> str:
    if isinstance(body, Generated):
        return body.sha256
    if path.endswith(_LARGE):
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()  # noqa: S324 - as git


def _listed(path: str, body: Content) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "file", "oid": _etag(path, body)[:40], "size": len(body), "path": path}
    if path.endswith(_LARGE):
        found["lfs"] = {"oid": _etag(path, body), "size": len(body), "pointerSize": 134}
    return found
