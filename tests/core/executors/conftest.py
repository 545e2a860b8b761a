import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

import scripted

ENTRY_POINTS = "[yapit.plugins]\nscripted = scripted\n"


@pytest.fixture(autouse=True)
def nothing_leaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Count before and after every test; `run` does so with the tasks. Nothing may go wrong behind a test's back."""
    before = taken()
    gc.freeze()  # what was there before is not looked at again
    yield
    gc.collect()  # a task that failed and was never asked complains when it goes
    gc.unfreeze()
    complaints = [record.getMessage() for record in caplog.get_records("call") if record.name == asyncio.__name__]
    assert complaints == []
    assert taken() == before


def taken() -> dict[str, Any]:
    """Return what this process has of the things that run out."""
    descriptors = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            descriptors[entry.name] = str(entry.readlink())
    # Not the children's own: a server that other tests share may have some that come and go.
    return {"descriptors": descriptors, "threads": set(threading.enumerate()), "children": psutil.Process().children()}


@pytest.fixture(scope="session", autouse=True)
def _uvloop_is_known() -> None:
    """Let the library open what it opens once and keeps."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))


# On uvloop the signal that ends a test after its time ends nothing.
@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=pytest.mark.timeout(60, method="thread"))])
def each_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run on the standard event loop, and on the one that the server uses."""
    if request.param == "uvloop":
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    yield
    asyncio.set_event_loop_policy(None)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the scripted plugin is installed as pip would."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "scripted-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture(autouse=True)
def _children_find_it(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), str(Path(scripted.__file__).parent))))
    monkeypatch.setenv("XDG_CACHE_HOME", str(site / "cache"))  # where stevedore keeps what it found
