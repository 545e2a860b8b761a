"""A host of files on this machine that does what others do wrong; it remembers what it was asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


class FileHost(ThreadingHTTPServer):
    """Answers as `answers` says, by path; `asked` has the headers of all requests, with the path as `:path`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[dict[str, str]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave."""


class _Handler(BaseHTTPRequestHandler):
    server: FileHost

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append({**{name.lower(): text for name, text in self.headers.items()}, ":path": self.path})
        self.server.answers[path](self)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serve_files() -> Iterator[FileHost]:
    """Serve until the block is left."""
    host = FileHost()
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield host
    finally:
        host.shutdown()
        host.server_close()
        thread.join()


def body(data: bytes, status: int = 200, *, length: int | None = None, **headers: str) -> Answer:
    """Answer with these bytes; `length` is what is said of them, or -1 for nothing."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if length != -1:
            handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def redirect(to: str, status: int = 302) -> Answer:
    """Answer with another place."""
    return body(b"", status, Location=to)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Answer with ever more bytes, in chunks."""
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def chunked(data: bytes) -> Answer:
    """Answer with these bytes, whose number nobody says before."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")
        handler.close_connection = True

    return answer
