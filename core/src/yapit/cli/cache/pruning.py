"""What of the weights on this machine goes."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from yapit.cli.cache.holdings import Holding
from yapit.cli.parts import Parts
from yapit.cli.remote import loaded_by


class Going(Struct, frozen=True, kw_only=True):
    """Something that goes; of which only the parts go, if `parts_only`."""

    holding: Holding
    parts_only: bool

    @property
    def bytes(self) -> int:
        """How many bytes will be free."""
        return self.holding.partial_bytes + (0 if self.parts_only else self.holding.bytes)


def going(parts: Parts, found: Iterable[Holding], *, partials: bool, unused: bool, before: float | None) -> list[Going]:
    """Return what goes.

    Args:
        parts: of the command.
        found: what there is.
        partials: parts go.
        unused: what no model needs goes.
        before: only what was used last before this Unix time; all of that, if neither of the others is meant.

    Raises:
        RemoteError: a server answers at the address of the settings, and refuses to say what it has loaded.
    """
    loaded = {each["name"] for each in loaded_by(parts.settings.server) or ()}
    gone = []
    for holding in found:
        if holding.kind == "results" or (before is not None and holding.used_at >= before):
            continue
        whole = not holding.models and holding.kind != "converted" if unused else not partials
        if whole and not loaded.intersection(holding.models):
            gone.append(Going(holding=holding, parts_only=False))
        elif partials and holding.partial_bytes:
            gone.append(Going(holding=holding, parts_only=True))
    return gone


def remove(going: Going) -> int:
    """Remove it, and return the bytes that are free now; parts that are being written stay."""
    folder = Path(going.holding.folder)
    freed = _without_parts(folder)
    if going.parts_only:
        return freed
    if any(folder.rglob("*.incomplete")):
        return freed  # somebody writes into it
    shutil.rmtree(folder, ignore_errors=True)
    return going.bytes


def _without_parts(folder: Path) -> int:
    # Imported here: huggingface_hub takes 0.2 s.
    from yapit.hub.parts import try_lock

    freed = 0
    for part in list(folder.rglob("*.incomplete")):
        lock = try_lock(_lock_of(folder, part))
        if lock is None:
            continue
        try:
            freed += part.stat().st_size
            part.unlink()
        finally:
            lock.release()
    if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder)
    return freed


def _lock_of(folder: Path, part: Path) -> Path:
    """Return the lock that who writes a part holds: of a repository there is one for each, of a file's folder one."""
    locks = folder.parent / ".locks"
    lock = locks / folder.name / f"{part.name.partition('.')[0]}.lock" if part.parent.name == "blobs" else None
    found = lock or locks / f"{folder.name}.lock"
    found.parent.mkdir(parents=True, exist_ok=True)
    return found
