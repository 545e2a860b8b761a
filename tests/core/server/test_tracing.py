"""OpenTelemetry: spans reach a collector, and only when they are wanted."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from live import serve, until
from yapit.errors import SettingsError
from yapit.server.tracing import middleware


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Take what is sent by OTLP over HTTP."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


def spans(bodies: list[bytes]) -> set[str]:
    return {
        span.name
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def test_requests_become_spans(tmp_path: Path) -> None:
    with collector() as (url, bodies):
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with serve(tmp_path, YAPIT_SERVER_TRACING="true", **environ) as server:
            httpx.post(f"{server.url}/v1/audio/speech", json={"model": "echo", "input": "secret words"})
            assert until(lambda: "POST /v1/audio/speech" in spans(bodies))
        assert b"secret words" not in b"".join(bodies)


def test_without_the_setting_nothing_is_sent(tmp_path: Path) -> None:
    with collector() as (url, bodies):
        with serve(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="50") as server:
            httpx.get(f"{server.url}/v1/models")
        assert bodies == []


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"pip install 'yapit\[otel\]'"):
        middleware()
