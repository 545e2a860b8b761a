"""What happens to a transfer when processes end, wait for one another, or find the disk full."""

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # public too

from hub import Content, Generated, Hub, Repo, serve_hub
from live import until
from transferring import small_disk, told, transferring
from yapit.hub import Progress, Repository, fetch, plan
from yapit.hub.layout import lock_of

Wanted = Callable[..., Repository]
SIZE = 4_000_000
BIG = 200_000_000
FILES: dict[str, Content] = {"config.json": b"{}", "model.safetensors": Generated(SIZE)}
FETCHING = Path(__file__).with_name("fetching.py")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub({"org/tiny": Repo(FILES)}) as serving:
        yield serving


def fetching(
    hub: Hub, cache: Path, *more: str, before: tuple[str, ...] = ()
) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run a process that fetches, until the block is left."""
    return transferring(FETCHING, hub.url, str(cache), *more, before=before)


# ── kill -9 ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("redirect", [False, True])
def test_a_process_that_is_killed_is_resumed_by_the_next_one(tmp_path: Path, redirect: bool) -> None:  # noqa: FBT001 - a parameter
    files: dict[str, Content] = {"config.json": b"{}", "model.safetensors": Generated(BIG, seed=int(redirect))}
    with serve_hub({"org/tiny": Repo(files)}, redirect=redirect) as hub:
        held = hub.hold("model.safetensors", BIG * 6 // 10)
        with fetching(hub, tmp_path) as process:
            assert held.reached.wait(60)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        held.released.set()
        with fetching(hub, tmp_path) as process:
            first, *_, last = told(process)
        assert first["bytes"] > BIG * 0.5
        weights = Path(last["folder"]) / "model.safetensors"
        assert weights.stat().st_size == BIG
        assert hub.sent["model.safetensors"] < BIG * 1.05
        assert hub.ranges[-1][1] != "bytes=0-"


def test_an_interrupt_ends_it_at_once_and_keeps_the_part(hub: Hub, tmp_path: Path) -> None:
    held = hub.hold("model.safetensors", 1_000_000)
    with fetching(hub, tmp_path) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["bytes"] < 1_000_002:
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
    held.released.set()
    with fetching(hub, tmp_path) as process:
        assert "folder" in told(process)[-1]
    assert hub.ranges[-1][1] == "bytes=1000000-"


# ── several at once ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_two_processes_make_one_transfer(hub: Hub, tmp_path: Path) -> None:
    held = hub.hold("model.safetensors", 1_000_000)
    with fetching(hub, tmp_path) as one, fetching(hub, tmp_path) as other:
        for process in (one, other):
            assert process.stdout is not None
            while json.loads(process.stdout.readline())["bytes"] < 500_000:
                pass  # the one that waits knows how far the other is
        held.released.set()
        ends = [told(process)[-1] for process in (one, other)]
    assert ends[0] == ends[1]
    assert hub.fetched == ["config.json", "model.safetensors"]
    assert hub.sent["model.safetensors"] == SIZE


def test_twenty_threads_make_one_transfer(hub: Hub, wanted: Wanted) -> None:
    found = plan(wanted(hub))
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch(found))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(folders) == 20
    assert set(folders) == {folders[0]}
    assert hub.sent["model.safetensors"] == SIZE


def test_what_the_hub_s_library_writes_is_waited_for(hub: Hub, wanted: Wanted) -> None:
    found = plan(wanted(hub))
    etag = next(file.etag for file in found.files if file.name == "model.safetensors")
    path, told_at = lock_of(found.repository, etag), list[Progress]()
    path.parent.mkdir(parents=True)
    with WeakFileLock(path):
        waiting = threading.Thread(target=fetch, args=[found], kwargs={"watch": told_at.append})
        waiting.start()
        assert until(lambda: any(progress.files_done == 1 for progress in told_at))
        (path.parents[2] / path.parent.name / "blobs" / f"{etag}.0badcafe.incomplete").write_bytes(bytes(1_000_000))
        assert until(lambda: told_at[-1].bytes_done == 1_000_002), "and it is told how far that is"
        assert "model.safetensors" not in hub.fetched
    waiting.join(20)
    assert told_at[-1].files_done == 2


def test_the_hub_s_library_waits_for_what_we_write(hub: Hub, wanted: Wanted) -> None:
    held, found = hub.hold("model.safetensors", 1_000_000), plan(wanted(hub))
    ours = threading.Thread(target=fetch, args=[found])
    ours.start()
    assert held.reached.wait(20)
    more = {"cache_dir": found.repository.cache, "endpoint": hub.url}
    theirs = threading.Thread(target=snapshot_download, args=["org/tiny"], kwargs=more)
    theirs.start()
    assert until(lambda: any(line.startswith("HEAD") and "model" in line for line in hub.asked))
    held.released.set()
    ours.join(20)
    theirs.join(20)
    assert hub.fetched.count("model.safetensors") == 1


# ── a full disk ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_disk_without_room_is_refused_before_the_first_byte(hub: Hub, tmp_path: Path) -> None:
    with fetching(hub, tmp_path, before=small_disk("16m", tmp_path)) as process:
        end = told(process)[-1]
    assert end["code"] == "storage_full"
    assert "4.0 MB are missing, and 17 MB are free" in end["error"]
    assert hub.fetched == []
    assert end["left"] == 0


def test_a_disk_that_fills_meanwhile_loses_the_parts(hub: Hub, tmp_path: Path) -> None:
    held = hub.hold("model.safetensors", 1_000_000)
    with fetching(hub, tmp_path, "fill", before=small_disk("72m", tmp_path)) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["bytes"] < 500_000:
            pass  # then it has filled the disk
        held.released.set()
        end = told(process)[-1]
    assert (end["code"], end["parts"]) == ("storage_full", 0)
    assert end["left"] < 10_000, "the configuration, the listing"
