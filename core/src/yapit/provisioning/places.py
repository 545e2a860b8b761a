"""Where the file of a URL is on this machine, what is known of it, and what of it is here."""

from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from yapit.weights import file_of

_PART = ".incomplete"
_FACTS = ".json"


class Facts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What its server says of a file, and what was counted.

    Args:
        url: without what may be a secret.
        size_bytes: None while nobody says it.
        etag: if it is a strong one.
        modified: as `Last-Modified` has it.
        sha256: in hexadecimal; None until all of it is here.
    """

    url: str
    size_bytes: int | None = None
    etag: str | None = None
    modified: str | None = None
    sha256: str | None = None

    @property
    def condition(self) -> str | None:
        """What `If-Range` says, so that the rest is that of the same content; None if nothing tells."""
        return self.etag or self.modified


class Place:
    """A folder of its own for the file of a URL.

    Args:
        url: of the file.
        data_dir: where yapit keeps what it has.
    """

    def __init__(self, url: str, data_dir: Path) -> None:
        self.url = shown(url)
        self.file = file_of(url, data_dir)
        self.part = self._beside(_PART)
        folder = self.file.parent
        self.lock = folder.parent / ".locks" / f"{folder.name}.lock"  # the folder may be removed while it is held

    def here(self, sha256: str | None) -> Path | None:
        """Return the file if it is whole, and its checksum begins as it should."""
        facts = self.facts
        try:
            whole = facts is not None and self.file.stat().st_size == facts.size_bytes
        except OSError:
            return None
        right = sha256 is None or (facts is not None and (facts.sha256 or "").startswith(sha256.lower()))
        return self.file if whole and right else None

    @property
    def facts(self) -> Facts | None:
        """What is known of the file."""
        return _read(self._beside(_FACTS))

    @property
    def part_facts(self) -> Facts | None:
        """What is known of the file whose part is here."""
        return _read(self._beside(_PART + _FACTS))

    @property
    def kept_bytes(self) -> int:
        """How much of the file an earlier transfer left."""
        try:
            return self.part.stat().st_size
        except OSError:
            return 0

    def note(self, facts: Facts) -> None:
        """Keep what is known of the file; before it has its name."""
        _write(self._beside(_FACTS), facts)

    def note_part(self, facts: Facts) -> None:
        """Keep what is known of the file; before the first byte of its part."""
        _write(self._beside(_PART + _FACTS), facts)

    def forget_part(self) -> int:
        """Remove the part, and return its bytes."""
        freed = self.kept_bytes
        for path in (self.part, self._beside(_PART + _FACTS)):
            path.unlink(missing_ok=True)
        self._tidy()
        return freed

    def forget(self) -> int:
        """Remove the file, and return its bytes."""
        try:
            freed = self.file.stat().st_size
        except OSError:
            freed = 0
        for path in (self._beside(_FACTS), self.file):
            path.unlink(missing_ok=True)
        self._tidy()
        return freed

    def _beside(self, ending: str) -> Path:
        return self.file.with_name(self.file.name + ending)

    def _tidy(self) -> None:
        folder = self.file.parent
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def shown(url: str) -> str:
    """Return a URL as people may see it: neither passwords nor what follows the path, which may be a signature."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _read(path: Path) -> Facts | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Facts)
    except (OSError, ValueError):
        return None


def _write(path: Path, facts: Facts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f"{path.name}.tmp")  # whoever writes holds the lock
    try:
        passing.write_bytes(msgspec.json.encode(facts))
        passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)
