"""Results on disk: what comes back, what does not, and what happens when the disk or its contents are broken."""

import asyncio
import os
import pickle
import shutil
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import diskcache
import pytest
from structlog.testing import capture_logs

from loops import PATIENCE_S, run
from yapit import (
    AudioChunk,
    Classification,
    Embedding,
    Score,
    Segment,
    TextChunk,
    Usage,
    Word,
)
from yapit.engine.cache import folder
from yapit.engine.cache import results as module
from yapit.engine.cache.folder import Folder, RawDisk, RefusedError
from yapit.engine.cache.results import Results
from yapit.schemas import Chunk

LIMIT = 10_000_000
KEY = bytes(range(32))
LARGE = bytes(100_000)  # a file of its own


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@asynccontextmanager
async def opened(path: Path, limit_bytes: int = LIMIT, largest_bytes: int | None = None) -> AsyncIterator[Results]:
    results = Results(Folder(path, limit_bytes), limit_bytes // 10 if largest_bytes is None else largest_bytes)
    try:
        yield results
    finally:
        await results.close()


def audio(pcm: bytes) -> AudioChunk:
    return AudioChunk(pcm=pcm, sample_rate=8000)


async def pcm_of(results: Results, name: bytes) -> bytes | None:
    found = await results.get(name, AudioChunk)
    return None if found is None else b"".join(chunk.pcm for chunk in found)


def value_files(path: Path) -> list[Path]:
    return list(path.rglob("*.val"))


def taken_bytes(path: Path) -> int:
    """Return what the database and its values take, without the log that SQLite keeps while it works."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and "-" not in file.name)


def break_from(file: Path, start: int) -> None:
    with file.open("r+b") as broken:
        broken.seek(start)
        broken.write(os.urandom(file.stat().st_size - start))


WORDS = (Word(text="héllo", start_s=0.1, end_s=1 / 3, offset=2),)


@pytest.mark.parametrize(
    "items",
    [
        [AudioChunk(pcm=b"\0\xff" * 5, sample_rate=8000, words=WORDS), audio(LARGE)],
        [Segment(text="a\nb", start_s=0.0, end_s=1e-9, words=WORDS, tokens=(1, 2), average_logprob=-0.1)],
        [Embedding(index=0, vector=b"\1\2\3\4", tokens=3), Embedding(index=1, vector=b"", tokens=0)],
        [TextChunk(text="x"), TextChunk(finish_reason="stop", usage=Usage(input_tokens=1, output_tokens=2))],
        [Score(index=0, relevance=0.1, tokens=9)],
        [Classification(index=0, scores=(("a", 0.9), ("b", 0.1)))],
        [],
    ],
)
def test_a_result_comes_back_as_it_was_also_after_a_restart(tmp_path: Path, items: Sequence[Chunk]) -> None:
    async def main() -> None:
        kind = type(items[0]) if items else TextChunk
        async with opened(tmp_path) as results:
            assert await results.get(KEY, kind) is None
            assert not await results.has(KEY)
            results.put(KEY, items)
            assert await results.get(KEY, kind) == items, "asked right after it was put"
            assert await results.has(KEY)
        async with opened(tmp_path) as results:
            assert await results.get(KEY, kind) == items

    run(main())


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "data" / "cache"
        async with opened(path) as results:
            results.put(KEY, [audio(b"ab")])
            await results.has(KEY)
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        path.chmod(0o755)
        async with opened(path) as results:
            assert await results.has(KEY)
            assert stat.S_IMODE(path.stat().st_mode) == 0o700

    run(main())


# ── size ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("size", [2_000, 50_000])
def test_the_longest_unused_go_when_the_folder_is_full(tmp_path: Path, size: int) -> None:
    async def main() -> None:
        limit = 20 * size + 100_000
        count = 3 * limit // size
        async with opened(tmp_path, limit) as results:
            for number in range(count):
                results.put(key(number), [audio(os.urandom(size))])
                assert await results.has(key(0)), "what is used stays"
                assert await results.get(key(0), AudioChunk)
            kept = [number for number in range(count) if await results.has(key(number))]
        assert taken_bytes(tmp_path) <= limit
        assert kept == [0, *range(count - len(kept) + 1, count)], "the newest, and the used one"
        assert len(kept) * size > limit / 3, "no more than had to"

    run(main())


def test_one_large_result_evicts_as_many_small_ones_as_it_takes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, 1_000_000) as results:
            for number in range(100):
                results.put(key(number), [audio(os.urandom(9_000))])
            results.put(KEY, [audio(os.urandom(95_000))])
            assert await results.has(KEY)
            kept = [number for number in range(100) if await results.has(key(number))]
            assert kept == list(range(100 - len(kept), 100))
            assert 50 < len(kept) < 95
        assert taken_bytes(tmp_path) <= 1_000_000

    run(main())


def test_a_result_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, 1_000_000) as results:
            results.put(key(1), [audio(bytes(60_000)), audio(bytes(60_000))])
            results.put(key(2), [audio(bytes(60_000))])
            assert [await results.has(key(number)) for number in (1, 2)] == [False, True]

    run(main())


def test_a_limit_below_what_an_empty_folder_takes_keeps_nothing_and_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, 1, largest_bytes=1_000) as results:
            for number in range(3):
                results.put(key(number), [audio(b"ab")])
            await results.has(KEY)
            assert await results.get(key(1), AudioChunk) is None

    run(main())


# ── broken entries ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "gone", "swapped"])
def test_a_broken_entry_is_as_if_it_were_not_there_and_can_be_put_again(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with opened(tmp_path) as results:
            results.put(KEY, [audio(LARGE)])
            await results.has(KEY)
            (file,) = value_files(tmp_path)
            content = file.read_bytes()
            if how == "gone":
                file.unlink()
            elif how == "swapped":
                results.put(key(2), [audio(LARGE[:-1] + b"x")])
                await results.has(KEY)
                (other,) = set(value_files(tmp_path)) - {file}
                file.write_bytes(other.read_bytes())
            else:
                damage = {"cut": content[:-1], "flipped": content[:-1] + b"\1", "empty": b""}
                file.write_bytes(damage[how])
            with capture_logs() as lines:
                assert await results.get(KEY, AudioChunk) is None
            assert [line["event"] for line in lines] == ([] if how == "gone" else ["cache_entry_broken"])
            results.put(KEY, [audio(LARGE)])
            assert await pcm_of(results, KEY) == LARGE

    run(main())


def test_what_is_of_another_kind_is_not_taken_for_a_result(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as results:
            results.put(KEY, [TextChunk(text="no audio")])
            with capture_logs() as lines:
                assert await results.get(KEY, AudioChunk) is None
                assert not await results.has(KEY)
            assert [line["event"] for line in lines] == ["cache_entry_broken"]

    run(main())


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.parametrize("large", [False, True])
def test_a_pickle_in_the_folder_is_refused_and_not_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    large: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    path, crater = tmp_path / "cache", tmp_path / "crater"
    monkeypatch.setenv("BOMB", str(crater))
    # As somebody may plant it who can write to the folder.
    with diskcache.Cache(str(path), disk_min_file_size=0 if large else 1 << 15) as planted:
        planted.set(KEY, Bomb())
        assert len(value_files(path)) == large

    async def main() -> None:
        async with opened(path) as results:
            with capture_logs() as lines:
                assert await results.get(KEY, AudioChunk) is None
            assert [line["event"] for line in lines] == ["cache_entry_broken"]
            results.put(KEY, [audio(b"ab")])
            assert await pcm_of(results, KEY) == b"ab"

    run(main())
    assert not crater.exists()
    pickle.loads(pickle.dumps(Bomb()))  # noqa: S301 - shows that it would have gone off
    assert crater.exists()


def test_the_disk_takes_bytes_and_nothing_else(tmp_path: Path) -> None:
    disk = RawDisk(str(tmp_path), min_file_size=10, pickle_protocol=5)
    for refused in ("text", 1, 1.5, None, ["list"], bytearray(b"x")):
        with pytest.raises(RefusedError):
            disk.put(refused)
        with pytest.raises(RefusedError):
            disk.store(refused, read=False)
    with (tmp_path / "x").open("wb+") as file, pytest.raises(RefusedError):
        disk.store(file, read=True)
    with pytest.raises(RefusedError):
        disk.get(pickle.dumps("x"), raw=0)
    for mode in (3, 4, 0):
        with pytest.raises(RefusedError):
            disk.fetch(mode, None, pickle.dumps("x") if mode else "text", read=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_a_chunk_that_cannot_be_written_is_not_kept_and_harms_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as results:
            with capture_logs() as lines:
                results.put(KEY, [TextChunk(text=object())])  # type: ignore[arg-type]  # as an adapter may do it
                assert not await results.has(KEY)
            assert [line["event"] for line in lines] == ["cache_entry_unwritable"]
            results.put(KEY, [audio(b"ab")])
            assert await results.has(KEY)

    run(main())


# ── a broken folder ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("name", "events"), [("cache.db", ["cache_begun_anew"]), ("cache.db-wal", [])])
def test_a_database_that_is_none_is_begun_anew(tmp_path: Path, name: str, events: list[str]) -> None:
    async def main() -> None:
        (tmp_path / name).write_bytes(b"this is no database, and it is longer than a header" * 50)
        async with opened(tmp_path) as results:
            with capture_logs() as lines:
                results.put(KEY, [audio(b"ab")])
                assert await pcm_of(results, KEY) == b"ab"
            assert [line["event"] for line in lines] == events

    run(main())


@pytest.mark.parametrize("intact_bytes", [100, 4096, 40_960])
def test_a_database_with_broken_pages_is_begun_anew(tmp_path: Path, intact_bytes: int) -> None:
    async def main() -> None:
        async with opened(tmp_path) as results:
            for number in range(200):
                results.put(key(number), [audio(bytes(20_000))])
        break_from(tmp_path / "cache.db", intact_bytes)
        async with opened(tmp_path) as results:
            with capture_logs() as lines:
                for number in range(200):
                    assert await pcm_of(results, key(number)) in (bytes(20_000), None)
                results.put(KEY, [audio(b"ab")])
                assert await pcm_of(results, KEY) == b"ab"
            assert "cache_begun_anew" in {line["event"] for line in lines}
            assert "cache_failed" not in {line["event"] for line in lines}

    run(main())


def test_a_folder_that_is_taken_away_while_it_is_used_costs_nothing_but_the_results(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "cache") as results:
            results.put(key(1), [audio(LARGE)])
            await results.has(KEY)
            shutil.rmtree(tmp_path / "cache")
            with capture_logs():
                assert await results.get(key(1), AudioChunk) is None
                results.put(key(2), [audio(LARGE)])
                assert await pcm_of(results, key(2)) in (LARGE, None)
        async with opened(tmp_path / "cache") as results:
            results.put(key(3), [audio(LARGE)])
            assert await pcm_of(results, key(3)) == LARGE

    run(main())


def test_a_folder_that_cannot_be_is_reported_once_and_everything_works_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        (tmp_path / "file").write_text("")
        async with opened(tmp_path / "file" / "cache") as results:
            with capture_logs() as lines:
                for number in range(5):
                    monkeypatch.setattr(results, "_again", 0.0)  # as if the pause were over
                    results.put(key(number), [audio(b"ab")])
                    assert await results.get(key(number), AudioChunk) is None
            assert [line["event"] for line in lines] == ["cache_failed"]

    run(main())


def test_a_folder_that_failed_is_left_alone_for_a_while_and_then_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        blocker = tmp_path / "file"
        blocker.write_text("")
        async with opened(blocker / "cache") as results:
            with capture_logs() as lines:
                assert not await results.has(KEY)
                blocker.unlink()
                results.put(KEY, [audio(b"ab")])
                assert not await results.has(KEY), "not yet"
                assert not blocker.exists()
                monkeypatch.setattr(results, "_again", 0.0)
                results.put(KEY, [audio(b"ab")])
                assert await results.has(KEY)
                blocker.chmod(0o700)
                results._fail("again")
            assert [line["event"] for line in lines] == ["cache_failed", "cache_failed"]

    run(main())


def test_a_folder_that_is_locked_by_another_process_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(folder, "_LOCKED_S", 0.01)
        async with opened(tmp_path) as results:
            results.put(KEY, [audio(b"ab")])
            await results.has(KEY)
            other = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with capture_logs() as lines:
                assert await results.get(KEY, AudioChunk) is None
            assert [line["event"] for line in lines] == ["cache_failed"]
            other.execute("ROLLBACK")
            other.close()
            monkeypatch.setattr(results, "_again", 0.0)
            assert await pcm_of(results, KEY) == b"ab"

    run(main())


class StuckFolder(Folder):
    """A folder on a disk that does not answer."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, LIMIT)
        self.go_on = threading.Event()

    def get(self, key: bytes) -> bytes | None:
        assert self.go_on.wait(PATIENCE_S)
        return super().get(key)


def test_a_disk_that_does_not_answer_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
        stuck = StuckFolder(tmp_path)
        results = Results(stuck, LIMIT)
        with capture_logs() as lines:
            assert await results.get(KEY, AudioChunk) is None
            assert await results.get(KEY, AudioChunk) is None
            results.put(KEY, [audio(b"ab")])
        assert [line["event"] for line in lines] == ["cache_failed"]
        stuck.go_on.set()
        await results.close()

    run(main())


def test_a_disk_that_falls_behind_gets_no_more_than_memory_is_for(tmp_path: Path) -> None:
    async def main() -> None:
        stuck = StuckFolder(tmp_path)
        results = Results(stuck, 300_000)
        waiting = asyncio.create_task(results.get(KEY, AudioChunk))
        await asyncio.sleep(0)
        for number in range(10):
            results.put(key(number), [audio(LARGE)], len(LARGE))
        stuck.go_on.set()
        assert await waiting is None
        assert [await results.has(key(number)) for number in range(10)] == [True] * 4 + [False] * 6
        results.put(key(9), [audio(LARGE)], len(LARGE))
        assert await results.has(key(9))
        await results.close()

    run(main())


def test_a_reader_that_leaves_while_the_disk_works_disturbs_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        stuck = StuckFolder(tmp_path)
        results = Results(stuck, LIMIT)
        leaving = asyncio.create_task(results.get(KEY, AudioChunk))
        results.put(KEY, [audio(b"ab")])
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        stuck.go_on.set()
        assert await pcm_of(results, KEY) == b"ab"
        await results.close()

    run(main())


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_was_put_before_the_end_is_written_and_nothing_after_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as results:
            for number in range(20):
                results.put(key(number), [audio(LARGE)])
        await results.close()
        results.put(KEY, [audio(b"ab")])
        assert await results.get(KEY, AudioChunk) is None
        async with opened(tmp_path) as results:
            assert all([await results.has(key(number)) for number in range(20)])
            assert not await results.has(KEY)

    run(main())


def test_results_that_nobody_asked_for_leave_no_folder_and_no_thread(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "cache"):
            pass

    run(main())
    assert not (tmp_path / "cache").exists()
