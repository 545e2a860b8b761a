"""`yapit doctor`: what of this machine, the installation and the settings works, and the mend for what does not."""

import os
import sys

import rich_click as click

from yapit import settings
from yapit.cli.doctor.findings import Finding, examined
from yapit.cli.tables import show, show_json
from yapit.errors import SettingsError
from yapit.settings import Settings

_FAILED = 1


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def doctor(*, as_json: bool) -> None:
    """Examine this machine, what is installed and what is set: ok, warning or problem, and the mend, one line each.

    All is looked at side by side, and nothing for longer than a minute. A problem makes the exit code 1.
    """
    # Imported here: what the other commands need not pay.
    from yapit.cli.doctor import installed, machine, services

    effective, first = _settings()
    found = [
        first,
        *examined(
            {
                "python": machine.python,
                "torch": lambda: machine.torch(effective),
                "memory": machine.memory,
                "disk": lambda: machine.disks(effective),
                "audio": machine.audio,
                "packages": installed.packages,
                "plugins": lambda: installed.plugins(effective),
                "hub": lambda: services.hub(effective),
                "database": lambda: services.database(effective),
                "port": lambda: services.port(effective),
            }
        ),
    ]
    if as_json:
        show_json(found)
    else:
        show(("state", "check", "what"), [(each.state, each.check, each.line) for each in found])
    if any(each.state == "problem" for each in found):
        # A check that hangs has a thread that does not end.
        sys.stdout.flush()
        os._exit(_FAILED)


def _settings() -> tuple[Settings, Finding]:
    """Return the settings, the defaults if they are wrong, and what is to be said of them."""
    try:
        effective = settings.load(os.environ).settings
        effective.server.require_key()
    except SettingsError as error:
        return Settings(), Finding("settings", "problem", error.message, "yapit config schema says what may be set")
    return effective, Finding("settings", "ok", "are valid")
