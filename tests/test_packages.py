"""Each package is built and works alone, from the built files."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "yapit": ROOT / "core",
    "yapit-plugin-espeak": ROOT / "plugins" / "espeak",
    "yapit-plugin-hf-generic": ROOT / "plugins" / "hf-generic",
    "yapit-plugin-kokoro": ROOT / "plugins" / "kokoro",
    "yapit-plugin-whisper": ROOT / "plugins" / "whisper",
    "yapit-plugin-wyoming": ROOT / "plugins" / "wyoming",
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels, each built from the source distribution that was built from the checkout."""
    built = {}
    for name, folder in PACKAGES.items():
        out = tmp_path_factory.mktemp("dist")
        # The build backend of this environment: nothing is downloaded to build.
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        (built[name],) = out.glob("*.whl")
        assert list(out.glob("*.tar.gz"))
    return built


@pytest.mark.parametrize(
    ("name", "licence", "holds"),
    [
        ("yapit", "Apache-2.0", {"yapit/__init__.py", "yapit/py.typed", "yapit/cli/__init__.py"}),
        (
            "yapit-plugin-espeak",
            "GPL-3.0-or-later",
            {"yapit_plugin_espeak/models.yaml", "yapit_plugin_espeak/py.typed"},
        ),
        (
            "yapit-plugin-hf-generic",
            "Apache-2.0",
            {
                "yapit_plugin_hf_generic/models.yaml",
                "yapit_plugin_hf_generic/py.typed",
                "yapit_plugin_hf_generic/generating/adapter.py",
            },
        ),
        (
            "yapit-plugin-kokoro",
            "Apache-2.0",
            {"yapit_plugin_kokoro/models.yaml", "yapit_plugin_kokoro/py.typed", "yapit_plugin_kokoro/adapter.py"},
        ),
        (
            "yapit-plugin-whisper",
            "Apache-2.0",
            {
                "yapit_plugin_whisper/models.yaml",
                "yapit_plugin_whisper/py.typed",
                "yapit_plugin_whisper/engines/native.py",
            },
        ),
        (
            "yapit-plugin-wyoming",
            "Apache-2.0",
            {"yapit_plugin_wyoming/py.typed", "yapit_plugin_wyoming/serving.py"},
        ),
    ],
)
def test_a_wheel_holds_what_it_should(wheels: dict[str, Path], name: str, licence: str, holds: set[str]) -> None:
    with zipfile.ZipFile(wheels[name]) as wheel:
        names = wheel.namelist()
        (path,) = (entry for entry in names if entry.endswith("dist-info/METADATA"))
        metadata = HeaderParser().parsestr(wheel.read(path).decode())
    assert holds <= set(names)
    assert metadata["License-Expression"] == licence
    assert metadata.get_payload()
    assert any("licenses/LICENSE" in entry for entry in names)
    assert not [entry for entry in names if "test" in entry or "__pycache__" in entry]


def test_the_core_needs_no_gpl_package(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["yapit"]) as wheel:
        (path,) = (entry for entry in wheel.namelist() if entry.endswith("METADATA"))
        needed = HeaderParser().parsestr(wheel.read(path).decode()).get_all("Requires-Dist") or []
    assert len(needed) > 10
    assert not [requirement for requirement in needed if "espeak" in requirement]
    assert not [requirement for requirement in needed if requirement.startswith(("torch", "transformers"))]


def test_the_core_alone_and_then_with_the_plugin(wheels: dict[str, Path], tmp_path: Path) -> None:
    """In a fresh environment that sees this one's libraries, but neither checkout nor editable installs."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    site = next((place / "lib").iterdir()) / "site-packages"
    here = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    wanted = tmp_path / "libraries"
    wanted.mkdir()
    for entry in here.iterdir():
        if "yapit" not in entry.name:
            (wanted / entry.name).symlink_to(entry)
    (site / "libraries.pth").write_text(str(wanted))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")

    def yapit(*arguments: str) -> str:
        command = [str(place / "bin" / "python"), "-m", "yapit", *arguments]
        return subprocess.run(
            command, env=environ, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    with zipfile.ZipFile(wheels["yapit"]) as wheel:
        wheel.extractall(site)
    assert [plugin["name"] for plugin in json.loads(yapit("plugins", "--json"))] == ["echo"]
    with zipfile.ZipFile(wheels["yapit-plugin-espeak"]) as wheel:
        wheel.extractall(site)
    listed = json.loads(yapit("plugins", "--json"))
    assert [(plugin["name"], plugin["error"]) for plugin in listed] == [("echo", None), ("espeak", None)]
    yapit("speak", "It works.", "-o", "it.wav")
    assert (tmp_path / "it.wav").stat().st_size > 10_000
