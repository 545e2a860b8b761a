from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from hub import Content, Generated, Hub, Repo, commit, serve_hub
from yapit.errors import StoppedError
from yapit.hub import Repository, cached, delete, discard, fetch, here, plan
from yapit.hub.layout import lock_of
from yapit.hub.parts import try_lock

Wanted = Callable[..., Repository]
OLD: dict[str, Content] = {"config.json": b"{}", "model.safetensors": Generated(300_000)}
NEW: dict[str, Content] = {**OLD, "model.safetensors": Generated(400_000)}
REPOS = {"org/one": Repo(NEW, older={"v1": OLD}), "org/two": Repo({"config.json": b"{}"})}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(REPOS, {"org/one": Repo({"data.zip": b"data"})}) as serving:
        yield serving


def stopped(hub: Hub, repository: Repository) -> Path:
    """Stop a transfer in the middle of its weights, and return their part."""
    held, found = hub.hold("model.safetensors", 200_000), plan(repository)
    part = repository.folder / "blobs" / f"{max((file.etag for file in found.files), key=len)}.incomplete"
    with pytest.raises(StoppedError):
        fetch(found, stop=lambda: held.reached.is_set() and part.stat().st_size == 200_000)
    held.released.set()
    return part


def test_the_cache_is_listed_with_its_parts(hub: Hub, wanted: Wanted, tmp_path: Path) -> None:
    assert cached(tmp_path / "cache") == []
    fetch(plan(wanted(hub, "org/one")))
    fetch(plan(wanted(hub, "org/one", revision="v1")))
    fetch(plan(wanted(hub, "org/one", kind="dataset")))
    model, data = cached(tmp_path / "cache")
    assert (model.source, model.kind, model.size_bytes, model.partial_bytes) == ("org/one", "model", 700_002, 0)
    assert {(each.commit, each.references, each.size_bytes, each.files) for each in model.revisions} == {
        (commit(NEW), ("main",), 400_002, 2),
        (commit(OLD), ("v1",), 300_002, 2),
    }
    assert (data.source, data.kind, data.size_bytes) == ("org/one", "dataset", 4)
    assert data.used_at > 0


def test_parts_alone_are_listed_too(hub: Hub, wanted: Wanted, tmp_path: Path) -> None:
    stopped(hub, wanted(hub, "org/one"))
    (found,) = cached(tmp_path / "cache")
    assert (found.source, found.partial_bytes) == ("org/one", 200_000)
    left = tmp_path / "cache/datasets--org--old/blobs/abc.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left")
    assert [(each.source, each.kind, each.partial_bytes) for each in cached(tmp_path / "cache")][1:] == [
        ("org/old", "dataset", 4)
    ]


def test_deleting_a_revision_keeps_what_others_have(hub: Hub, wanted: Wanted) -> None:
    fetch(plan(wanted(hub, "org/one")))
    fetch(plan(wanted(hub, "org/one", revision="v1")))
    assert delete(wanted(hub, "org/one", revision="v1")) == 300_000
    assert delete(wanted(hub, "org/one", revision="v1")) == 0
    assert plan(wanted(hub, "org/one")).complete
    assert here(wanted(hub, "org/one", revision="v1")) is None
    assert scan_cache_dir(wanted(hub).cache).warnings == []


def test_deleting_a_repository_frees_all_of_it(hub: Hub, wanted: Wanted, tmp_path: Path) -> None:
    fetch(plan(wanted(hub, "org/two")))
    fetch(plan(wanted(hub, "org/one", revision="v1")))
    stopped(hub, wanted(hub, "org/one"))
    assert delete(wanted(hub, "org/one")) == 300_002 + 200_000
    assert [each.source for each in cached(tmp_path / "cache")] == ["org/two"]
    assert delete(wanted(hub, "org/one")) == 0
    assert fetch(plan(wanted(hub, "org/one"))).is_dir()


def test_what_nothing_came_of_leaves_no_trace_when_it_is_discarded(hub: Hub, wanted: Wanted, tmp_path: Path) -> None:
    repository = wanted(hub, "org/one", choose=lambda names: ["model.safetensors"])
    stopped(hub, repository)
    assert discard(repository) == 200_000
    assert cached(tmp_path / "cache") == []
    fetch(plan(wanted(hub, "org/two")))
    assert discard(wanted(hub, "org/two")) == 0
    assert plan(wanted(hub, "org/two")).complete


def test_what_is_being_written_is_not_discarded(hub: Hub, wanted: Wanted) -> None:
    repository = wanted(hub, "org/one")
    part = stopped(hub, repository)
    lock = try_lock(lock_of(repository, part.name.partition(".")[0]))
    assert lock is not None
    assert discard(repository) == 0
    assert part.exists()
    lock.release()
    assert discard(repository) == 200_000
