"""Fetch the file of a URL in a process of its own.

Arguments: the URL, the folder, and whether to fill the disk meanwhile.

Writes how far it is, a line of JSON each, and in the end what came of it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from yapit.errors import YapitError
from yapit.provisioning.files import FileTransfer
from yapit.provisioning.transfers import Amount
from yapit.settings import ProvisioningSettings
from yapit.weights import Weights

ENOUGH = 500_000  # bytes, after which the disk is filled


def main() -> None:
    url, folder, filling = sys.argv[1], Path(sys.argv[2]), len(sys.argv) > 3
    filler = folder / "filler"

    def watch(amount: Amount) -> None:
        if filling and amount.bytes_done > ENOUGH and not filler.exists():
            fill(filler)
        tell({"bytes": amount.bytes_done, "files": amount.files_done})

    settings = ProvisioningSettings(allow_private_addresses=True)
    try:
        transfer = FileTransfer(Weights(source=url, kind="file"), settings, folder)
        said = {"kept": transfer.plan().bytes_done, "file": str(transfer.fetch(watch, lambda: False))}
    except YapitError as error:
        said = {"error": error.message, "code": str(error.code)}
    filler.unlink(missing_ok=True)
    left = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    tell({**said, "left": left})


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
