"""What is wanted of the hub: a repository, its files, and what of them is not here yet."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from huggingface_hub import constants, get_token
from msgspec import Struct

Kind = Literal["model", "dataset"]
Choose = Callable[[list[str]], Iterable[str]]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = 64  # digits


class Repository(Struct, frozen=True, kw_only=True):
    """A repository, or the part of it that is wanted.

    Args:
        source: its id.
        revision: a branch, a tag or a commit; the newest when None.
        kind: of the repository.
        choose: from the names of all files, those that are wanted; all when None.
        token: opens what is private or gated; HF_TOKEN when None, which only the hub of HF_ENDPOINT gets; none when "".
        endpoint: URL of the hub; that of HF_ENDPOINT when None.
        cache: folder of the hub's cache; that of HF_HOME or HF_HUB_CACHE when None.
    """

    source: str
    revision: str | None = None
    kind: Kind = "model"
    choose: Choose | None = None
    token: str | None = None
    endpoint: str | None = None
    cache: Path | None = None

    def __repr__(self) -> str:
        return f"Repository({self.kind} {self.source!r} at {self.revision!r})"  # never the token

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("source", self.source), ("revision", self.revision), ("kind", self.kind)]

    @property
    def hub(self) -> str:
        """URL of the hub."""
        return (self.endpoint or constants.ENDPOINT).rstrip("/")

    @property
    def folder(self) -> Path:
        """Where the cache keeps the repository."""
        cache = self.cache or Path(constants.HF_HUB_CACHE)
        return cache.expanduser() / f"{self.kind}s--{self.source.replace('/', '--')}"

    @property
    def reference(self) -> str | None:
        """The name whose commit may change; None where a commit is wanted."""
        revision = self.revision or constants.DEFAULT_REVISION
        return None if _COMMIT.fullmatch(revision) else revision

    @property
    def headers(self) -> dict[str, str]:
        """What the hub, and nobody else, is told."""
        token = self.token
        if token is None and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and self._is_default_hub():
            token = get_token()
        return {"authorization": f"Bearer {token}"} if token else {}

    def url(self, commit: str, name: str) -> str:
        """Return where a file is."""
        prefix = "datasets/" if self.kind == "dataset" else ""
        return f"{self.hub}/{prefix}{self.source}/resolve/{commit}/{quote(name)}"

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Return the names of the files that are wanted, of all there are."""
        known = list(names)
        if self.choose is None:
            return known
        wanted = set(self.choose(known))
        return [name for name in known if name in wanted]

    def _is_default_hub(self) -> bool:
        return origin(self.hub) == origin(constants.ENDPOINT)


class File(Struct, frozen=True, kw_only=True):
    """A file of a revision.

    Args:
        name: its path in the repository.
        size_bytes: of its content.
        blob: what git calls it; of a large file, what git calls the pointer to it.
        sha256: of its content, if it is kept apart from git; else the content's checksum is `blob`.
    """

    name: str
    size_bytes: int
    blob: str
    sha256: str | None = None

    @property
    def etag(self) -> str:
        """The hub's name for the content, which is its checksum."""
        return self.sha256 or self.blob


class Plan(Struct, frozen=True, kw_only=True):
    """What a transfer will do.

    Args:
        repository: what is wanted.
        commit: of the revision.
        listing: all files of the revision.
        files: those that are wanted.
        here: names of the wanted ones whose content is on this machine.
        bytes_total: of the wanted files, the same content counted once.
        bytes_here: of it, what is on this machine, kept parts not counted.
        bytes_kept: what earlier transfers left in parts, which will be used.
    """

    repository: Repository
    commit: str
    listing: tuple[File, ...]
    files: tuple[File, ...]
    here: frozenset[str]
    bytes_total: int
    bytes_here: int
    bytes_kept: int

    @property
    def bytes_to_fetch(self) -> int:
        """How much will come over the network."""
        return self.bytes_total - self.bytes_here - self.bytes_kept

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return len(self.here) == len(self.files)


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Return the scheme, host and port that a URL names; what a token is for."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def is_sound(file: File) -> bool:
    """Tell whether a file's name and checksum are safe as paths: a hub may be anybody's."""
    parts = file.name.split("/")
    safe = all(part not in ("", ".", "..") for part in parts) and not re.search(r"[\\\0:]", file.name)
    return safe and re.fullmatch(rf"[0-9a-f]{{40}}|[0-9a-f]{{{_SHA256}}}", file.etag) is not None


def is_reference(name: str) -> bool:
    """Tell whether a branch or tag is safe as a path."""
    return all(part not in ("", ".", "..") for part in name.split("/")) and not re.search(r"[\\\0]", name)
