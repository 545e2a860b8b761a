"""Models brought to a wanted state: their weights onto this machine, honestly and once."""

from collections.abc import Callable
from pathlib import Path

from yapit.catalog import Model
from yapit.plugins import Plugins
from yapit.provisioning.arrivals import Arrivals, missing
from yapit.provisioning.downloads import RUNNING, Book, Downloads
from yapit.provisioning.local import LocalProvisioner
from yapit.provisioning.transfers import Amount, Transfer, transfer_of
from yapit.settings import Settings

__all__ = [
    "RUNNING",
    "Amount",
    "Arrivals",
    "Downloads",
    "LocalProvisioner",
    "Transfer",
    "downloads_of",
    "missing",
    "provisioner_of",
]


def downloads_of(
    plugins: Plugins, settings: Settings, find: Callable[[str], Model], book: Book, *, quiet: bool = False
) -> Downloads:
    """Return what brings the models' weights onto this machine; the arguments are those of `Downloads`."""
    return Downloads(
        find,
        lambda model: provisioner_of(model, plugins, settings),
        parallel=settings.provisioning.parallel,
        data_dir=Path(settings.data_dir),
        book=book,
        quiet=quiet,
    )


def provisioner_of(model: Model, plugins: Plugins, settings: Settings) -> LocalProvisioner:
    """Return what brings a model's weights onto this machine."""
    folder = Path(settings.data_dir)
    return LocalProvisioner([transfer_of(each, settings.provisioning, folder) for each in plugins.weights(model)])
