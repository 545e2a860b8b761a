"""What has to be on this machine before a model can be loaded."""

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from yapit.catalog import Model, folder_of
from yapit.errors import InvalidInputError

Kind = Literal["model", "dataset", "file"]
Choose = Callable[[list[str]], Iterable[str]]
FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_LONGEST = 100  # characters of a file's name


class Weights(Struct, frozen=True, kw_only=True):
    """A repository of the hub, the part of it that a model reads, or a single file.

    Args:
        source: the id of the repository, or the URL of the file.
        kind: `model` and `dataset` are repositories, `file` is a file.
        revision: of the repository; the newest when None.
        choose: from the names of all files of the repository, those that are needed; when None, the weights once, in
            safetensors where there are any, and all that is no weights.
        sha256: of the file, in hexadecimal, or the first eight digits of it and more; not checked when None.
    """

    source: str
    kind: Kind = "model"
    revision: str | None = None
    choose: Choose | None = None
    sha256: str | None = None


def weights_of(model: Model) -> list[Weights]:
    """Return what the source of a model's entry names; nothing if it is a folder, or there is none."""
    source = model.source
    if source is None or folder_of(source) is not None:
        return []
    if is_url(source):
        return [Weights(source=source, kind="file", sha256=model.options.get("sha256"))]
    return [Weights(source=source, revision=model.revision)]


def is_url(source: str) -> bool:
    """Tell whether a source is the URL of a file."""
    return source[:8].lower().startswith(("http://", "https://"))


def check_file_url(url: str, param: str = "source") -> None:
    """Raise `InvalidInputError` unless a URL is one that a file of weights may have; it is not asked."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known, parts = False, urlsplit("")
    if not known:
        raise InvalidInputError("The URL of a file begins with https:// or http:// and names a host.", param=param)
    if parts.username is not None or parts.password is not None:
        message = (
            "The URL of a file must not have a user name or a password: set a token for its host in "
            "provisioning.tokens."
        )
        raise InvalidInputError(message, param=param)
    if not parts.path.lower().endswith(FILE_SUFFIXES):
        expected = ", ".join(FILE_SUFFIXES)
        raise InvalidInputError(f"The path of the URL of a file ends in one of {expected}.", param=param)


def file_of(url: str, data_dir: Path) -> Path:
    """Return where the file of a URL is, or will be, on this machine."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")
    digest = hashlib.sha256(url.encode()).hexdigest()
    return data_dir.absolute() / "files" / digest[:16] / (safe[-_LONGEST:].lstrip(".") or "weights")
