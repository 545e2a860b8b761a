import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from yapit.errors import ConflictError, NotFoundError
from yapit.settings import Settings
from yapit.store import Download, Registration, Store

ENTRY = {"id": "mine", "backend": "echo", "tasks": ["synthesize"], "options": {"delay_s": 0.5, "nested": {"é": [1]}}}
DOWNLOAD = Download(
    id="00c0ffee",
    node="here",
    model="org/model",
    state="downloading",
    files_done=3,
    files_total=7,
    bytes_done=5_000_000_000,
    bytes_total=9_000_000_000_000,
    bytes_per_s=1234567.875,
    eta_s=0.1,
    commit="a" * 40,
    message="half of it",
    error_code="remote_error",
    error_status=502,
    created_at=1_700_000_000.123456,
    updated_at=1_700_000_001.654321,
    finished_at=1_700_000_002.5,
)


@pytest.fixture
def store(database: Settings) -> Iterator[Store]:
    opened = Store.of(database)
    yield opened
    opened.close()


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "backend": "echo", "tasks": ["embed"], **fields}


# ── registered models ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_new_database_has_nothing(store: Store) -> None:
    assert store.models() == []
    assert store.downloads() == []
    assert store.generation() == 0
    store.forget("00000000")
    with pytest.raises(NotFoundError):
        store.unregister("mine")


def test_a_registered_model_is_kept_whole(store: Store, database: Settings) -> None:
    before = time.time()
    made = store.register(ENTRY)
    assert made.entry == ENTRY
    assert made.id == "mine"
    assert before <= made.created_at == made.updated_at <= time.time()
    assert store.models() == [made]
    store.close()
    again = Store.of(database)
    assert again.models() == [made], "also after a restart"
    again.close()


def test_models_are_listed_oldest_first(store: Store) -> None:
    names = ["b", "a", "C", "org/c"]
    for name in names:
        store.register(entry(name))
    assert [model.id for model in store.models()] == names


def test_a_name_is_taken_once_in_its_case(store: Store) -> None:
    made = store.register(ENTRY)
    with pytest.raises(ConflictError, match="'mine'") as refused:
        store.register(entry("mine"))
    assert refused.value.status == 409
    store.register(entry("Mine"))
    assert [model.id for model in store.models()] == ["mine", "Mine"]
    assert store.models()[0] == made


def test_a_model_is_replaced_where_that_is_wanted(store: Store) -> None:
    made = store.register(ENTRY)
    other = store.register(entry("other"), replace=True)
    new = store.register(entry("mine", context_length=5), replace=True)
    assert new.created_at == made.created_at
    assert new.updated_at >= made.updated_at
    assert store.models() == [new, other]


def test_an_unregistered_model_is_gone_and_its_name_free(store: Store) -> None:
    store.register(ENTRY)
    store.register(entry("other"))
    store.unregister("mine")
    assert [model.id for model in store.models()] == ["other"]
    with pytest.raises(NotFoundError, match="'mine'"):
        store.unregister("mine")
    store.register(ENTRY)


def test_the_generation_grows_with_each_change_and_only_then(store: Store) -> None:
    seen = [store.generation()]
    changes: list[Callable[[], object]] = [
        lambda: store.register(ENTRY),
        lambda: store.register(ENTRY, replace=True),
        lambda: store.register(entry("other")),
        lambda: store.unregister("mine"),
    ]
    for change in changes:
        change()
        seen.append(store.generation())
    assert seen == sorted(set(seen)), "each change is one more"
    with pytest.raises(ConflictError):
        store.register(entry("other"))
    with pytest.raises(NotFoundError):
        store.unregister("mine")
    store.put(DOWNLOAD)
    assert store.generation() == seen[-1], "nothing was changed"


def test_another_store_sees_the_changes(store: Store, database: Settings) -> None:
    other = Store.of(database)
    assert other.generation() == 0
    made = store.register(ENTRY)
    assert other.generation() == store.generation() > 0
    assert other.models() == [made]
    other.unregister("mine")
    assert store.models() == []
    other.close()


def test_of_many_that_register_at_once_each_is_kept_and_one_gets_a_name(store: Store) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(5):
            store.register(entry(f"own-{number}-{turn}"))
            try:
                store.register(entry(f"shared-{turn}"))
                outcomes.append("won")
            except ConflictError:
                outcomes.append("lost")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 35 + ["won"] * 5
    assert len(store.models()) == 45
    assert store.generation() == 45


# ── downloads ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_download_is_kept_to_the_last_digit(store: Store) -> None:
    bare = Download(id="0" * 8, node="here", model="m", state="pending", created_at=1.5, updated_at=2.5)
    store.put(DOWNLOAD)
    store.put(bare)
    assert store.downloads() == [bare, DOWNLOAD]


def test_a_download_put_again_replaces_what_was_known(store: Store) -> None:
    store.put(DOWNLOAD)
    later = msgspec.structs.replace(DOWNLOAD, state="completed", eta_s=None, bytes_done=9_000_000_000_000, message="")
    store.put(later)
    assert store.downloads() == [later]


def test_downloads_are_listed_oldest_first_of_one_machine_or_of_all(store: Store) -> None:
    made = [
        msgspec.structs.replace(DOWNLOAD, id=f"0000000{number}", node=node, created_at=at)
        for number, (node, at) in enumerate([("here", 3.0), ("there", 1.0), ("here", 2.0)])
    ]
    for download in made:
        store.put(download)
    assert store.downloads() == [made[1], made[2], made[0]]
    assert store.downloads("here") == [made[2], made[0]]
    assert store.downloads("nowhere") == []


def test_a_forgotten_download_is_gone(store: Store) -> None:
    store.put(DOWNLOAD)
    store.forget(DOWNLOAD.id)
    store.forget(DOWNLOAD.id)
    assert store.downloads() == []


def test_text_that_no_database_takes_is_kept_as_well_as_can_be(store: Store) -> None:
    store.put(msgspec.structs.replace(DOWNLOAD, message="no \0 file '\udcff' é"))
    store.register(entry("mine", description="a \0 b"))
    assert store.downloads()[0].message == "no  file '?' é"
    assert store.models()[0].entry["description"] == "a \0 b"


# ── what is killed ────────────────────────────────────────────────────────────────────────────────────────────────────
WRITES = """
import sys
import msgspec
from yapit.settings import Settings
from yapit.store import Download, Store

store = Store.of(msgspec.json.decode(sys.argv[1], type=Settings))
for number in range(1_000_000):
    store.register({"id": f"m{number}", "backend": "echo", "tasks": ["embed"], "description": "x" * 10_000})
    store.put(Download(id="0" * 8, node="n", model="m", state="pending", files_done=number, created_at=1, updated_at=1))
    print(number, flush=True)
"""


def test_what_was_kept_is_there_after_a_kill_in_the_middle_of_writing(database: Settings) -> None:
    for enough in (3, 17, 30):
        command = [sys.executable, "-c", WRITES, msgspec.json.encode(database).decode()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            last = 0
            while last < enough:
                last = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            last = max([last, *(int(line) for line in writer.stdout.read().split("\n")[:-1])])
        opened = Store.of(database)
        kept = [registration.id for registration in opened.models()]
        assert kept[: last + 1] == [f"m{number}" for number in range(last + 1)]
        assert len(kept) in (last + 1, last + 2), "the one that it was at may be there; whole"
        assert opened.downloads()[0].files_done in (last, last + 1)
        for name in kept:
            opened.unregister(name)
        assert opened.models() == []
        opened.close()


# ── two processes at once ─────────────────────────────────────────────────────────────────────────────────────────────
OPENS = """
import sys
import msgspec
from yapit.settings import Settings
from yapit.store import Store
from yapit.store.database import Database
from yapit.store.places import Place

settings = msgspec.json.decode(sys.argv[1], type=Settings)
print("ready", flush=True)
sys.stdin.readline()
Database(Place.of(settings)).close()
store = Store.of(settings)
store.register({"id": sys.argv[2], "backend": "echo", "tasks": ["embed"]})
store.close()
"""


def test_processes_that_open_a_new_database_at_once_all_find_its_tables(database: Settings) -> None:
    said = msgspec.json.encode(database).decode()
    openers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPENS, said, f"m{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(5)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    for opener in openers:
        assert opener.communicate(timeout=60)[1] == ""
        assert opener.returncode == 0
    store = Store.of(database)
    assert sorted(model.id for model in store.models()) == [f"m{number}" for number in range(5)]
    assert store.generation() == 5
    store.close()


def test_a_registration_is_data(tmp_path: Path) -> None:
    made = Registration(id="m", entry=ENTRY, created_at=1.0, updated_at=2.0)
    assert msgspec.convert(msgspec.to_builtins(made), Registration) == made
