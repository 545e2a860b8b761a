"""`yapit plugins install` and `uninstall`: the real pip, into throw-away environments."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import venv
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import yapit
from core.cli.conftest import Yapit
from core.test_environments import described, held, make, model
from live import YAPIT, serve

Installer = Callable[..., subprocess.CompletedProcess[str]]
PINNED = "yapit-test-pinned"
# As many seconds of a tone as the version that it finds says.
SPEAKS = f"""
from yapit import AudioChunk, Backend, Model, Synthesizer, hookimpl

class Speaks(Synthesizer):
    def __init__(self, model, context):
        import {PINNED.replace("-", "_")} as pinned
        self.seconds = pinned.SECONDS

    def synthesize(self, request):
        yield AudioChunk(pcm=b"\\x00\\x20" * 8000 * self.seconds, sample_rate=8000)

@hookimpl
def register_models():
    return [Model(id="NAME", backend="NAME", tasks=("synthesize",), sample_rate=8000)]

@hookimpl
def register_backends():
    return [Backend(name="NAME"), Backend(name="NAME-too")]

@hookimpl
def synthesize(model, context):
    return Speaks(model, context) if model.backend.startswith("NAME") else None
"""
RAISES = "raise OSError('no GPU driver')\n"
ENDS = "import os\nos._exit(7)\n"
MISNAMES = SPEAKS.replace('("synthesize",)', '("synthesise",)')


def wheel(folder: Path, name: str, version: str, source: str, requires: str = "", plugins: str = "") -> Path:
    """Write a wheel of one module, and return where it is."""
    folder.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if plugins:
        entries = "".join(f"{plugin} = {module}\n" for plugin in plugins.split())
        files[f"{info}/entry_points.txt"] = f"[yapit.plugins]\n{entries}"
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def plugin_wheel(folder: Path, name: str, version: str = "1.0", source: str = SPEAKS, requires: str = "") -> Path:
    return wheel(folder, f"yapit-plugin-{name}", version, source.replace("NAME", name), requires, plugins=name)


def pinned_wheels(folder: Path) -> None:
    for seconds in (1, 2):
        wheel(folder, PINNED, f"{seconds}.0", f"SECONDS = {seconds}\n")


def clean(**environ: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("YAPIT_", "MODEL", "PYTHON"))}
    return kept | environ


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return our own lines on standard error; the others are pip's."""
    return [line for line in done.stderr.splitlines() if line.startswith("yapit: ")]


# ── beside yapit ──────────────────────────────────────────────────────────────────────────────────────────────────────
def environment(folder: Path, *without: str) -> Path:
    """Make an environment that borrows this one's libraries and the checkouts, and return its interpreter."""
    place = folder / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    borrowed = folder / "borrowed"
    borrowed.mkdir()
    here = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    for entry in here.iterdir():
        if entry.name.partition("-")[0] not in without and "plugin" not in entry.name:
            (borrowed / entry.name).symlink_to(entry)
    site = next((place / "lib").iterdir()) / "site-packages"
    checkout = Path(str(yapit.__file__)).parents[1]
    (site / "borrowed.pth").write_text(f"{borrowed}\n{checkout}\n")
    return place / "bin" / "python"


@pytest.fixture
def here(tmp_path: Path) -> Installer:
    """Run `yapit plugins` in an environment in which there may be installed, without a package index."""
    python = environment(tmp_path)
    links = tmp_path / "wheels"
    pinned_wheels(links)

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python), "-P", "-m", "yapit", "plugins", *arguments],
            cwd=tmp_path,
            env=clean(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(links), XDG_CACHE_HOME=str(tmp_path / "cache")) | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def listed(installer: Installer) -> dict[str, str | None]:
    """Return the error of each plugin that is listed."""
    return {entry["name"]: entry["error"] for entry in json.loads(installer("--json").stdout)}


def test_a_plugin_is_installed_and_said_to_work(here: Installer, tmp_path: Path) -> None:
    plugin_wheel(tmp_path / "wheels", "sings", requires=f"{PINNED}==1.0")
    done = here("install", "sings")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "sings\t1.0\tsings"
    assert f"{PINNED}-1.0" in done.stdout, "what pip prints is seen"
    assert said(done) == []
    assert listed(here) == {"echo": None, "sings": None}
    again = here("install", "yapit-plugin-sings")
    assert again.stdout.splitlines()[-1] == "sings\t1.0\tsings", "also where pip has nothing to do"


def test_an_upgrade_is_made_when_asked_for(here: Installer, tmp_path: Path) -> None:
    plugin_wheel(tmp_path / "wheels", "sings")
    here("install", "sings")
    newer = plugin_wheel(tmp_path / "wheels", "sings", "1.1")
    assert here("install", "sings").stdout.splitlines()[-1] == "sings\t1.0\tsings"
    assert here("install", "sings", "-U").stdout.splitlines()[-1] == "sings\t1.1\tsings"
    assert here("install", str(newer)).stdout.splitlines()[-1] == "sings\t1.1\tsings", "a path whose wheel is there"


def test_what_no_longer_fits_together_is_a_warning(here: Installer, tmp_path: Path) -> None:
    plugin_wheel(tmp_path / "wheels", "sings", requires=f"{PINNED}==1.0")
    plugin_wheel(tmp_path / "wheels", "hums", requires=f"{PINNED}==2.0")
    assert said(here("install", "sings")) == []
    done = here("install", "hums")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "hums\t1.0\thums"
    (warning,) = said(done)
    assert warning.startswith("yapit: warning: yapit-plugin-sings 1.0")
    assert warning.endswith("With --isolated it would have an environment of its own.")


def test_a_plugin_that_does_not_work_is_one_line(here: Installer, tmp_path: Path) -> None:
    path = plugin_wheel(tmp_path / "wheels", "fails", source=RAISES)
    done = here("install", str(path))
    assert done.returncode == 1
    assert said(done) == ["yapit: the plugin 'fails' is installed and does not work: OSError: no GPU driver"]
    assert listed(here)["fails"] == "OSError: no GPU driver"
    assert here("uninstall", "fails").returncode == 0
    done = here("install", str(plugin_wheel(tmp_path / "wheels", "ends", source=ENDS)))
    assert (done.returncode, said(done)) == (1, ["yapit: Python ended with exit code 7 when it imported the plugin"])
    done = here("install", str(plugin_wheel(tmp_path / "wheels", "misnames", source=MISNAMES)))
    assert done.returncode == 1
    assert "unknown task 'synthesise'" in said(done)[-1]


def test_what_is_no_plugin_is_said_to_be_none(here: Installer, tmp_path: Path) -> None:
    done = here("install", str(wheel(tmp_path / "wheels", "acme", "1.0", "")))
    assert done.returncode == 1
    assert said(done) == ["yapit: 'acme' is installed and brings no plugin; pip uninstall acme removes it"]


def test_when_pip_fails_there_is_one_line_and_no_secret(here: Installer) -> None:
    url = "http://user:hunter2@127.0.0.1:1/yapit_plugin_sings-1.0-py3-none-any.whl"
    for arguments in (("install", "absent"), ("install", url), ("install", f"sings @ {url}")):
        done = here(*arguments, PIP_RETRIES="0")
        assert done.returncode == 1
        (line,) = said(done)
        assert re.fullmatch(r"yapit: pip ended with exit code [12]; what it printed says why", line)
        assert "hunter2" not in done.stdout + done.stderr
    done = here("install", "-r", "requirements.txt")
    assert done.returncode == 2, "an option of pip is none of ours"


def test_without_pip_the_way_to_it_is_named(tmp_path: Path) -> None:
    python = environment(tmp_path, "pip")
    done = subprocess.run(
        [str(python), "-P", "-m", "yapit", "plugins", "install", "sings"],
        cwd=tmp_path,
        env=clean(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert said(done) == [f"yapit: there is no pip beside yapit; try: {python} -m ensurepip"]


def test_a_plugin_that_is_not_allowed_or_not_used_is_pointed_out(here: Installer, tmp_path: Path) -> None:
    plugin_wheel(tmp_path / "wheels", "sings")
    (warning,) = said(here("install", "sings", YAPIT_PLUGINS="echo"))
    assert warning == "yapit: warning: the setting 'plugins' does not name 'sings', so it is not loaded."
    make(tmp_path / "data", described("sings"))
    (warning,) = said(here("install", "sings"))
    assert "'sings' also has an environment of its own, and that one is used" in warning
    assert here("uninstall", "sings").stdout == "uninstalled sings\n", "the environment goes first"
    assert held(tmp_path / "data" / "plugins") == []
    assert "sings" in listed(here)


@pytest.mark.parametrize("name", ["sings", "Yapit_Plugin.Sings"])
def test_a_plugin_is_uninstalled_by_either_name(here: Installer, tmp_path: Path, name: str) -> None:
    plugin_wheel(tmp_path / "wheels", "sings")
    here("install", "sings")
    done = here("uninstall", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "uninstalled sings"
    assert listed(here) == {"echo": None}


def test_what_cannot_be_uninstalled_is_said_in_one_line(here: Installer, tmp_path: Path) -> None:
    (tmp_path / "data" / "plugins" / "sings").mkdir(parents=True)
    done = here("uninstall", "sing")
    assert (done.returncode, said(done)) == (1, ["yapit: there is no such plugin. Did you mean 'sings'?"])
    for name in ("..", "sings/..", "https://user:hunter2@host/x.whl"):
        done = here("uninstall", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert "hunter2" not in done.stderr
    done = here("uninstall", "echo")
    assert done.returncode == 1
    assert said(done) == ["yapit: the plugin 'echo' is a part of yapit and cannot be uninstalled"]
    with zipfile.ZipFile(plugin_wheel(tmp_path / "wheels", "lent")) as archive:
        archive.extractall(tmp_path / "borrowed")
    done = here("uninstall", "lent")
    assert done.returncode == 1
    assert said(done) == ["yapit: pip left 'yapit-plugin-lent' where it is; what it printed says why"]
    assert "lent" in listed(here)
    assert here("uninstall", "sings").returncode == 0, "a broken environment too"
    assert held(tmp_path / "data" / "plugins") == []


# ── in environments of their own ──────────────────────────────────────────────────────────────────────────────────────
def start(folder: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Begin `yapit plugins …` in `folder`; pip finds its wheels beside what it finds elsewhere."""
    links = f"{os.environ.get('PIP_FIND_LINKS', '')} {folder / 'wheels'}".strip()
    return subprocess.Popen(
        [YAPIT, "plugins", *arguments],
        cwd=folder,
        # Half of pip's time goes into compiling what is hardly imported here.
        env=clean(PIP_FIND_LINKS=links, PIP_COMPILE="0", **environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=110)
    return subprocess.CompletedProcess([], process.returncode, out, err)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two plugins that no single environment can hold, installed at the same time."""
    folder = tmp_path_factory.mktemp("apart")
    pinned_wheels(folder / "wheels")
    paths = [
        plugin_wheel(folder / "wheels", name, requires=f"{PINNED}=={version}")
        for name, version in (("sings", "1.0"), ("hums", "2.0"))
    ]
    together = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", *map(str, paths)]
    both = subprocess.run(
        together, env=clean(PIP_FIND_LINKS=str(folder / "wheels")), capture_output=True, text=True, check=False
    )
    assert "ResolutionImpossible" in both.stderr
    for process in [start(folder, "install", str(path), "--isolated") for path in paths]:
        done = ended(process)
        assert done.returncode == 0, done.stderr
    return folder


def seconds_in(speech: bytes) -> int:
    with wave.open(io.BytesIO(speech)) as file:
        rate: int = file.getframerate()
        return round(len(file.readframes(file.getnframes())) / 2 / rate)


def seconds_of(server: str, name: str) -> int:
    """Return how long the model speaks."""
    answer = httpx.post(
        f"{server}/v1/audio/speech", json={"model": name, "input": "x", "response_format": "wav"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return seconds_in(answer.content)


def test_two_plugins_with_conflicting_pins_both_serve(apart: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(apart / "data")
    (tmp_path / "models.yaml").write_text("- {id: mine, backend: hums-too, tasks: [synthesize]}\n")
    # Neither what lies where the server is started nor what its variable names gets into the environments.
    for folder in (tmp_path, tmp_path / "site"):
        folder.mkdir(exist_ok=True)
        (folder / f"{PINNED.replace('-', '_')}.py").write_text("SECONDS = 5\n")
    with serve(tmp_path, PYTHONPATH=str(tmp_path / "site")) as server:
        lengths = {name: seconds_of(server.url, name) for name in ("sings", "hums", "mine")}
        health = httpx.get(f"{server.url}/health").json()
    assert lengths == {"sings": 1, "hums": 2, "mine": 2}
    assert health["failed_plugins"] == []


def test_they_are_listed_with_their_environments(apart: Path) -> None:
    entries = {entry["name"]: entry for entry in json.loads(ended(start(apart, "--json")).stdout)}
    for name in ("sings", "hums"):
        assert entries[name]["environment"] == str(apart / "data" / "plugins" / name)
        assert entries[name]["hooks"] == ["register_backends", "register_models", "synthesize"]
        assert (entries[name]["models"], entries[name]["error"]) == ([name], None)
    assert entries["echo"]["environment"] is None


def test_speech_without_a_server_finds_the_environment_too(apart: Path) -> None:
    done = subprocess.run(
        [YAPIT, "speak", "x", "-m", "hums", "-o", "hums.wav"],
        cwd=apart,
        env=clean(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert seconds_in((apart / "hums.wav").read_bytes()) == 2


def test_an_environment_is_replaced_by_one_that_works_and_by_no_other(apart: Path) -> None:
    place = apart / "data" / "plugins"
    before = held(place)
    bad = plugin_wheel(apart / "bad", "sings", "1.1", f"print('hello')\n{RAISES}")
    done = ended(start(apart, "install", str(bad), "--isolated"))
    assert done.returncode == 1
    assert said(done) == [
        "yapit: the plugin 'sings' does not work in its environment: OSError: no GPU driver",
    ]
    assert held(place) == before
    assert json.loads((place / "sings" / "plugin.json").read_text())["version"] == "1.0"
    good = plugin_wheel(apart / "good", "sings", "1.2", requires=f"{PINNED}==1.0")
    done = ended(start(apart, "install", str(good), "--isolated", "--upgrade"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "sings\t1.2\tsings"
    assert json.loads((place / "sings" / "plugin.json").read_text())["version"] == "1.2"
    assert len(held(place)) == len(before)
    assert held(place) != before, "a new environment, and the old one is gone"


def test_when_pip_fails_no_environment_is_left(tmp_path: Path) -> None:
    done = ended(start(tmp_path, "install", str(tmp_path / "absent-1.0-py3-none-any.whl"), "--isolated"))
    assert done.returncode == 1
    assert said(done) == ["yapit: pip ended with exit code 1; what it printed says why"]
    assert held(tmp_path / "data" / "plugins") == []


WAITS = """
import os

def get_requires_for_build_wheel(config_settings=None):
    with open(os.environ["STARTED"], "w") as started:
        started.write("now")
    open(os.environ["NEVER"]).read()
"""


def test_ctrl_c_leaves_no_environment(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    backend = '[build-system]\nrequires = []\nbuild-backend = "waits"\nbackend-path = ["."]\n'
    (project / "pyproject.toml").write_text(backend)
    (project / "waits.py").write_text(WAITS)
    pipes = {name: str(tmp_path / name.lower()) for name in ("STARTED", "NEVER")}
    for pipe in pipes.values():
        os.mkfifo(pipe)
    process = start(tmp_path, "install", str(project), "--isolated", **pipes)
    assert Path(pipes["STARTED"]).read_text() == "now"
    assert len(held(tmp_path / "data" / "plugins")) == 1
    os.killpg(process.pid, signal.SIGINT)
    done = ended(process)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert held(tmp_path / "data" / "plugins") == []


def test_uninstalling_removes_the_environment(apart: Path) -> None:
    """The last of them: it takes one away."""
    place = apart / "data" / "plugins"
    folder = (place / "hums").resolve()
    assert folder.is_dir()
    done = ended(start(apart, "uninstall", "yapit-plugin-hums"))
    assert (done.returncode, done.stdout) == (0, "uninstalled hums\n")
    assert not folder.exists()
    assert "hums" not in held(place)
    assert "sings" in held(place)


def test_listing_starts_no_interpreter(yapit: Yapit, tmp_path: Path) -> None:
    folder = make(tmp_path / "data", described("sings", models=(model("sings", voices=()),)))
    listed = {entry["name"]: entry for entry in json.loads(yapit("plugins", "--json").stdout)}
    assert listed["sings"]["environment"] == str(folder)
    assert "sings" in yapit("plugins").stdout.decode()
    served = {entry["id"]: entry["state"] for entry in json.loads(yapit("models", "--json").stdout)}
    assert served["sings"] == "available"
    assert not (folder / "started").exists()
    said = yapit("speak", "hi", "-m", "sings", "-o", "hi.wav")
    assert (folder / "started").exists(), "who loads the model starts it"
    assert said.returncode == 1
