"""Networks by their names: where their weights are, and what images are made into; no torch here."""

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from yapit import Model
from yapit.catalog import folder_of
from yapit.weights import FILE_SUFFIXES, is_url

_FOLDER = "https://download.pytorch.org/models/"
_DIGEST = re.compile(r"-([0-9a-f]{8,})\.pth$")


class Architecture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network of torchvision.

    Args:
        file: of its weights.
        resize: pixels of an image's shorter side, before it is cut.
        crop: pixels of the square that is cut out of its middle.
        interpolation: how it is resized.
        mean: of each colour.
        std: of each colour.
        licence: of the weights, if it is another one than torchvision's.
    """

    file: str
    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    licence: str | None = None

    @property
    def url(self) -> str:
        """Where the weights are."""
        return _FOLDER + self.file

    @property
    def sha256(self) -> str | None:
        """How the checksum of the weights begins."""
        found = _DIGEST.search(self.file)
        return found and found[1]


@cache
def architectures() -> dict[str, Architecture]:
    """Return those that are known, by name."""
    text = (files(__package__) / "architectures.yaml").read_bytes()
    return msgspec.yaml.decode(text, type=dict[str, Architecture])


@cache
def imagenet() -> tuple[str, ...]:
    """Return the labels of ImageNet's thousand classes."""
    lines = (files(__package__) / "imagenet.txt").read_text("utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def describe_bare(entry: dict[str, Any]) -> dict[str, Any] | None:
    """Return what an entry leaves out that has a state dict's architecture; None if it has none."""
    options = entry.get("options")
    name = options.get("architecture") if isinstance(options, dict) else None
    known = architectures().get(name) if isinstance(name, str) else None
    source = entry.get("source")
    if known is None or (source is not None and not is_bare(str(source))):
        return None
    found: dict[str, Any] = {"tasks": ["classify"]}
    if source is None and "hub_code" not in (options or {}):
        found |= {"source": known.url, "options": {"sha256": known.sha256}}
        if known.licence is not None:
            found["licence"] = known.licence
    return found


def is_bare(source: str) -> bool:
    """Tell whether a source is a state dict alone: a file, its URL, or a folder with one and no `config.json`."""
    folder = folder_of(source)
    if folder is None:
        return is_url(source) or Path(source).expanduser().is_file()
    return not (folder / "config.json").is_file() and bool(state_dicts(folder))


def is_bare_model(model: Model) -> bool:
    """Tell whether a model is a network whose class nobody but its entry names."""
    return "hub_code" in model.options or is_bare(model.source or model.id)


def state_dicts(folder: Path) -> list[Path]:
    """Return the files of a folder that may be state dicts, the safe ones first."""
    found = [path for path in folder.iterdir() if path.suffix in FILE_SUFFIXES]
    return sorted(found, key=lambda path: (FILE_SUFFIXES.index(path.suffix), path.name))
