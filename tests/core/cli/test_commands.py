"""The other commands: what is installed, what is served, what is set."""

import json
import os
import pty
import signal
import socket
import subprocess
from pathlib import Path

import jsonschema
import pytest

from core.cli.conftest import Yapit
from live import YAPIT, serve

BROKEN = """
from pathlib import Path
raise ImportError("libmissing.so is not there")
"""


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """An environment with a plugin that fails to import, as pip would have installed it."""
    site = tmp_path / "site"
    info = site / "yapit_plugin_broken-2.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: yapit-plugin-broken\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[yapit.plugins]\nbroken = yapit_plugin_broken\n")
    (site / "yapit_plugin_broken.py").write_text(BROKEN)
    return {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_a_plugin_that_fails_is_listed_and_the_others_work(yapit: Yapit, broken: dict[str, str]) -> None:
    listed = {entry["name"]: entry for entry in json.loads(yapit("plugins", "--json", **broken).stdout)}
    keys = {"name", "version", "environment", "hooks", "models", "error"}
    assert all(set(entry) == keys for entry in listed.values())
    assert listed["broken"] == {
        "name": "broken",
        "version": "2.5",
        "environment": None,
        "hooks": [],
        "models": [],
        "error": "ImportError: libmissing.so is not there",
    }
    assert listed["espeak"]["hooks"] == ["register_backends", "register_models", "synthesize"]
    assert listed["espeak"]["models"] == ["espeak"]
    assert listed["echo"]["error"] is None
    plain = yapit("plugins", **broken)
    assert b"libmissing" in plain.stdout
    assert b"Traceback" not in plain.stdout + plain.stderr
    assert b"Traceback" in yapit("plugins", "-v", **broken).stderr
    assert yapit("speak", "hi", "-o", "hi.wav", **broken).returncode == 0


def test_the_allow_list(yapit: Yapit, broken: dict[str, str]) -> None:
    listed = json.loads(yapit("plugins", "--json", YAPIT_PLUGINS="espeak,echo", **broken).stdout)
    assert [entry["name"] for entry in listed] == ["echo", "espeak"]


def test_models_with_their_state(yapit: Yapit, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        "- {name: my-whisper, hf_repo_id: openai/whisper-tiny, handler: WhisperASR}\n"
        "- {name: elsewhere, hf_repo_id: gpt-5, handler: OpenAIChatProxyModel}"
    )
    rows = [line.split("\t")[:6] for line in yapit("models").stdout.decode().splitlines()]
    assert ["my-whisper", "transcribe", "whisper", "", "openai/whisper-tiny", "available"] in rows
    assert ["elsewhere", "generate", "openai", "", "gpt-5", "unserved"] in rows
    assert any(row[0] == "espeak" and int(row[3]) > 120 and row[5] == "available" for row in rows)
    some = json.loads(yapit("models", "--json", "--task", "transcribe", YAPIT_PLUGINS="echo").stdout)
    assert {entry["id"] for entry in some} == {"my-whisper", "echo"}


def test_a_model_that_cannot_be_described_is_listed_and_the_list_stays_json(yapit: Yapit, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "models.yaml").write_text(f"- {{id: broken, source: {tmp_path}/broken}}")
    done = yapit("models", "--json", YAPIT_PLUGINS="hf-generic")
    (entry,) = (entry for entry in json.loads(done.stdout) if entry["id"] == "broken")
    assert (entry["tasks"], entry["backend"]) == ([], "hf-generic")
    assert b"model_unknown" in done.stderr


def test_an_unknown_model_in_models_stops_the_start_with_one_line(yapit: Yapit) -> None:
    done = yapit("serve", "--port", "0", MODELS="esspeak")
    assert done.returncode == 2
    assert done.stderr.decode().strip().splitlines()[-1].startswith("yapit: MODELS names 'esspeak'")
    assert b"'espeak'" in done.stderr


def test_config_says_what_is_set_and_by_what(yapit: Yapit, tmp_path: Path) -> None:
    (tmp_path / "yapit.yaml").write_text("server: {port: 9000}\nspeech: {max_input_chars: 10}\n")
    rows = [line.split("\t") for line in yapit("config", YAPIT_PORT="9001").stdout.decode().splitlines()]
    found = {row[0]: (row[1], row[2]) for row in rows}
    assert found["server.port"] == ("9001", "YAPIT_PORT")
    assert found["speech.max_input_chars"][0] == "10"
    assert found["speech.max_input_chars"][1].endswith("yapit.yaml")
    assert found["server.host"] == ('"127.0.0.1"', "default")
    secret = yapit("config", "--json", YAPIT_API_KEYS="hunter2").stdout
    assert b"hunter2" not in secret


def test_the_schema_describes_the_file(yapit: Yapit) -> None:
    schema = json.loads(yapit("config", "schema").stdout)
    jsonschema.validate({"server": {"port": 1}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"server": {"port": 70_000}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"server": {"prot": 1}}, schema)


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"YAPIT_CONFIG": "absent.yaml"}, "there is no file 'absent.yaml'"),
        ({"YAPIT_PROT": "1"}, "YAPIT_PROT sets nothing. Did you mean 'YAPIT_PORT'"),
        ({"YAPIT_HOST": "192.0.2.1"}, "set server.api_keys"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_2(yapit: Yapit, environ: dict[str, str], line: str) -> None:
    done = yapit("serve", **environ)
    assert done.returncode == 2
    assert line in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_key_is_refused_with_its_path(yapit: Yapit, tmp_path: Path) -> None:
    (tmp_path / "yapit.yaml").write_text("server: {prot: 1}\n")
    done = yapit("config")
    assert done.returncode == 2
    assert b"$.server.prot" in done.stderr


def test_a_port_in_use_is_one_line(yapit: Yapit) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = yapit("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert b"cannot listen on 127.0.0.1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_cleanly(tmp_path: Path, name: signal.Signals) -> None:
    with serve(tmp_path) as server:
        server.process.send_signal(name)
        assert server.process.wait(20) == 0
    assert "serving" in server.events


def test_help_names_every_command(yapit: Yapit) -> None:
    text = yapit("--help").stdout.decode()
    assert all(name in text for name in ("serve", "speak", "models", "plugins", "config"))
    assert yapit("--version").stdout.startswith(b"yapit")


def test_a_pipe_that_closes_is_no_traceback(tmp_path: Path) -> None:
    command = f"{YAPIT} speak --voices | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, cwd=tmp_path, timeout=30, check=False)
    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == 1


def test_on_a_terminal_there_is_a_table_and_audio_is_not_thrown_at_it(tmp_path: Path) -> None:
    def on_terminal(*arguments: str) -> str:
        main, side = pty.openpty()
        process = subprocess.Popen([YAPIT, *arguments], stdout=side, stderr=side, stdin=side, cwd=tmp_path)
        os.close(side)
        shown = b""
        try:
            while chunk := os.read(main, 65_536):
                shown += chunk
        except OSError:
            pass  # the other side is closed
        process.wait(20)
        os.close(main)
        return shown.decode()

    assert "version" in on_terminal("plugins")
    assert "Say where the audio goes" in " ".join(on_terminal("speak", "hi").split())


def test_ctrl_c_in_the_middle_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("[{id: stuck, backend: echo, tasks: [synthesize], options: {delay_s: 60}}]")
    process = subprocess.Popen(
        [YAPIT, "speak", "x" * 100, "-m", "stuck", "-o", "out.wav"], cwd=tmp_path, stderr=subprocess.PIPE
    )
    partial = tmp_path / ".out.wav.part"
    while not partial.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["models.yaml"]
