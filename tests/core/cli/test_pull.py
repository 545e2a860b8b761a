"""`yapit pull`: shown truly, stopped without loss, and each thing that cannot be had in one line."""

import fcntl
import hashlib
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from core.cli.conftest import BIG, MEGABYTE, Yapit
from filehost import body, serve_files
from hub import Generated, Hub, Repo
from live import YAPIT, serve, until
from yapit.cli.views import said
from yapit.settings import Settings
from yapit.store import Store
from yapit.store.downloads import Download

Environ = dict[str, str]
TOTAL = 20 * MEGABYTE + 2


def lines(text: bytes) -> list[str]:
    return text.decode().strip().splitlines()


def snapshots(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "hf" / "hub").glob("models--*") if (path / "snapshots").is_dir())


def kept_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.incomplete"))


# ── what is fetched ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_weights_come_with_plain_lines_and_what_is_here_is_one_line(yapit: Yapit, hub: Hub, online: Environ) -> None:
    done = yapit("pull", "one", "two", **online)
    assert (done.returncode, done.stdout) == (0, b"")
    assert "one: done, 20 MB, 2 files" in lines(done.stderr)
    assert "two: done, 3.0 MB, 2 files" in lines(done.stderr)
    assert len(lines(done.stderr)) <= 4, "a line every few seconds, and not for each step"
    sent = dict(hub.sent)
    again = yapit("pull", "one", **online)
    assert (again.returncode, lines(again.stderr)) == (0, ["one: here already"])
    assert dict(hub.sent) == sent


def test_the_models_of_the_settings_are_fetched_and_the_others_left_out_with_a_line(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    done = yapit("pull", MODELS="two,elsewhere,unserved,echo", **online)
    assert done.returncode == 0
    said = lines(done.stderr)
    assert "elsewhere: skipped: its entry says skip_download" in said
    assert "unserved: skipped: no installed plugin runs its backend 'nobody'" in said
    assert "echo: skipped: it needs no weights" in said
    assert snapshots(tmp_path) == ["models--org--two"]


def test_all_models_are_fetched_and_one_that_fails_stops_no_other(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    done = yapit("pull", "--all", "--quiet", **online)
    assert done.returncode == 1
    assert sorted(line.split(":")[1].strip() for line in lines(done.stderr)) == ["absent", "gated"]
    assert snapshots(tmp_path) == ["models--org--one", "models--org--two"]


@pytest.mark.parametrize("given", [("pull", "oen"), ("pull",)])
def test_an_unknown_model_names_near_ones(yapit: Yapit, online: Environ, given: tuple[str, ...]) -> None:
    done = yapit(*given, **online, **({"MODELS": "oen"} if len(given) == 1 else {}))
    assert done.returncode == 1
    assert lines(done.stderr)[-1].endswith("Did you mean 'one'?")


def test_no_model_at_all_is_misuse(yapit: Yapit, online: Environ) -> None:
    assert yapit("pull", **online).returncode == 2
    assert yapit("pull", "one", "two", "--name", "x", **online).returncode == 2
    assert yapit("pull", "one", "--all", **online).returncode == 2


def test_a_model_that_nobody_runs_is_an_error_when_it_is_named(yapit: Yapit, online: Environ) -> None:
    done = yapit("pull", "unserved", **online)
    assert done.returncode == 1
    assert b"yapit-plugin-nobody" in done.stderr


def test_programs_get_an_object_a_line(yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path) -> None:
    done = yapit("pull", "two", "--json", **online)
    steps = [json.loads(line) for line in lines(done.stdout)]
    assert done.stderr == b""
    assert (steps[-1]["state"], steps[-1]["bytes_done"], steps[-1]["files_total"]) == ("completed", 3 * MEGABYTE + 2, 2)
    assert [step["bytes_done"] for step in steps] == sorted(step["bytes_done"] for step in steps)
    store = Store.of(Settings(data_dir=str(tmp_path / "data")))
    assert [(each.id, each.state) for each in store.downloads()] == [(steps[-1]["id"], "completed")]
    store.close()
    (here,) = lines(yapit("pull", "two", "--json", **online).stdout)
    assert json.loads(here)["state"] == "here"


# ── what cannot be had ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("name", "environ", "words"),
    [
        ("gated", {}, ("accept its terms", "/org/gated")),
        ("absent", {}, ("no repository 'org/absent'",)),
        ("two", {"HF_HUB_OFFLINE": "1"}, ("offline mode (HF_HUB_OFFLINE)",)),
        ("two", {"HF_ENDPOINT": "http://127.0.0.1:9"}, ("cannot be reached",)),
    ],
)
def test_what_cannot_be_had_is_one_line(
    yapit: Yapit, online: Environ, name: str, environ: Environ, words: tuple[str, ...]
) -> None:
    done = yapit("pull", name, **{**online, **environ})
    assert done.returncode == 1
    (line,) = lines(done.stderr)
    assert line.startswith(f"yapit: {name}: ")
    assert all(word in line for word in words)


def test_a_disk_without_room_is_one_line_and_nothing_stays(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").write_text("- {id: huge, source: org/huge, backend: echo, tasks: [embed]}")
    content = Generated(10**15)
    content.__dict__["sha256"] = "0" * 64  # what is never sent need not be made
    hub.repos["models"]["org/huge"] = Repo({BIG: content})  # type: ignore[index]  # the test's own dictionary
    done = yapit("pull", "huge", **online)
    assert done.returncode == 1
    assert "has no room" in lines(done.stderr)[-1]
    assert not list(tmp_path.rglob("*.incomplete"))
    assert hub.sent == {}


def test_a_data_dir_that_cannot_be_written_is_one_line(yapit: Yapit, online: Environ, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = yapit("pull", "two", YAPIT_DATA_DIR="file/data", **online)
    assert done.returncode != 0
    assert len(lines(done.stderr)) == 1
    assert b"file" in done.stderr


# ── stopped in the middle ─────────────────────────────────────────────────────────────────────────────────────────────
def test_ctrl_c_keeps_what_has_come_and_says_how_to_go_on(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    hold = hub.hold(BIG, 12 * MEGABYTE)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("YAPIT_")}
    process = subprocess.Popen([YAPIT, "pull", "one"], cwd=tmp_path, env=clean | online, stderr=subprocess.PIPE)
    assert hold.reached.wait(20)
    assert until(lambda: kept_bytes(tmp_path) == 12 * MEGABYTE)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    hold.released.set()
    assert process.returncode == 130
    assert b"Traceback" not in told
    match = re.search(r"what has come is kept\. To go on: (.+)", told.decode())
    assert match is not None
    command = shlex.split(match[1])
    assert command == ["yapit", "pull", "one"]
    store = Store.of(Settings(data_dir=str(tmp_path / "data")))
    (stopped,) = store.downloads()
    assert stopped.state == "paused"
    before = hub.sent[BIG]
    done = yapit(*command[1:], **online)
    assert done.returncode == 0
    (ended,) = store.downloads()
    assert (ended.id, ended.state) == (stopped.id, "completed")
    store.close()
    assert hub.sent[BIG] < TOTAL * 1.05, f"{before} bytes had come"


def test_what_a_killed_process_left_goes_on_under_its_id(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    hold = hub.hold(BIG, 12 * MEGABYTE)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("YAPIT_")}
    process = subprocess.Popen([YAPIT, "pull", "one", "-q"], cwd=tmp_path, env=clean | online)
    assert hold.reached.wait(20)
    assert until(lambda: kept_bytes(tmp_path) == 12 * MEGABYTE)
    process.kill()
    process.wait(20)
    hold.released.set()
    assert yapit("pull", "two", "-q", **online).returncode == 0
    store = Store.of(Settings(data_dir=str(tmp_path / "data")))
    states = {each.model: each for each in store.downloads()}
    assert (states["one"].state, states["two"].state) == ("downloading", "completed"), "only what was asked for"
    assert yapit("pull", "one", "-q", **online).returncode == 0
    assert [each.id for each in store.downloads() if each.model == "one"] == [states["one"].id]
    store.close()
    assert hub.sent[BIG] < (TOTAL + 3 * MEGABYTE) * 1.05


# ── on a terminal ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_terminal_gets_a_bar_that_ends_full(hub: Hub, online: Environ, tmp_path: Path) -> None:
    hub.drip(BIG, 40 * MEGABYTE)
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("YAPIT_")}
    environ = {**clean, **online, "TERM": "xterm"}
    process = subprocess.Popen([YAPIT, "pull", "one"], cwd=tmp_path, env=environ, stdin=side, stdout=side, stderr=side)
    os.close(side)
    shown = b""
    try:
        while chunk := os.read(main, 65_536):
            shown += chunk
    except OSError:
        pass  # the other side is closed
    os.close(main)
    assert process.wait(20) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    shares = [int(found) for found in re.findall(r"(\d+) % [\d.]+ \w+ of 20 MB, \d of 2 files", text)]
    assert any(0 < share < 100 for share in shares)
    assert shares == sorted(shares)
    assert re.search(r"MB/s, \d+ s left", text)
    assert "100 % done, 20 MB, 2 files" in text
    assert "━" in text


def test_a_line_says_bytes_files_rate_and_the_time_that_is_left() -> None:
    download = Download(
        id="0123abcd",
        node="here",
        model="one",
        state="downloading",
        files_done=1,
        files_total=3,
        bytes_done=1_500_000_000,
        bytes_total=60_000_000_000,
        bytes_per_s=12_000_000.0,
        eta_s=4875.0,
        created_at=0.0,
        updated_at=0.0,
    )
    assert said(download) == "1.5 GB of 60 GB, 1 of 3 files, 12 MB/s, 81 min left"


# ── sources that are registered ───────────────────────────────────────────────────────────────────────────────────────
def test_another_revision_of_a_model_needs_a_name_and_is_registered(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    hub.repos["models"]["org/two"].older = {"v1": {BIG: Generated(MEGABYTE, 7)}}
    (tmp_path / "models.yaml").write_text("[]")
    assert (
        yapit(
            *("models", "register", "two", "--source", "org/two", "--backend", "echo", "--task", "embed"), **online
        ).returncode
        == 0
    )
    refused = yapit("pull", "two", "--revision", "v1", **online)
    assert refused.returncode == 1
    assert b"--name" in refused.stderr
    for expected in ("done, 1.0 MB, 1 file", "here already"):
        done = yapit("pull", "two", "--revision", "v1", "--name", "older", **online)
        assert done.returncode == 0, done.stderr
        assert f"older: {expected}" in lines(done.stderr)
    listed = {entry["id"]: entry for entry in json.loads(yapit("models", "--json", **online).stdout)}
    assert (listed["older"]["weights"], listed["older"]["bytes"]) == ("here", MEGABYTE)
    assert listed["two"]["weights"] == "missing" or listed["two"]["weights"] == "partly"


def test_a_file_of_a_url_is_pulled_once_its_checksum_is_right(yapit: Yapit, online: Environ, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4_000
    right = hashlib.sha256(data).hexdigest()
    online = {**online, "YAPIT_PLUGINS": "hf-generic"}
    environ = {**online, "YAPIT_PROVISIONING_ALLOW_PRIVATE_ADDRESSES": "true"}
    with serve_files() as host:
        host.answers["/dict.safetensors"] = body(data)
        url = host.url("/dict.safetensors")
        pull = ("pull", url, "--name", "dict", "--option", "architecture=resnet18")
        refused = yapit(*pull, **online)
        assert (refused.returncode, refused.stderr.count(b"allow_private_addresses")) == (1, 1)
        wrong = yapit(*pull, "--sha256", "0" * 64, **environ)
        assert (wrong.returncode, wrong.stderr.count(b"checksum (sha256)")) == (1, 1)
        assert yapit("models", "info", "dict", **environ).returncode == 1, "nothing of it stayed"
        done = yapit(*pull, "--sha256", right, **environ)
        assert (done.returncode, lines(done.stderr)[-1]) == (0, "dict: done, 1.0 MB, 1 file")
        again = yapit(*pull, "--sha256", right, **environ)
        assert (again.returncode, lines(again.stderr)) == (0, ["dict: here already"])
        other = yapit(*pull, "--sha256", "0" * 64, **environ)
        assert (other.returncode, other.stderr.count(b"exists already")) == (1, 1)
        assert yapit("models", "rm", "dict", "--yes", **environ).returncode == 0
    assert list((tmp_path / "data" / "files").rglob("*.safetensors")) == []


def test_a_folder_is_registered_where_it_is(yapit: Yapit, online: Environ, tmp_path: Path) -> None:
    online = {**online, "YAPIT_PLUGINS": "hf-generic"}
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8}')
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    done = yapit("pull", str(folder), "--task", "embed", **online)
    assert (done.returncode, lines(done.stderr)) == (0, ["mine: skipped: it needs no weights"])
    told = json.loads(yapit("models", "info", "mine", "--json", **online).stdout)
    assert (told["entry"]["source"], told["entry"]["tasks"]) == (str(folder), ["embed"])
    assert yapit("models", "rm", "mine", "--yes", **online).returncode == 0
    assert (folder / "model.safetensors").is_file(), "what was not fetched is not removed"


def test_what_was_registered_and_cannot_be_had_is_no_model(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").unlink()
    base = ("models", "register", "base", "--source", "org/two", "--backend", "echo", "--task", "embed")
    assert yapit(*base, **online).returncode == 0
    done = yapit("pull", "base", "--name", "mine", "--revision", "nothing", **online)
    assert done.returncode == 1
    assert b"has no revision 'nothing'" in done.stderr
    assert {entry["id"] for entry in json.loads(yapit("models", "--json", **online).stdout)} == {"echo", "base"}


# ── commands that load models themselves, and servers ─────────────────────────────────────────────────────────────────
def test_speak_fetches_what_is_missing_and_says_so(yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path) -> None:
    refused = yapit("speak", "hello", "-m", "one", "-o", "x.wav", AUTO_DOWNLOAD_MODELS="0", **online)
    assert refused.returncode == 1
    assert lines(refused.stderr)[-1].endswith("yapit pull one")
    done = yapit("speak", "hello", "-m", "one", "-o", "x.wav", **online)
    assert done.returncode == 0
    assert "one: done, 20 MB, 2 files" in lines(done.stderr)
    again = yapit("speak", "hello", "-m", "one", "-o", "x.wav", **online)
    assert (again.returncode, again.stderr) == (0, b"")


def test_a_server_that_fetches_nothing_starts_only_with_its_weights_here(
    yapit: Yapit, hub: Hub, online: Environ, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").write_text(
        "- {id: one, source: org/one, backend: echo, tasks: [embed]}\n"
        "- {id: two, source: org/two, backend: echo, tasks: [embed]}\n"
        "- {id: elsewhere, source: org/none, backend: echo, tasks: [embed], options: {skip_download: true}}\n"
    )
    done = yapit("serve", "--port", "0", AUTO_DOWNLOAD_MODELS="0", **online)
    assert done.returncode == 2
    (line,) = lines(done.stderr)
    assert line.endswith("fetch them with: yapit pull one two")
    some = yapit("serve", "--port", "0", AUTO_DOWNLOAD_MODELS="0", MODELS="two", **online)
    assert lines(some.stderr)[-1].endswith("yapit pull two"), "of what is served only"
    assert "GET /api/models/org/one" not in hub.asked
    assert yapit("pull", "two", "-q", **online).returncode == 0
    optional = {"YAPIT_ENGINE_WARM_UP_OPTIONAL": "two", "MODELS": "two", "AUTO_DOWNLOAD_MODELS": "0"}
    with serve(tmp_path, **online, **optional) as server:
        assert "weights_missing" not in server.events
