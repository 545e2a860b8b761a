"""What plugins run beside the server: begun before it listens, ended before the engine closes, one line if it fails."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from live import YAPIT
from yapit import AudioChunk, SynthesizeRequest, YapitError, echo, hookimpl
from yapit.errors import StartupError
from yapit.plugins import Plugins
from yapit.server.app import create_app
from yapit.server.services import Services
from yapit.settings import Settings
from yapit.tasks import SYNTHESIZE
from yapit.tickets import current


class Beside:
    """A plugin that notes what happens, and speaks when it begins and when it ends."""

    def __init__(self, name: str, notes: list[str], error: Exception | None = None) -> None:
        self.name = name
        self.notes = notes
        self.error = error
        self.parts: Services | None = None

    @hookimpl
    def accompany(self, parts: Services) -> AbstractAsyncContextManager[None]:
        self.notes.append(f"{self.name} asked")
        return self._run(parts)

    @asynccontextmanager
    async def _run(self, parts: Services) -> AsyncIterator[None]:
        if self.error is not None:
            raise self.error
        self.parts = parts
        self.notes.append(f"{self.name} begins, {parts.readiness.state}, {await self._speak(parts)} bytes")
        yield
        self.notes.append(f"{self.name} ends, {await self._speak(parts)} bytes")

    async def _speak(self, parts: Services) -> int:
        with parts.desk.serve_client("somebody", self.name) as ticket:
            assert parts.desk.serving == 1
            assert current() is ticket
            assert (ticket.client, ticket.id) == ("somebody", self.name)
            assert ticket.deadline is not None
            stream = parts.engine.stream(SYNTHESIZE, parts.engine.catalog["echo"], SynthesizeRequest(text="x"))
            async with aclosing(stream) as chunks:
                return sum([len(chunk.pcm) async for chunk in chunks if isinstance(chunk, AudioChunk)])


class Function:
    """A plugin that is written as the page of hooks shows it."""

    def __init__(self) -> None:
        self.begun = False

    @hookimpl
    @asynccontextmanager
    async def accompany(self, parts: Services) -> AsyncIterator[None]:
        self.begun = True
        yield
        self.begun = False


class Answers:
    """A plugin that gives any answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def accompany(self) -> Any:
        return self.answer


def registered(**plugins: object) -> Plugins:
    found = Plugins()
    for name, plugin in {"echo": echo, **plugins}.items():
        found.register(name, plugin)
    assert found.failed == {}
    return found


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_accompanies_begins_before_the_server_and_ends_before_the_engine() -> None:
    notes: list[str] = []
    one, other = Beside("one", notes), Beside("other", notes)
    app = create_app(Settings(), registered(one=one, other=other))
    assert notes == []
    with TestClient(app) as client:
        assert notes == [
            "other asked",
            "other begins, starting, 2880 bytes",
            "one asked",
            "one begins, starting, 2880 bytes",
        ]
        assert client.get("/readyz").status_code == 200
        assert one.parts is app.parts
    assert notes[4:] == ["one ends, 2880 bytes", "other ends, 2880 bytes"]
    assert app.parts.desk.serving == 0


def test_a_function_with_a_yield_is_a_companion() -> None:
    plugin = Function()
    with TestClient(create_app(Settings(), registered(plugin=plugin))):
        assert plugin.begun
    assert not plugin.begun


def test_who_has_nothing_to_run_says_none() -> None:
    app = create_app(Settings(), registered(plugin=Answers(None)))
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
    assert app.parts.readiness.failure is None


@pytest.mark.parametrize(
    ("plugin", "says"),
    [
        (Beside("one", [], StartupError("port: 1 is taken")), "the plugin 'bad': port: 1 is taken"),
        (Beside("one", [], OSError(5, "x")), "the plugin 'bad': OSError; the server's log says more."),
        (Answers([]), "the plugin 'bad': accompany must return an asynchronous context manager or None"),
    ],
)
def test_one_that_does_not_start_fails_the_server_by_name(plugin: object, says: str) -> None:
    notes: list[str] = []
    # The last registered is the first asked: `late` is not begun any more.
    app = create_app(Settings(), registered(late=Beside("late", notes), bad=plugin, early=Beside("early", notes)))
    with TestClient(app) as client:
        assert app.parts.readiness.failure == says
        assert client.get("/readyz").status_code == 503
    assert [note.split(",")[0] for note in notes] == ["early asked", "early begins", "early ends"]


def test_models_are_not_warmed_up_for_a_server_that_has_failed() -> None:
    settings = Settings(engine=type(Settings().engine)(warm_up=("echo",)))
    app = create_app(settings, registered(bad=Answers(5)))
    with TestClient(app):
        assert app.parts.engine.status(app.parts.engine.catalog["echo"]).value == "unloaded"
        assert app.parts.readiness._warming is None


def test_what_is_served_beside_can_be_stopped_with_the_server() -> None:
    errors: list[YapitError | None] = []

    class Stopped(Beside):
        async def _speak(self, parts: Services) -> int:
            with parts.desk.serve_client("somebody", "an-id") as ticket:
                parts.desk.stop_all()
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    errors.append(ticket.stopped())
            return parts.desk.serving

    with TestClient(create_app(Settings(), registered(stopped=Stopped("stopped", [])))) as client:
        assert client.get("/readyz").status_code == 200
    assert [error and error.code for error in errors] == ["server_draining"] * 2


PLUGIN = """
from contextlib import asynccontextmanager
from yapit import hookimpl
from yapit.errors import StartupError

@hookimpl
@asynccontextmanager
async def accompany(parts):
    raise StartupError("beside.port: 1 is taken")
    yield
"""


def test_the_process_of_a_server_that_has_failed_ends_with_one_line(tmp_path: Path) -> None:
    info = tmp_path / "site" / "dist_beside-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dist-beside\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[yapit.plugins]\nbeside = fake_beside\n")
    (info.parent / "fake_beside.py").write_text(PLUGIN)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("YAPIT_")}
    ours = {"PYTHONPATH": str(info.parent), "XDG_CACHE_HOME": str(tmp_path), "YAPIT_PLUGINS": "echo,beside"}
    command = [YAPIT, "serve", "--port", "0"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**clean, **ours}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "yapit: the plugin 'beside': beside.port: 1 is taken"
    assert "Traceback" not in done.stderr
    assert "serving" not in done.stderr
