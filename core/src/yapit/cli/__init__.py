"""The `yapit` command; each module holds one family of commands, and plugins add theirs."""

import os
import sys
from pathlib import Path

import rich_click as click

from yapit import __version__, settings
from yapit.cli.cache import cache
from yapit.cli.config import config
from yapit.cli.doctor import doctor
from yapit.cli.models import models
from yapit.cli.plugins import plugins
from yapit.cli.ps import ps
from yapit.cli.pull import pull
from yapit.cli.serve import serve
from yapit.cli.speak import speak
from yapit.cli.transcribe import transcribe
from yapit.errors import StartupError, YapitError
from yapit.plugins import Plugins

_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130


class _Commands(click.RichGroup):
    """The built-in commands; plugins are loaded only when theirs are asked for or listed."""

    _asked = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._ask_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._ask_plugins()
        return super().get_command(ctx, cmd_name)

    def _ask_plugins(self) -> None:
        if self._asked:
            return
        self._asked = True
        loaded = Plugins.load(settings.load(os.environ).settings.plugins)
        # The hook's answer is the group it changed; each() must be run through for it to be asked.
        for _ in loaded.each("register_commands", cli=self):
            pass


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="yapit")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file, instead of ./yapit.yaml.")
def cli(config: Path | None) -> None:
    """A model server that is grown by pip install."""
    if config is not None:
        os.environ["YAPIT_CONFIG"] = str(config)


for command in (serve, speak, transcribe, pull, ps, models, cache, plugins, config, doctor):
    cli.add_command(command)


def main() -> None:
    """Run the command line; what goes wrong is one line on standard error."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except YapitError as error:
        click.echo(f"yapit: {error}", err=True)
        sys.exit(_MISUSED if isinstance(error, StartupError) else _FAILED)
    except BrokenPipeError:
        # The reader has seen enough; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"yapit: {where}{error.strerror or error}", err=True)
        sys.exit(_FAILED)
