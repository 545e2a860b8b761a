"""Plugins in environments of their own, as the server reads them; installing them is in cli/test_plugins_install.py."""

import json
import shutil
import sys
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import Python
from loops import run
from yapit import Backend, Context, LoadError, Model, environments, hookimpl, settings
from yapit.environments import Description
from yapit.environments.requirements import InstallError, named, requirement, same_yapit
from yapit.executors import executor
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import SYNTHESIZE


def model(name: str, **fields: Any) -> Model:
    return Model(**{"id": name, "backend": name, "tasks": ("synthesize",), **fields})


def described(name: str, **fields: Any) -> Description:
    return Description(**{"name": name, "distribution": f"yapit-plugin-{name}", "version": "1.0", **fields})


def make(data_dir: Path, plugin: Description) -> Path:
    """Put an environment where an installation would; its interpreter leaves a mark if anybody starts it."""
    folder = data_dir / "plugins" / plugin.name
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\ntouch {folder / 'started'}\nexit 1\n")
    python.chmod(0o755)
    (folder / "plugin.json").write_bytes(msgspec.json.encode(plugin))
    return folder


def load(data_dir: Path, allow: list[str] | None = None) -> Plugins:
    return Plugins.load(allow, environments.read(str(data_dir)))


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_without_a_folder_there_are_no_environments(tmp_path: Path) -> None:
    assert environments.read(str(tmp_path / "absent")) == {}
    (tmp_path / "plugins").write_text("a file")
    assert environments.read(str(tmp_path)) == {}


def test_an_environment_answers_as_its_plugin_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = Backend(name="sings", heavy=True)
    plugin = described("sings", hooks=("synthesize",), models=(model("sings", sample_rate=8000),), backends=(heavy,))
    folder = make(tmp_path / "data", plugin)
    monkeypatch.chdir(tmp_path)
    plugins = Plugins.load(None, environments.read("data"))
    (found,) = plugins.models()["sings"]
    assert found == model("sings", sample_rate=8000, python=str(folder / "bin" / "python"))
    assert Path(str(found.python)).is_absolute()
    assert plugins.backends()["sings"] == heavy
    assert plugins.owner(found) == "sings"
    assert plugins.version("sings") == "1.0"
    assert plugins.serves(found)
    assert plugins.serves(model("another", backend="sings"))
    (listed,) = (entry for entry in plugins.listing() if entry.name == "sings")
    assert (listed.version, listed.hooks, listed.models) == ("1.0", ("synthesize",), ("sings",))
    assert (listed.environment, listed.error) == (str(folder), None)
    assert not (folder / "started").exists()


def test_what_is_written_of_an_interpreter_does_not_count(tmp_path: Path) -> None:
    folder = make(tmp_path, described("sings", models=(model("sings", python="/else/where"),)))
    assert load(tmp_path).models()["sings"][0].python == str(folder / "bin" / "python")


def test_what_is_not_an_environment_is_left_alone(tmp_path: Path) -> None:
    folder = make(tmp_path, described("sings"))
    folder.rename(folder.with_name(".half-made"))
    (tmp_path / "plugins" / "notes.txt").write_text("mine")
    assert environments.read(str(tmp_path)) == {}


def test_a_broken_environment_is_a_failed_plugin_and_the_others_work(tmp_path: Path) -> None:
    for name in ("sings", "mute", "absent", "truncated", "old", "renamed", "gone"):
        make(tmp_path, described(name))
    place = tmp_path / "plugins"
    (place / "mute" / "bin" / "python").unlink()
    (place / "absent" / "plugin.json").unlink()
    (place / "truncated" / "plugin.json").write_bytes(b'{"name": "trunc')
    (place / "old" / "plugin.json").write_bytes(b'{"name": "old", "distribution": "d", "version": 7}')
    (place / "renamed").rename(place / "other")
    shutil.rmtree(place / "gone")
    (place / "gone").symlink_to(".nowhere")
    plugins = load(tmp_path)
    errors = {name: str(plugin.error) for name, plugin in plugins.failed.items()}
    reasons = {
        "mute": "interpreter of its environment is gone",
        "absent": "no plugin.json that can be read",
        "truncated": "plugin.json that is not understood",
        "old": "plugin.json that is not understood",
        "other": "that of the plugin 'renamed'",
        "gone": "no plugin.json that can be read",
    }
    assert errors.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in errors[name]
        assert errors[name].endswith(f"try: yapit plugins install {name} --isolated")
    assert set(plugins.apart) == {"sings"}
    assert "echo" in plugins.names


def test_the_allow_list_holds_for_environments(tmp_path: Path) -> None:
    for name in ("sings", "hums"):
        make(tmp_path, described(name, models=(model(name),)))
    (tmp_path / "plugins" / "hums" / "plugin.json").unlink()
    assert [plugin.name for plugin in load(tmp_path, ["echo"]).listing()] == ["echo"]
    some = load(tmp_path, ["sings", "echo"])
    assert list(some.models()) == ["sings", "echo"]
    assert list(load(tmp_path, ["echo", "sings"]).models()) == ["echo", "sings"]
    assert some.failed == {}
    assert set(load(tmp_path, ["hums"]).failed) == {"hums"}


MARKS = "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"
LIST = """
import json, sys
from yapit import environments
from yapit.plugins import Plugins

plugins = Plugins.load(None, environments.read(sys.argv[1]))
print(json.dumps([plugins.names, {plugin.name: plugin.environment for plugin in plugins.listing()}]))
"""


def test_a_plugin_with_an_environment_is_not_imported_here_though_installed(python: Python, tmp_path: Path) -> None:
    info = tmp_path / "site" / "yapit_plugin_sings-0.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: yapit-plugin-sings\nVersion: 0.5\n")
    (info / "entry_points.txt").write_text("[yapit.plugins]\nsings = sings_here\n")
    (tmp_path / "site" / "sings_here.py").write_text(MARKS)
    folder = make(tmp_path, described("sings"))
    names, listed = json.loads(python(LIST, str(tmp_path), site=tmp_path / "site").stdout)
    assert "sings" not in names
    assert listed["sings"] == str(folder)
    assert not (tmp_path / "site" / "imported").exists()
    names, listed = json.loads(python(LIST, str(tmp_path / "none"), site=tmp_path / "site").stdout)
    assert "sings" in names
    assert listed["sings"] is None
    assert (tmp_path / "site" / "imported").exists(), "the plugin that was not imported would have left its mark"


# ── which interpreter ─────────────────────────────────────────────────────────────────────────────────────────────────
class Here:
    """A plugin of this process with one model; it may declare its backend."""

    def __init__(self, backend: str, *, declares: bool) -> None:
        self.backend = backend
        self.declares = declares

    @hookimpl
    def register_models(self) -> list[Model]:
        return [model(f"{self.backend}-here", backend=self.backend)]

    @hookimpl
    def register_backends(self) -> list[Backend]:
        return [Backend(name=self.backend)] if self.declares else []


def test_a_users_entry_finds_the_interpreter_of_its_backend(tmp_path: Path) -> None:
    declared = described("sings", backends=(Backend(name="declared"),), models=(model("m", backend="of-a-model"),))
    python = str(make(tmp_path, declared) / "bin" / "python")
    (tmp_path / "models.yaml").write_text(
        "- {id: a, backend: declared, tasks: [synthesize]}\n"
        "- {id: b, backend: of-a-model, tasks: [synthesize]}\n"
        "- {id: c, backend: sings, tasks: [synthesize]}\n"
        "- {id: d, backend: declared, tasks: [synthesize], python: /opt/python}\n"
        "- {id: e, backend: echo, tasks: [synthesize]}\n"
        "- {id: m, description: changed}\n"
    )
    plugins = load(tmp_path)
    catalog = settings.catalog(Settings(), plugins.models(), tmp_path, plugins.interpreters())
    found = {entry.id: entry.python for entry in catalog}
    wanted = {"a": python, "b": python, "c": python, "d": "/opt/python", "e": None, "m": python, "echo": None}
    assert {name: found[name] for name in wanted} == wanted
    assert catalog["m"].description == "changed"
    assert {plugins.owner(catalog[name]) for name in "abcm"} == {"sings"}


@pytest.mark.parametrize("declares", [True, False])
def test_a_backend_that_this_process_runs_stays_here(tmp_path: Path, declares: bool) -> None:  # noqa: FBT001 - a parameter
    make(tmp_path, described("apart", backends=(Backend(name="both", heavy=True), Backend(name="alone"))))
    plugins = load(tmp_path, ["apart"])
    plugins.register("here", Here("both", declares=declares))
    assert set(plugins.interpreters()) == {"alone", "apart"}
    assert plugins.owner(model("x", backend="both")) == "here"
    python = plugins.interpreters()["alone"]
    assert plugins.owner(model("x", backend="both", python=python)) == "apart"


def test_children_of_this_process_are_not_told_of_environments(tmp_path: Path) -> None:
    make(tmp_path, described("sings"))
    plugins = load(tmp_path, ["sings", "echo"])
    assert plugins.names == ["echo"]
    assert "(installed: echo, sings)" in plugins.unserved(model("nobody"))


# ── what runs there ───────────────────────────────────────────────────────────────────────────────────────────────────
def interpreter(folder: Path, environ: str, before: str = "") -> str:
    """Return an interpreter with this one's packages that sees a further folder of modules."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\n{before}\n{environ} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_an_environment_with_another_yapit_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import yapit\nyapit.__version__ = '0.0.9'\n")
    python = interpreter(tmp_path, f"PYTHONPATH={tmp_path}")

    async def main() -> None:
        runs = executor("process", Plugins.load(["echo"]), Context(device="cpu", data_dir=tmp_path))
        with pytest.raises(LoadError, match=r"has yapit 0\.0\.9, the server 0\.1\.0"):
            await runs.load(SYNTHESIZE, model("m", backend="echo", python=python))

    run(main())


def test_the_packages_of_this_environment_do_not_reach_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the variable nor by the folder in which the server was started."""
    (tmp_path / "psutil.py").write_text("raise ImportError('that of the server')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    python = interpreter(tmp_path, "", before='test -z "$PYTHONPATH" || exit 3')

    async def main() -> None:
        runs = executor("process", Plugins.load(["echo"]), Context(device="cpu", data_dir=tmp_path))
        chosen = model("m", backend="echo", python=python)
        assert await runs.load(SYNTHESIZE, chosen) >= 1
        await runs.unload(SYNTHESIZE, chosen)

    run(main())


# ── what pip is asked for ─────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ("kokoro", "yapit-plugin-kokoro"),
        (" hf-generic ", "yapit-plugin-hf-generic"),
        ("kokoro==1.2", "yapit-plugin-kokoro==1.2"),
        ("kokoro[gpu]>=1", "yapit-plugin-kokoro[gpu]>=1"),
        ("yapit-plugin-kokoro", "yapit-plugin-kokoro"),
        ("Yapit_Plugin_Kokoro~=1.0", "Yapit_Plugin_Kokoro~=1.0"),
        ("acme-yapit", "acme-yapit"),
        ("./kokoro", "./kokoro"),
        (".", "."),
        ("plugins/kokoro", "plugins/kokoro"),
        ("/srv/kokoro", "/srv/kokoro"),
        ("kokoro-1.0-py3-none-any.whl", "kokoro-1.0-py3-none-any.whl"),
        ("kokoro-1.0.tar.gz", "kokoro-1.0.tar.gz"),
        ("https://host/kokoro-1.0.zip", "https://host/kokoro-1.0.zip"),
        ("git+https://host/kokoro.git@v1", "git+https://host/kokoro.git@v1"),
        ("acme @ https://host/acme.whl", "acme @ https://host/acme.whl"),
    ],
)
def test_what_pip_is_asked_for(wanted: str, asked: str) -> None:
    assert requirement(wanted) == asked


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert requirement("~/kokoro") == "/home/me/kokoro"


@pytest.mark.parametrize("wanted", ["", " ", "-r", "--index-url=https://user:hunter2@host/simple", "==1.0", "[gpu]"])
def test_an_option_of_pip_is_no_plugin(wanted: str) -> None:
    with pytest.raises(InstallError, match="a plugin's name, a requirement, a path or a URL") as caught:
        requirement(wanted)
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("yapit-plugin-kokoro>=1", "yapit-plugin-kokoro"),
        ("yapit-plugin-kokoro[gpu]", "yapit-plugin-kokoro"),
        ("/srv/yapit_plugin_kokoro-1.0-py3-none-any.whl", "yapit_plugin_kokoro"),
        ("https://host/yapit_plugin_kokoro-1.0-py3-none-any.whl#sha256=0", "yapit_plugin_kokoro"),
        ("acme @ https://host/other-1.0-py3-none-any.whl", "acme"),
    ],
)
def test_what_a_requirement_names(wanted: str, name: str) -> None:
    assert named(wanted) == name


def test_a_folder_names_nothing() -> None:
    with pytest.raises(InstallError, match="nothing says what is installed"):
        named("./kokoro")


def yapit_from(folder: Path, origin: object) -> PathDistribution:
    info = folder / "yapit-3.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: yapit\nVersion: 3.2\n")
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))
    return PathDistribution(info)


def test_the_yapit_that_runs_is_the_one_that_is_installed(tmp_path: Path) -> None:
    checkout = tmp_path / "my core"
    checkout.mkdir()
    wheel = tmp_path / "yapit-3.2-py3-none-any.whl"
    wheel.touch()
    commit, git = "0" * 40, "https://host/yapit.git"
    cases: list[tuple[object, list[str]]] = [
        (None, ["yapit==3.2"]),
        ({"url": checkout.as_uri(), "dir_info": {"editable": True}}, ["--editable", str(checkout)]),
        ({"url": checkout.as_uri(), "dir_info": {}}, [str(checkout)]),
        ({"url": wheel.as_uri(), "archive_info": {}}, [f"yapit @ {wheel.as_uri()}"]),
        ({"url": "file:///nowhere/yapit.whl", "archive_info": {}}, ["yapit==3.2"]),
        (
            {"url": git, "subdirectory": "core", "vcs_info": {"vcs": "git", "commit_id": commit}},
            [f"yapit @ git+{git}@{commit}#subdirectory=core"],
        ),
    ]
    for number, (origin, arguments) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert same_yapit(yapit_from(folder, origin)) == arguments


# ── on the disk ───────────────────────────────────────────────────────────────────────────────────────────────────────
def new(place: Path, name: str, mark: str) -> Path:
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "mark").write_text(mark)
    return folder


def held(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_an_environment_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    environments.put(new(tmp_path, ".1", "first"), "sings")
    assert (tmp_path / "sings" / "mark").read_text() == "first"
    environments.put(new(tmp_path, ".2", "second"), "sings")
    assert (tmp_path / "sings" / "mark").read_text() == "second"
    assert held(tmp_path) == [".2", "sings"]


def test_what_a_person_put_in_its_place_is_not_replaced(tmp_path: Path) -> None:
    new(tmp_path, "sings", "mine")
    with pytest.raises(OSError, match="sings"):
        environments.put(new(tmp_path, ".1", "first"), "sings")
    assert (tmp_path / "sings" / "mark").read_text() == "mine"
    assert held(tmp_path) == [".1", "sings"]


def test_removing_removes_what_is_ours(tmp_path: Path) -> None:
    place = tmp_path / "plugins"
    environments.put(new(place, ".1", "ours"), "sings")
    elsewhere = new(tmp_path, "elsewhere", "mine")
    (place / "linked").symlink_to(elsewhere)
    (place / "gone").symlink_to(".nowhere")
    new(place, "whole", "a folder")
    for name in ("sings", "linked", "gone", "whole"):
        environments.remove(place / name)
    assert held(place) == []
    assert (elsewhere / "mark").read_text() == "mine"
