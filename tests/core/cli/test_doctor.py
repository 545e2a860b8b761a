"""`yapit doctor`: what is wrong is said, with the mend, and quickly."""

import json
import socket
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from core.cli.conftest import Yapit
from hub import TOKEN, Hub
from live import serve
from yapit.cli.doctor.findings import Finding, examined

Environ = dict[str, str]


@pytest.fixture
def broken(tmp_path: Path) -> Environ:
    """Distributions as pip would have installed them: a plugin that fails, and one whose needs are not met."""
    site = tmp_path / "site"
    for name, entry, needs in (("broken", "yapit_plugin_broken", ""), ("needy", "yapit_plugin_needy", "msgspec<0.1")):
        info = site / f"yapit_plugin_{name}-2.5.dist-info"
        info.mkdir(parents=True)
        requires = f"Requires-Dist: {needs}\n" if needs else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: yapit-plugin-{name}\nVersion: 2.5\n{requires}")
        (info / "entry_points.txt").write_text(f"[yapit.plugins]\n{name} = {entry}\n")
    (site / "yapit_plugin_broken.py").write_text("raise ImportError('libmissing.so is not there')")
    (site / "yapit_plugin_needy.py").write_text("")
    torch = site / "torch-9.9.dist-info"
    torch.mkdir()
    (torch / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    (site / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    return {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def close_next(listener: socket.socket) -> None:
    listener.accept()[0].close()


def found(yapit: Yapit, environ: Environ) -> tuple[dict[str, list[dict[str, Any]]], int]:
    done = yapit("doctor", "--json", **environ)
    checks: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(done.stdout):
        checks.setdefault(each["check"], []).append(each)
    return checks, done.returncode


def test_a_sound_machine_has_no_problem_and_a_line_for_each_check(yapit: Yapit, online: Environ) -> None:
    done = yapit("doctor", **online)
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert done.returncode == 0, done.stdout
    assert [row[1] for row in rows] == [
        *("settings", "python", "torch", "memory", "data_dir", "hub cache", "audio", "packages", "plugins", "models"),
        *("hub", "database", "port"),
    ]
    assert {row[0] for row in rows} <= {"ok", "warning"}
    said = {row[1]: row[2] for row in rows}
    assert "mp3, opus, aac, flac" in said["audio"]
    assert "no token is set" in said["hub"]
    assert "unserved" in said["models"]
    assert "pip install yapit-plugin-nobody" in said["models"]


def test_what_is_broken_is_a_problem_with_its_mend_and_the_rest_is_still_looked_at(
    yapit: Yapit, online: Environ, broken: Environ
) -> None:
    checks, status = found(yapit, {**online, **broken, "YAPIT_PLUGINS": "echo,broken,needy"})
    assert status == 1
    (plugin,) = (each for each in checks["plugins"] if each["state"] == "problem")
    assert "'broken' does not work: ImportError: libmissing.so" in plugin["message"]
    assert "uninstall broken" in plugin["mend"]
    assert any("yapit-plugin-needy needs msgspec<0.1, and" in each["message"] for each in checks["packages"])
    (torch,) = checks["torch"]
    assert torch["state"] == "problem"
    assert "libcudart.so.13" in torch["message"]
    assert checks["port"][0]["state"] == checks["audio"][0]["state"] == "ok"


def test_the_hub_is_reachable_or_not_or_must_not_be_asked_and_no_token_is_shown(
    yapit: Yapit, hub: Hub, online: Environ
) -> None:
    def said(**environ: str) -> dict[str, Any]:
        checks, status = found(yapit, {**online, **environ})
        assert status == 0
        assert TOKEN not in json.dumps(checks)
        return checks["hub"][0]

    assert said(HF_TOKEN=TOKEN)["message"] == f"{hub.url} answers; a token is set"
    away = said(HF_ENDPOINT="http://127.0.0.1:9")
    assert (away["state"], "HF_HUB_OFFLINE=1" in away["mend"]) == ("warning", True)
    hub.ill = True
    assert said()["state"] == "warning"
    asked = len(hub.asked)
    assert said(HF_HUB_OFFLINE="1")["state"] == "ok"
    assert len(hub.asked) == asked


def test_a_port_is_free_or_a_yapits_or_somebody_elses(yapit: Yapit, online: Environ, tmp_path: Path) -> None:
    with serve(tmp_path, **online) as server:
        checks, status = found(yapit, {**online, "YAPIT_PORT": server.url.rpartition(":")[2]})
        assert status == 0
        assert "a yapit 0" in checks["port"][0]["message"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        closer = threading.Thread(target=close_next, args=(taken,))
        closer.start()
        checks, status = found(yapit, {**online, "YAPIT_PORT": str(taken.getsockname()[1])})
        closer.join()
    assert status == 1
    assert (checks["port"][0]["state"], checks["port"][0]["mend"]) == ("problem", "set YAPIT_PORT")


def test_folders_that_cannot_be_written_are_a_problem(yapit: Yapit, online: Environ, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    checks, status = found(yapit, {**online, "YAPIT_DATA_DIR": "file/data", "HF_HOME": str(tmp_path / "file" / "hf")})
    assert status == 1
    assert checks["data_dir"][0]["state"] == checks["hub cache"][0]["state"] == "problem"
    assert "YAPIT_DATA_DIR" in checks["data_dir"][0]["mend"]


@pytest.mark.parametrize(
    ("version", "state", "word"),
    [("0000", "warning", "next start"), ("9999", "problem", "newer"), ("junk", "problem", "")],
)
def test_a_database_of_another_version_is_said_and_not_changed(
    yapit: Yapit, online: Environ, tmp_path: Path, version: str, state: str, word: str
) -> None:
    file = tmp_path / "data" / "yapit.db"
    file.parent.mkdir()
    if version == "junk":
        file.write_bytes(b"this is no database" * 100)
    else:
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE yapit_version (version_num TEXT)")
            connection.execute("INSERT INTO yapit_version VALUES (?)", [version])
        connection.close()
    before = file.read_bytes()
    checks, status = found(yapit, online)
    assert (checks["database"][0]["state"], status) == (state, int(state == "problem"))
    assert word in f"{checks['database'][0]['message']} {checks['database'][0]['mend']}"
    assert file.read_bytes() == before


def test_a_database_that_yapit_made_is_sound(yapit: Yapit, online: Environ) -> None:
    made = ("models", "register", "mine", "--source", "org/two", "--backend", "echo", "--task", "embed")
    assert yapit(*made, **online).returncode == 0
    checks, _ = found(yapit, online)
    assert checks["database"][0]["state"] == "ok"
    assert "newest" in checks["database"][0]["message"]


@pytest.mark.parametrize(
    ("file", "text", "check"),
    [("yapit.yaml", "server: {prot: 1}", "settings"), ("models.yaml", "- {id: x, backnd: echo}", "models")],
)
def test_files_that_are_wrong_are_a_problem(
    yapit: Yapit, online: Environ, tmp_path: Path, file: str, text: str, check: str
) -> None:
    (tmp_path / file).write_text(text)
    checks, status = found(yapit, online)
    assert status == 1
    assert checks[check][0]["state"] == "problem"
    assert checks["audio"][0]["state"] == "ok"


def test_a_device_that_is_not_there_is_a_problem(yapit: Yapit, online: Environ) -> None:
    pytest.importorskip("torch")
    checks, status = found(yapit, {**online, "YAPIT_DEVICE": "cuda:7"})
    assert (status, checks["torch"][0]["state"]) == (1, "problem")


def test_a_check_that_breaks_or_hangs_is_a_finding_and_the_others_are_not_lost() -> None:
    never = threading.Event()

    def broken() -> list[Finding]:
        raise OSError("no such thing")

    def hung() -> list[Finding]:
        never.wait()
        return []

    found = examined({"one": broken, "two": hung, "three": lambda: [Finding("three", "ok", "fine")]}, longest_s=0.5)
    never.set()
    assert [(each.check, each.state) for each in found] == [("one", "problem"), ("two", "problem"), ("three", "ok")]
    assert "OSError: no such thing" in found[0].line
