"""What arrives, how, and that every library reads it."""

import asyncio
import hashlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import (
    constants,
    get_cached_repo_tree,
    scan_cache_dir,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import IncompleteSnapshotError
from msgspec.structs import replace
from structlog.testing import capture_logs

from hub import TOKEN, Content, Generated, Hub, Repo, commit, serve_hub
from yapit.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    LoadError,
    NotFoundError,
    RateLimitError,
    RemoteError,
    StoppedError,
    YapitError,
)
from yapit.hub import Patience, Plan, Progress, Repository, delete, discard, fetch, here, plan, small_files, snapshot
from yapit.hub.layout import part_of
from yapit.hub.refusals import retry_after_s

LARGE = Generated(3_000_000)
FILES: dict[str, Content] = {
    "config.json": b'{"model_type": "tiny"}',
    "tokenizer.json": b"{}",
    "model.safetensors": LARGE,
    "sub/notes.txt": b"",
    "sub/copy.json": b"{}",
}
QUICK = Patience(tries=3, first_s=0.001, most_s=0.001)
Wanted = Callable[..., Repository]
Python = Callable[..., subprocess.CompletedProcess[str]]
TOTAL = sum(len(FILES[name]) for name in ("config.json", "tokenizer.json", "model.safetensors"))


def is_right(folder: Path, files: dict[str, Content] | None = None) -> bool:
    """Tell whether the folder has the files, byte for byte."""
    return all(digest((folder / name).read_bytes()) == digest(body) for name, body in (files or FILES).items())


def digest(body: Content) -> str:
    return body.sha256 if isinstance(body, Generated) else hashlib.sha256(body).hexdigest()


def part(found: Plan, name: str = "model.safetensors") -> Path:
    return part_of(found.repository, next(file for file in found.files if file.name == name))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub({"org/tiny": Repo(FILES)}) as serving:
        yield serving


@pytest.fixture
def parted() -> Iterator[Hub]:
    """A hub whose large files are at another host."""
    with serve_hub({"org/tiny": Repo(FILES)}, redirect=True) as serving:
        yield serving


# ── planning ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_plan_says_what_will_come_and_asks_once(hub: Hub, wanted: Wanted) -> None:
    found = plan(wanted(hub))
    assert [line for line in hub.asked if "/agent-" not in line] == ["GET /api/models/org/tiny"]
    assert found.commit == commit(FILES)
    assert {file.name: file.size_bytes for file in found.files} == {name: len(body) for name, body in FILES.items()}
    weights = next(file for file in found.files if file.name == "model.safetensors")
    assert (weights.etag, weights.sha256) == (LARGE.sha256, LARGE.sha256)
    assert (found.bytes_total, found.bytes_to_fetch, found.bytes_kept) == (TOTAL, TOTAL, 0)
    assert (found.here, found.complete) == (frozenset(), False)


def test_only_what_is_chosen_is_planned_and_fetched(hub: Hub, wanted: Wanted) -> None:
    found = plan(wanted(hub, choose=lambda names: [name for name in names if name.endswith(".json")]))
    folder = fetch(found)
    assert hub.fetched == ["config.json", "tokenizer.json"], "the same content once"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "config.json",
        "sub/copy.json",
        "tokenizer.json",
    ]


@pytest.mark.parametrize(
    ("name", "revision"),
    [("../../out.json", None), ("/etc/out.json", None), ("a//b.json", None), ("ok.json", "../../out"), ("ok", "/out")],
)
def test_names_that_lead_out_of_the_cache_are_refused(
    hub: Hub, wanted: Wanted, tmp_path: Path, name: str, revision: str | None
) -> None:
    hub.repos["models"] = {"org/tiny": Repo({name: b"{}"}, older={"../../out": {"a": b"a"}, "/out": {"a": b"a"}})}
    with pytest.raises(InvalidInputError if revision else RemoteError, match=r"out|b\.json"):
        fetch(plan(wanted(hub, revision=revision)))
    assert not (tmp_path / "cache").exists()


def test_the_core_is_imported_without_the_hub_s_library(python: Python) -> None:
    assert (
        python("import sys, yapit, yapit.plugins, yapit.engine; print('huggingface_hub' in sys.modules)").stdout
        == "False\n"
    )


# ── the cache is the hub's own ────────────────────────────────────────────────────────────────────────────────────────
def test_what_arrives_is_read_by_all_libraries(hub: Hub, wanted: Wanted) -> None:
    repository = wanted(hub)
    folder = fetch(plan(repository))
    cache = str(repository.cache)
    assert is_right(folder)
    asked = len(hub.asked)
    assert snapshot_download("org/tiny", cache_dir=cache, local_files_only=True) == str(folder)
    assert try_to_load_from_cache("org/tiny", "sub/notes.txt", cache_dir=cache) == str(folder / "sub/notes.txt")
    assert {file.path for file in get_cached_repo_tree("org/tiny", cache_dir=cache)} == FILES.keys()
    scanned = scan_cache_dir(cache)
    assert (scanned.warnings, scanned.incomplete_size_on_disk) == ([], 0)
    (repo,) = scanned.repos
    ((revision),) = repo.revisions
    assert (revision.commit_hash, [*revision.refs]) == (commit(FILES), ["main"])
    assert repo.size_on_disk == TOTAL, "the same content is kept once"
    assert all(not (folder / name).readlink().is_absolute() for name in FILES)
    assert len(hub.asked) == asked


def test_what_the_hub_s_library_fetched_is_complete(hub: Hub, wanted: Wanted) -> None:
    repository = wanted(hub)
    folder = snapshot_download("org/tiny", cache_dir=repository.cache, endpoint=hub.url)
    before = len(hub.asked)
    found = plan(repository)
    assert (found.complete, found.bytes_to_fetch) == (True, 0)
    assert fetch(found) == Path(folder)
    assert len(hub.asked) == before + 1, "the listing"


def test_what_we_fetched_is_complete_for_the_hub_s_library(hub: Hub, wanted: Wanted) -> None:
    repository = wanted(hub)
    folder = fetch(plan(repository))
    before = len(hub.fetched)
    assert snapshot_download("org/tiny", cache_dir=repository.cache, endpoint=hub.url) == str(folder)
    assert len(hub.fetched) == before


def test_a_snapshot_of_which_files_are_missing_is_known_to_be_incomplete(hub: Hub, wanted: Wanted) -> None:
    repository = wanted(hub)
    fetch(plan(wanted(hub, choose=lambda names: ["config.json"])))
    with pytest.raises(IncompleteSnapshotError):
        snapshot_download("org/tiny", cache_dir=repository.cache, local_files_only=True)
    assert here(repository) is None
    assert scan_cache_dir(repository.cache).warnings == []


def test_without_links_contents_are_in_the_snapshot_once(
    hub: Hub, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    repository = wanted(hub)
    folder = fetch(plan(repository))
    assert is_right(folder)
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert [*(repository.folder / "blobs").iterdir()] == []
    assert plan(repository).complete
    assert scan_cache_dir(repository.cache).warnings == []


def test_a_branch_leads_to_a_new_commit_only_when_it_is_here(hub: Hub, wanted: Wanted) -> None:
    repository = wanted(hub)
    old = fetch(plan(repository))
    new = {**FILES, "model.safetensors": Generated(3_000_000, seed=1)}
    hub.repos["models"]["org/tiny"].push(new)
    hub.cut("model.safetensors", after=1000, times=None)
    hub.refuse(503, times=None)
    with pytest.raises(RemoteError):
        fetch(plan(repository), patience=QUICK)
    assert here(repository) == old
    hub.troubles.clear()
    folder = fetch(plan(repository))
    assert is_right(folder, new)
    assert here(repository) == folder
    assert is_right(old), "the old one stays"
    assert is_right(fetch(plan(wanted(hub, revision=commit(FILES)))))
    assert here(repository) == folder, "a pinned commit moves no branch"


def test_a_snapshot_that_is_here_is_taken_without_asking_and_updated_on_purpose_only(hub: Hub, wanted: Wanted) -> None:
    repository = wanted(hub)
    old = snapshot(repository)
    hub.repos["models"]["org/tiny"].push({**FILES, "config.json": b'{"new": 1}'})
    hub.asked.clear()
    assert snapshot(repository) == old
    assert hub.asked == []
    new = fetch(plan(repository))
    assert new != old
    assert snapshot(repository) == new


def test_where_nobody_noted_the_files_the_hub_is_asked_for_what_may_be_missing(hub: Hub, wanted: Wanted) -> None:
    repository = wanted(hub)
    folder = snapshot(repository)
    (folder / "config.json").unlink()
    for listing in (repository.folder / "trees").iterdir():
        listing.unlink()
    assert snapshot(repository) == folder
    assert (folder / "config.json").read_bytes() == FILES["config.json"]


def test_small_files_leave_an_older_snapshot_its_branch(
    hub: Hub, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = wanted(hub)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(repository.cache))
    old = snapshot(repository)
    hub.repos["models"]["org/tiny"].push({**FILES, "config.json": b'{"new": 1}'})
    assert small_files("org/tiny", None, ["config.json", "absent.json"]) == {"config.json": b'{"new": 1}'}
    hub.ill = True
    assert small_files("org/tiny", None, ["config.json"]) == {"config.json": FILES["config.json"]}
    assert snapshot(repository) == old
    with pytest.raises(RemoteError, match="the hub refuses them"):
        small_files("org/other", None, ["config.json"])


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_token_stays_with_the_hub(parted: Hub, wanted: Wanted) -> None:
    assert parted.storage is not None
    parted.repos["models"] = {"org/tiny": Repo(FILES, private=True)}
    with capture_logs() as logged:
        parted.cut("model.safetensors", after=100_000)
        folder = fetch(plan(wanted(parted, token=TOKEN)), patience=QUICK)
    assert is_right(folder)
    assert parted.storage.asked.count(f"GET /{LARGE.sha256}") == 2
    assert parted.storage.tokens == []
    assert TOKEN not in str(logged)
    assert TOKEN not in repr(wanted(parted, token=TOKEN))
    assert TOKEN not in repr(plan(wanted(parted, token=TOKEN)))


def test_the_hub_of_the_environment_alone_gets_its_token(
    hub: Hub, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repos["models"] = {"org/tiny": Repo(FILES, private=True)}
    with pytest.raises(NotFoundError, match="HF_TOKEN does not allow"):
        plan(wanted(hub))  # a mirror
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    assert not plan(wanted(hub)).complete
    with pytest.raises(NotFoundError):
        plan(wanted(hub, token=""))


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_is_gated_is_refused_with_the_page_of_its_terms(hub: Hub, wanted: Wanted) -> None:
    hub.repos["models"] = {"org/tiny": Repo(FILES, gated=True)}
    with pytest.raises(ForbiddenError, match=f"accept its terms on the hub.* {hub.url}/org/tiny$") as caught:
        plan(wanted(hub))
    assert caught.value.code == "gated_repository"
    assert is_right(fetch(plan(wanted(hub, token=TOKEN))))
    assert plan(wanted(hub)).complete, "what is here needs no permission"


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, ForbiddenError, "refuses"),
        (403, ForbiddenError, "refuses"),
        (404, NotFoundError, "refuses"),
        (410, NotFoundError, "refuses"),
        (418, RemoteError, "refuses"),
        (429, RateLimitError, "Refused for a test: 429"),
        (503, RemoteError, "refuses"),
    ],
)
@pytest.mark.parametrize("word", ["/resolve/", "/api/"])
def test_a_refusal_is_an_error_of_the_house(
    hub: Hub, wanted: Wanted, word: str, status: int, kind: type[YapitError], says: str
) -> None:
    hub.refuse(status, word, times=None, Retry_After="7")
    with pytest.raises(kind, match=says) as caught:
        fetch(plan(wanted(hub)), patience=QUICK)
    if isinstance(caught.value, RateLimitError):
        assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("more", "says"),
    [({"source": "org/none"}, "no repository 'org/none'"), ({"revision": "v9"}, "has no revision 'v9'")],
)
def test_what_there_is_not_is_not_found(hub: Hub, wanted: Wanted, more: dict[str, str], says: str) -> None:
    with pytest.raises(NotFoundError, match=says):
        plan(wanted(hub, **more))


def test_a_password_in_the_endpoint_is_not_said(wanted: Wanted) -> None:
    repository = Repository(source="org/tiny", endpoint="http://me:secret@127.0.0.1:1")
    with pytest.raises(RemoteError, match=r"the hub at http://127\.0\.0\.1:1 cannot be reached"):
        plan(repository)


def test_offline_mode_asks_nobody(hub: Hub, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConflictError, match="offline mode"):
        plan(wanted(hub))
    with pytest.raises(LoadError, match="offline mode"):
        snapshot(wanted(hub))
    with pytest.raises(LoadError, match="neither a folder nor"):
        snapshot(wanted(hub, "no/such/folder"))
    assert hub.asked == []


# ── trouble that passes ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_hub_that_is_busy_is_asked_again(hub: Hub, wanted: Wanted, status: int) -> None:
    hub.refuse(status, "/resolve/", times=2, Retry_After="3600")
    assert is_right(fetch(plan(wanted(hub)), patience=QUICK)), "and waits no longer than its patience"


def test_a_date_may_say_when_to_try_again() -> None:
    assert retry_after_s("Fri, 01 Jan 2100 00:00:00 GMT") > 1e6  # type: ignore[operator]  # not None
    assert retry_after_s("Sat, 01 Jan 2000 00:00:00 GMT") == 0
    assert [retry_after_s(None), retry_after_s("soon"), retry_after_s("3")] == [None, None, 3]


def test_the_hub_says_how_long_to_wait() -> None:
    patient = Patience(first_s=1)
    assert patient.pause_s(1, 7) == 7
    assert patient.pause_s(1, 1000) == patient.most_s
    assert 0.5 <= patient.pause_s(1, None) <= 1
    assert 8 <= patient.pause_s(5, None) <= 16


@pytest.mark.parametrize("redirected", [False, True])
def test_a_cut_connection_goes_on_where_it_stopped(hub: Hub, parted: Hub, wanted: Wanted, redirected: bool) -> None:  # noqa: FBT001 - a parameter
    serving = parted if redirected else hub
    serving.cut("model.safetensors", after=700_000, times=4)
    assert is_right(fetch(plan(wanted(serving)), patience=QUICK)), (
        "more often than the patience: each brought something"
    )
    assert serving.sent["model.safetensors"] == len(LARGE), "no byte twice"
    ranges = [(start, condition) for name, start, condition in serving.ranges if name == "model.safetensors"]
    condition = f'"s3-{LARGE.sha256[:8]}"' if redirected else f'"{LARGE.sha256}"'
    assert ranges == [(None, None), *((f"bytes={700_000 * times}-", condition) for times in range(1, 5))]


def test_a_hub_that_brings_nothing_is_given_up(hub: Hub, wanted: Wanted) -> None:
    hub.cut("model.safetensors", after=0, times=None)
    found = plan(wanted(hub))
    with pytest.raises(RemoteError, match="cannot be reached"):
        fetch(found, patience=QUICK)
    assert hub.fetched.count("model.safetensors") == QUICK.tries


def test_a_url_of_the_storage_that_expired_is_asked_for_again(parted: Hub, wanted: Wanted) -> None:
    assert parted.storage is not None
    parted.storage.expired = 1
    assert is_right(fetch(plan(wanted(parted)), patience=QUICK))
    parted.storage.expired = 100
    delete(wanted(parted))
    with pytest.raises(RemoteError, match="storage answers 403") as caught:
        fetch(plan(wanted(parted)), patience=QUICK)
    assert "secret" not in str(caught.value), "a signed URL is as good as a key"


def test_a_server_without_ranges_sends_all_again(hub: Hub, wanted: Wanted) -> None:
    hub.ranges_ignored = True
    hub.cut("model.safetensors", after=700_000)
    assert is_right(fetch(plan(wanted(hub)), patience=QUICK))
    assert hub.sent["model.safetensors"] == len(LARGE) + 700_000


def test_a_server_that_sends_other_bytes_than_were_asked_for_is_not_believed(hub: Hub, wanted: Wanted) -> None:
    hub.range_shift = 1000
    hub.cut("model.safetensors", after=700_000)
    assert is_right(fetch(plan(wanted(hub)), patience=QUICK))
    assert hub.fetched.count("model.safetensors") == 3
    assert hub.sent["model.safetensors"] < 2 * len(LARGE), "noticed before they came"


def test_a_connection_that_fell_silent_is_left(hub: Hub, wanted: Wanted) -> None:
    hub.hold("model.safetensors", 1_000_000)
    assert is_right(fetch(plan(wanted(hub)), patience=replace(QUICK, silence_s=0.2)))
    assert [start for name, start, _ in hub.ranges if name == "model.safetensors"] == [None, "bytes=1000000-"]


def test_a_slow_hub_is_waited_for(hub: Hub, wanted: Wanted) -> None:
    hub.drip("model.safetensors", 10_000_000)
    told: list[Progress] = []
    assert is_right(fetch(plan(wanted(hub)), watch=told.append))
    assert hub.fetched.count("model.safetensors") == 1
    assert all(progress.bytes_per_s < 20_000_000 for progress in told)


def test_wrong_bytes_are_fetched_once_more(hub: Hub, wanted: Wanted) -> None:
    hub.spoil("model.safetensors")
    hub.spoil("config.json")
    assert is_right(fetch(plan(wanted(hub)), patience=QUICK))
    assert hub.sent["model.safetensors"] == 2 * len(LARGE)


def test_bytes_that_stay_wrong_are_an_error_and_leave_nothing(hub: Hub, wanted: Wanted) -> None:
    hub.spoil("model.safetensors", times=None)
    found = plan(wanted(hub))
    with pytest.raises(RemoteError, match=r"'model.safetensors' of 'org/tiny' came wrong twice") as caught:
        fetch(found, patience=QUICK)
    assert caught.value.code == "checksum_mismatch"
    assert hub.fetched.count("model.safetensors") == 2
    assert plan(wanted(hub)).bytes_kept == 0
    assert here(wanted(hub)) is None


@pytest.mark.parametrize("kept", [b"wrong" * 1000, b"x" * (len(LARGE) + 1), b"x" * len(LARGE)])
def test_a_wrong_part_is_noticed(hub: Hub, wanted: Wanted, kept: bytes) -> None:
    found = plan(wanted(hub))
    part(found).parent.mkdir(parents=True)
    part(found).write_bytes(kept)
    assert is_right(fetch(found, patience=QUICK))
    assert hub.sent["model.safetensors"] <= 2 * len(LARGE)


def test_a_whole_part_needs_no_request(hub: Hub, wanted: Wanted) -> None:
    found = plan(wanted(hub))
    part(found).parent.mkdir(parents=True)
    part(found).write_bytes(b"".join(LARGE.blocks()))
    assert is_right(fetch(plan(wanted(hub))))
    assert "model.safetensors" not in hub.fetched


def test_a_file_that_the_hub_changed_is_not_mixed(hub: Hub, wanted: Wanted) -> None:
    """The same commit, other bytes: no hub should, and a mirror may."""
    found = plan(wanted(hub))
    part(found).parent.mkdir(parents=True)
    part(found).write_bytes(next(LARGE.blocks()))
    other = {**FILES, "model.safetensors": Generated(3_000_000, seed=2)}
    hub.repos["models"] = {"org/tiny": Repo(other, older={found.commit: other})}
    with pytest.raises(RemoteError, match="came wrong twice"):
        fetch(found, patience=QUICK)
    assert here(wanted(hub)) is None


def test_a_damaged_blob_is_fetched_again(hub: Hub, wanted: Wanted) -> None:
    folder = fetch(plan(wanted(hub)))
    (folder / "model.safetensors").resolve().write_bytes(b"cut short")
    assert here(wanted(hub)) is None
    assert is_right(fetch(plan(wanted(hub))))


# ── stopping and going on ─────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("after", [None, 0, 1_000_000])
def test_a_stop_ends_a_transfer_from_a_silent_hub_and_keeps_the_part(
    hub: Hub, wanted: Wanted, after: int | None
) -> None:
    held = hub.hold("model.safetensors", after)
    with pytest.raises(StoppedError, match="was stopped"):
        fetch(plan(wanted(hub)), stop=held.reached.is_set)
    assert [thread.name for thread in threading.enumerate() if "asyncio" in thread.name] == []
    assert scan_cache_dir(wanted(hub).cache).warnings == []
    found = plan(wanted(hub))
    assert found.bytes_kept <= (after or 0)
    held.released.set()
    sent = hub.sent["model.safetensors"]
    assert is_right(fetch(found))
    assert hub.ranges[-1][1] == (f"bytes={found.bytes_kept}-" if found.bytes_kept else None)
    assert hub.sent["model.safetensors"] >= sent


def test_a_stop_ends_a_pause(hub: Hub, wanted: Wanted) -> None:
    hub.refuse(429, "model.safetensors", times=None, Retry_After="3600")
    with pytest.raises(StoppedError), capture_logs() as logged:
        fetch(plan(wanted(hub)), stop=lambda: any(entry["event"] == "hub_try_again" for entry in logged))
    assert logged[0]["after_s"] > 30


def test_parts_can_be_discarded(hub: Hub, wanted: Wanted) -> None:
    held = hub.hold("model.safetensors", 1_000_000)
    found = plan(wanted(hub))
    with pytest.raises(StoppedError):
        fetch(found, stop=lambda: held.reached.is_set() and part(found).stat().st_size == 1_000_000)
    assert plan(wanted(hub)).bytes_kept == 1_000_000
    assert discard(found) == 1_000_000
    assert plan(wanted(hub)).bytes_kept == 0
    assert discard(wanted(hub, "org/none")) == 0


def test_progress_is_told_and_ends_with_all(hub: Hub, wanted: Wanted) -> None:
    held, told = hub.hold("model.safetensors", 1_000_000), list[Progress]()
    fetch(plan(wanted(hub, choose=lambda names: ["config.json"])))

    def watch(progress: Progress) -> None:
        told.append(progress)
        if progress.bytes_done >= 1_000_000:
            held.released.set()

    fetch(plan(wanted(hub)), watch=watch)
    first, last = told[0], told[-1]
    assert (first.files_done, first.files_total) == (1, len(FILES))
    assert (first.bytes_done, first.bytes_total) == (len(FILES["config.json"]), TOTAL), "what was here is done"
    assert first.eta_s is None
    assert any((told_at.eta_s or 0) > 0 and told_at.bytes_per_s > 0 for told_at in told)
    assert (last.files_done, last.bytes_done, last.eta_s) == (len(FILES), TOTAL, 0)
    assert [each.bytes_done for each in told] == sorted(each.bytes_done for each in told)
    fetch(plan(wanted(hub)), watch=told.append)
    assert (told[-1].files_done, told[-1].bytes_done) == (len(FILES), TOTAL)


def test_it_also_runs_where_an_event_loop_waits(hub: Hub, wanted: Wanted) -> None:
    async def main() -> Path:
        return fetch(plan(wanted(hub)))

    assert is_right(asyncio.run(main()))
