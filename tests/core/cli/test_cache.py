"""`yapit cache`: what takes the space, and what goes."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from core.cli.conftest import BIG, MEGABYTE, Yapit
from hub import Hub

Environ = dict[str, str]
DAY_S = 86_400


def holdings(yapit: Yapit, online: Environ) -> dict[str, dict[str, Any]]:
    found = json.loads(yapit("cache", "--json", **online).stdout)
    assert found["bytes"] == sum(each["bytes"] + each["partial_bytes"] for each in found["holdings"])
    return {each["name"]: each for each in found["holdings"]}


@pytest.fixture
def full(yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path) -> Environ:
    """A machine with two repositories, one of them needed by nobody and old, with a part, and what plugins made."""
    assert yapit("pull", "one", "two", "-q", **online).returncode == 0
    blobs = tmp_path / "hf" / "hub" / "models--org--one" / "blobs"
    (blobs / f"{'0' * 64}.incomplete").write_bytes(bytes(MEGABYTE))
    for folder, name in (("whisper/abc", "model.bin"), ("files/0123456789abcdef", "x.pt"), ("cache", "cache.db")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        (tmp_path / "data" / folder / name).write_bytes(bytes(1000))
    (tmp_path / "models.yaml").write_text("- {id: one, source: org/one, backend: echo, tasks: [embed]}")
    long_ago = time.time() - 40 * DAY_S
    for path in (tmp_path / "hf" / "hub" / "models--org--two").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    return online


def test_what_takes_the_space_is_listed_with_who_needs_it(yapit: Yapit, full: Environ) -> None:
    found = holdings(yapit, full)
    one = found["org/one"]
    assert (one["bytes"], one["partial_bytes"], one["models"]) == (20 * MEGABYTE + 2, MEGABYTE, ["one"])
    assert (found["org/two"]["models"], found["org/two"]["kind"]) == ([], "repository")
    assert {name: each["kind"] for name, each in found.items() if each["kind"] != "repository"} == {
        "whisper/abc": "converted",
        "0123456789abcdef": "file",
        "results": "results",
    }
    lines = yapit("cache", **full).stdout.decode().splitlines()
    assert lines[0].split("\t")[:4] == ["repository", "org/one", "20 MB", "1.0 MB"]
    assert any("org/two" in line and "40 days ago" in line for line in lines)


@pytest.mark.parametrize(
    ("flags", "gone"),
    [
        (("--partials",), {"parts of org/one"}),
        (("--unused",), {"org/two", "0123456789abcdef"}),
        (("--older-than", "30d"), {"org/two"}),
        (("--unused", "--older-than", "30d"), {"org/two"}),
        (("--unused", "--older-than", "50d"), set()),
        (("--unused", "--partials"), {"org/two", "0123456789abcdef", "parts of org/one"}),
    ],
)
def test_what_is_meant_goes_and_nothing_else(
    yapit: Yapit, full: Environ, flags: tuple[str, ...], gone: set[str]
) -> None:
    before = holdings(yapit, full)
    planned = json.loads(yapit("cache", "prune", *flags, "--dry-run", "--json", **full).stdout)
    named = {("parts of " if each["parts_only"] else "") + each["name"] for each in planned["removed"]}
    assert named == gone
    assert holdings(yapit, full).keys() == before.keys()
    done = json.loads(yapit("cache", "prune", *flags, "--yes", "--json", **full).stdout)
    assert done["bytes_freed"] == planned["bytes_freed"]
    after = holdings(yapit, full)
    assert before.keys() - after.keys() == {name for name in gone if not name.startswith("parts")}
    assert (after["org/one"]["partial_bytes"] == 0) == ("parts of org/one" in gone)


def test_what_is_needed_still_works_after_a_prune(yapit: Yapit, hub: Hub, full: Environ) -> None:
    assert yapit("cache", "prune", "--unused", "--partials", "--yes", **full).returncode == 0
    sent = hub.sent[BIG]
    assert yapit("pull", "one", **full).stderr == b"one: here already\n"
    assert hub.sent[BIG] == sent


def test_nobody_is_surprised(yapit: Yapit, full: Environ) -> None:
    before = holdings(yapit, full)
    assert yapit("cache", "prune", **full).returncode == 2
    assert yapit("cache", "prune", "--unused", **full).returncode == 2, "nobody can be asked"
    assert yapit("cache", "prune", "--older-than", "soon", **full).returncode == 2
    assert holdings(yapit, full).keys() == before.keys()
