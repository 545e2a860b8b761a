"""A hub of models on this machine: the part of the Hugging Face hub's protocol that fetching a repository needs.

It refuses what the real one refuses, in the same words, and remembers what it was asked.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"  # noqa: S105 - the only one this hub knows
_INFO = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LARGE = (".safetensors", ".bin", ".pt", ".h5", ".onnx", ".msgpack", ".npy", ".zip")  # kept apart from the text files

Files = Mapping[str, bytes]


@dataclass
class Repo:
    """A repository.

    Args:
        files: of its newest revision.
        older: files of further revisions, by the name of their branch or tag.
        private: those who have no token are told that it does not exist.
        gated: everybody may know of it, and only those who have a token may read it.
        tag: what the hub believes that it is for.
    """

    files: Files
    older: Mapping[str, Files] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    tag: str | None = None

    def at(self, revision: str) -> Files | None:
        """Return the files of a branch, a tag or a commit; None if there is none."""
        named = {"main": self.files, **self.older}
        return named.get(revision) or {commit(files): files for files in named.values()}.get(revision)


def commit(files: Files) -> str:
    """Return the hash of a revision with these files."""
    lines = "".join(f"{name} {hashlib.sha1(files[name]).hexdigest()}\n" for name in sorted(files))  # noqa: S324 - as git
    return hashlib.sha1(lines.encode()).hexdigest()  # noqa: S324 - as git


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, as those of a repository."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Hub(ThreadingHTTPServer):
    """Serves repositories; `asked` has all requests so far."""

    daemon_threads = True

    def __init__(self, models: Mapping[str, Repo], datasets: Mapping[str, Repo] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos = {"models": models, "datasets": datasets or {}}
        self.asked: list[str] = []
        self.ill = False  # answers 503 to everything

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def fetched(self) -> list[str]:
        """The names of the files whose contents were asked for, in alphabetical order."""
        return sorted(match[4] for line in self.asked if (match := _FILE.fullmatch(line.removeprefix("GET "))))


@contextmanager
def serve_hub(models: Mapping[str, Repo], datasets: Mapping[str, Repo] | None = None) -> Iterator[Hub]:
    """Serve repositories until the block is left."""
    hub = Hub(models, datasets)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _RefusedError(Exception):
    """An answer that says no: status, the hub's code for it, its words."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message, **headers} | ({"X-Error-Code": code} if code else {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Say nothing: tests look at `asked`."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        try:
            self._route(path)
        except _RefusedError as refusal:
            self._json({"error": refusal.message}, refusal.status, refusal.headers)

    def _route(self, path: str) -> None:
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
            "siblings": [{"rfilename": file} for file in files],
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
        headers = {"X-Repo-Commit": commit(files), "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        if path.endswith(_LARGE):
            headers |= {"X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(body))}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if wanted and start >= len(body):
            raise _RefusedError(416, "", "Range Not Satisfiable", **{"Content-Range": f"bytes */{len(body)}"})
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._send(body[start:], 206 if wanted else 200, {"Content-Type": "application/octet-stream", **headers})

    def _json(self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(json.dumps(document).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, body: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(path: str, body: bytes) -> str:
    if path.endswith(_LARGE):
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()  # noqa: S324 - as git


def _listed(path: str, body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "file", "oid": _etag(path, body)[:40], "size": len(body), "path": path}
    if path.endswith(_LARGE):
        found["lfs"] = {"oid": _etag(path, body), "size": len(body), "pointerSize": 134}
    return found
