"""Fetch `org/tiny` in a process of its own. Arguments: the hub, the cache, and whether to fill the disk meanwhile.

Writes how far it is, a line of JSON each, and in the end what came of it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from yapit.errors import YapitError
from yapit.hub import Progress, Repository, cached, fetch, plan

ENOUGH = 500_000  # bytes, after which the disk is filled


def main() -> None:
    hub, cache, filling = sys.argv[1], Path(sys.argv[2]), len(sys.argv) > 3
    filler = cache / "models--org--filler"

    def watch(progress: Progress) -> None:
        if filling and progress.bytes_done > ENOUGH and not filler.exists():
            fill(filler)
        tell({"bytes": progress.bytes_done, "files": progress.files_done})

    try:
        said = {"folder": str(fetch(plan(Repository(source="org/tiny", endpoint=hub, cache=cache)), watch=watch))}
    except YapitError as error:
        said = {"error": error.message, "code": str(error.code)}
    filler.unlink(missing_ok=True)
    left = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file() and not path.is_symlink())
    parts = sum(each.partial_bytes for each in cached(cache))
    tell({**said, "left": left, "parts": parts})


def tell(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1_000_000)) == 1_000_000:
                pass
        except OSError:
            return


if __name__ == "__main__":
    main()
