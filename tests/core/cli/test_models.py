"""`yapit models`: what is here, all that is known, what goes and what comes, and what a server is asked to do."""

import json
import struct
from pathlib import Path

import pytest

from core.cli.conftest import BIG, MEGABYTE, Yapit
from hub import Hub, Repo
from live import serve

Environ = dict[str, str]
HEAD = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [10, 20], "data_offsets": [0, 800]},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [800, 804]},
    }
).encode()
SAFE = struct.pack("<Q", len(HEAD)) + HEAD + bytes(804)


def listed(yapit: Yapit, online: Environ) -> dict[str, tuple[str, int]]:
    entries = json.loads(yapit("models", "--json", **online).stdout)
    return {entry["id"]: (entry["weights"], entry["bytes"]) for entry in entries}


def test_the_list_says_what_is_here(yapit: Yapit, hub: Hub, online: Environ) -> None:
    assert yapit("pull", "two", "-q", **online).returncode == 0
    assert listed(yapit, online)["one"] == ("missing", 0)
    assert listed(yapit, online)["two"] == ("here", 3 * MEGABYTE + 2)
    assert listed(yapit, online)["echo"] == ("none", 0)
    rows = [line.split("\t") for line in yapit("models", **online).stdout.decode().splitlines()]
    assert {("one", "missing"), ("two", "3.0 MB"), ("echo", "-")} <= {(row[0], row[6]) for row in rows}


def test_what_came_in_parts_is_partly_here_and_what_only_describes_it_is_not(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    blobs = tmp_path / "hf" / "hub" / "models--org--two" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / ("1" * 40)).write_bytes(b"{}")
    assert listed(yapit, online)["two"] == ("missing", 2)
    (blobs / f"{'0' * 64}.incomplete").write_bytes(bytes(1000))
    assert listed(yapit, online)["two"] == ("partly", 1002)


def test_all_that_is_known_of_a_model(yapit: Yapit, hub: Hub, online: Environ) -> None:
    hub.repos["models"]["org/two"].files = {"config.json": b"{}", BIG: SAFE}
    assert yapit("pull", "two", "-q", **online).returncode == 0
    known = json.loads(yapit("models", "info", "two", "--json", **online).stdout)
    assert (known["parameters"], known["plugin"].split()[0], known["registered"]) == (201, "echo", False)
    assert known["weights"]["state"] == "here"
    assert known["weights"]["files"] == 2
    assert len(known["weights"]["commits"]["org/two"]) == 40
    assert known["entry"]["source"] == "org/two"
    assert known["loaded"] is None
    rows = dict(line.split("\t") for line in yapit("models", "info", "two", **online).stdout.decode().splitlines())
    assert rows["parameters"] == "201"
    assert rows["loaded"] == "unknown: no server answers"
    assert yapit("models", "info", "twoo", **online).returncode == 1


def test_a_model_is_registered_fetched_removed_and_gone(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").unlink()
    made = yapit(
        *("models", "register", "mine", "--source", "org/two", "--backend", "echo", "--task", "embed"),
        *("--option", "delay_s=0.5", "--option", "word=text", "--json"),
        **online,
    )
    assert json.loads(made.stdout)["options"] == {"delay_s": 0.5, "word": "text"}
    twice = yapit("models", "register", "mine", "--source", "org/one", "--backend", "echo", "--task", "embed", **online)
    assert (twice.returncode, b"exists already" in twice.stderr) == (1, True)
    assert yapit("pull", "mine", "-q", **online).returncode == 0
    assert json.loads(yapit("models", "info", "mine", "--json", **online).stdout)["registered"] is True
    unasked = yapit("models", "rm", "mine", **online)
    assert unasked.returncode == 2
    assert listed(yapit, online)["mine"][0] == "here"
    gone = yapit("models", "rm", "mine", "--yes", "--json", **online)
    assert json.loads(gone.stdout) == {"model": "mine", "bytes_freed": 3 * MEGABYTE + 2, "unregistered": True}
    assert "mine" not in listed(yapit, online)
    assert not list((tmp_path / "hf" / "hub").glob("models--*"))
    assert yapit("models", "rm", "mine", "--yes", **online).returncode == 1


def test_the_weights_of_a_catalog_model_go_and_it_stays(yapit: Yapit, hub: Hub, online: Environ) -> None:
    assert yapit("pull", "two", "-q", **online).returncode == 0
    assert yapit("models", "rm", "two", "-y", **online).stdout == b"two: 3.0 MB are free now\n"
    assert listed(yapit, online)["two"] == ("missing", 0)
    assert b"none of its weights were here" in yapit("models", "rm", "two", "-y", **online).stdout


@pytest.mark.parametrize("option", ["nothing", "=x"])
def test_an_option_without_a_value_is_misuse(yapit: Yapit, online: Environ, option: str) -> None:
    assert yapit("models", "register", "x", "--source", "org/two", "--option", option, **online).returncode == 2


def test_a_running_server_loads_and_unloads_and_keeps_what_it_has_loaded(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    hub.repos["models"]["org/one"] = Repo({"config.json": b"{}"})  # type: ignore[index]  # the test's own dictionary
    with serve(tmp_path, **online) as server:
        online = {**online, "YAPIT_PORT": server.url.rpartition(":")[2]}
        done = yapit("models", "load", "one", "--task", "embed", **online)
        assert (done.returncode, done.stdout) == (0, b"one: loaded\n")
        assert json.loads(yapit("models", "info", "one", "--json", **online).stdout)["loaded"] == ["embed"]
        refused = yapit("models", "rm", "one", "--yes", **online)
        assert refused.returncode == 1
        assert b"yapit models unload one" in refused.stderr
        assert listed(yapit, online)["one"][0] == "here"
        assert yapit("models", "unload", "one", **online).stdout == b"one: unloaded\n"
        unknown = yapit("models", "load", "oen", **online)
        assert (unknown.returncode, b"Did you mean 'one'" in unknown.stderr) == (1, True)
        assert yapit("models", "rm", "one", "--yes", **online).returncode == 0
    nobody = yapit("models", "load", "one", **online)
    assert (nobody.returncode, b"no server answers" in nobody.stderr) == (1, True)
