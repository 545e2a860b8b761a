"""What pip is asked to install, and by which names people call it."""

import os
import re
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

from yapit.errors import YapitError

PREFIX = "yapit-plugin-"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FILES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class InstallError(YapitError):
    """A plugin could not be installed or removed; what was asked for is not named, since a URL may hold a secret."""


def requirement(wanted: str) -> str:
    """Return what pip is to install: `kokoro` means `yapit-plugin-kokoro`.

    A path, a URL, a requirement with a URL, and a name in which there is `yapit` stay as they are.

    Raises:
        InstallError: it is nothing of all that.
    """
    text = wanted.strip()
    if text.startswith("~"):
        return str(Path(text).expanduser())
    if text.startswith((".", "/")):
        return text
    name = NAME.match(text)
    if name is None:
        raise InstallError("what is to be installed is a plugin's name, a requirement, a path or a URL")
    located = "@" in text or "://" in text or os.sep in text or text.endswith(_FILES)
    return text if located or "yapit" in name[0].lower() else f"{PREFIX}{text}"


def named(wanted: str) -> str:
    """Return the distribution that a requirement, or the path or URL of a wheel, names.

    Raises:
        InstallError: it names none.
    """
    file = Path(urlsplit(wanted).path).name
    name = NAME.match(file.partition("-")[0] if file.endswith(".whl") and " @ " not in wanted else wanted)
    if name is None:
        raise InstallError("pip installed nothing, and nothing says what is installed already")
    return name[0]


def same_yapit(distribution: Distribution) -> list[str]:
    """Return pip's arguments for the yapit of this distribution: the same folder or URL, or else the same version."""
    text = distribution.read_text("direct_url.json")
    origin = msgspec.json.decode(text) if text else {}
    url = str(origin.get("url", ""))
    path = url2pathname(urlsplit(url).path)
    if not url or (url.startswith("file:") and not Path(path).exists()):
        return [f"yapit=={distribution.version}"]
    if "dir_info" in origin:
        return ["--editable", path] if origin["dir_info"].get("editable") else [path]
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    subdirectory = origin.get("subdirectory")
    return [f"yapit @ {url}#subdirectory={subdirectory}" if subdirectory else f"yapit @ {url}"]


def means(wanted: str, name: str, distribution: str) -> bool:
    """Tell whether somebody who says `wanted` means this plugin of this distribution."""
    names = {canonical(name), canonical(distribution), canonical(distribution).removeprefix(PREFIX)}
    return canonical(wanted) in names


def canonical(name: str) -> str:
    """Return the one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).strip("-").lower()
