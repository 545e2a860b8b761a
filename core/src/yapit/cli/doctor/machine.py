"""The machine: Python, torch and its device, memory, disks, codecs."""

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import msgspec
from msgspec import Struct

from yapit import __version__
from yapit.cli.doctor.findings import Finding, State
from yapit.errors import YapitError
from yapit.quantities import written
from yapit.settings import Settings

_TORCH_S = 45.0
_ASK_TORCH = """
import json, torch
cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"cuda": cuda, "mps": torch.backends.mps.is_available()}))
"""
_LITTLE_DISK, _NO_DISK = 5_000_000_000, 500_000_000  # bytes
_LITTLE_MEMORY, _NO_MEMORY = 1_000_000_000, 200_000_000  # bytes
_SAMPLE_RATE = 24_000


class _Devices(Struct):
    cuda: list[str]
    mps: bool


def python() -> Iterator[Finding]:
    """Say which Python runs this; one that is too old could not."""
    yield Finding("python", "ok", f"yapit {__version__} in Python {platform.python_version()} ({sys.executable})")


def torch(settings: Settings) -> Iterator[Finding]:
    """Say whether torch works, asked in a process of its own, and whether it has the device of the settings."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        yield Finding("torch", "ok", "not installed; plugins that need it bring it")
        return
    command = [sys.executable, "-c", _ASK_TORCH]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TORCH_S, check=False)  # noqa: S603 - ours
        found = msgspec.json.decode(done.stdout, type=_Devices) if done.returncode == 0 else None
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    except (subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        found, said = None, [type(error).__name__]
    if found is None:
        mend = "try: pip install --force-reinstall torch"
        yield Finding("torch", "problem", f"torch {version} is installed and cannot be imported: {said[0]}", mend)
        return
    yield _device(settings.device, version, found)


def _device(wanted: str, version: str, found: _Devices) -> Finding:
    there = [f"cuda:{index} ({name})" for index, name in enumerate(found.cuda)] + (["mps"] if found.mps else [])
    message = f"torch {version} with {', '.join(there) or 'the CPU alone'}"
    index = int(wanted.partition(":")[2] or 0) if wanted.partition(":")[2].isdigit() or wanted == "cuda" else 0
    missing = (wanted.startswith("cuda") and index >= len(found.cuda)) or (wanted == "mps" and not found.mps)
    if missing:
        mend = "set device to auto or cpu, or install the driver and a torch for it"
        return Finding("torch", "problem", f"{message}, and the setting device is '{wanted}'", mend)
    return Finding("torch", "ok", f"{message}; the setting device is '{wanted}'")


def memory() -> Iterator[Finding]:
    """Say how much memory is free."""
    import psutil

    found = psutil.virtual_memory()
    state = _enough(found.available, _LITTLE_MEMORY, _NO_MEMORY)
    mend = None if state == "ok" else "unload models, or end other programs"
    yield Finding("memory", state, f"{written(found.available)} of {written(found.total)} are free", mend)


def disks(settings: Settings) -> Iterator[Finding]:
    """Say how much room there is for what yapit keeps and for weights, and whether both can be written."""
    from huggingface_hub import constants

    yield _disk("data_dir", Path(settings.data_dir).absolute(), "name another folder: YAPIT_DATA_DIR")
    yield _disk("hub cache", Path(constants.HF_HUB_CACHE).absolute(), "name another folder: HF_HOME")


def _disk(check: str, folder: Path, mend: str) -> Finding:
    above = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        return Finding(check, "problem", f"'{folder}' cannot be written: {error.strerror or error}", mend)
    free = shutil.disk_usage(above).free
    state = _enough(free, _LITTLE_DISK, _NO_DISK)
    hint = None if state == "ok" else f"yapit cache says what takes the space, or {mend}"
    return Finding(check, state, f"{written(free)} are free in '{folder}'", hint)


def audio() -> Iterator[Finding]:
    """Say whether every format of speech can be written and read."""
    from yapit.audio import FORMATS, decode, encode

    broken = []
    for name in FORMATS:
        try:
            made = encode(bytes(_SAMPLE_RATE), name, _SAMPLE_RATE)
            if name != "pcm":
                decode(made, sample_rate=_SAMPLE_RATE)
        except (YapitError, ValueError, OSError, RuntimeError) as error:
            broken.append(f"{name} ({error})")
    if broken:
        yield Finding("audio", "problem", f"broken: {', '.join(broken)}", "try: pip install --force-reinstall av")
    else:
        yield Finding("audio", "ok", f"{', '.join(FORMATS)} work, without ffmpeg")


def _enough(free: int, little: int, none: int) -> State:
    return "problem" if free < none else "warning" if free < little else "ok"
