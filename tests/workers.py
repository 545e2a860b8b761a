"""The models' processes of this one."""

from contextlib import suppress

import psutil


def workers() -> list[psutil.Process]:
    """Return them; a server that other tests share, and its processes, are not among them."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if "yapit.worker" in child.cmdline():
                found.append(child)
    return found
