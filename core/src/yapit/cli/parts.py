"""What a command works with that needs no server: the settings, the plugins, the models."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from yapit import log, settings
from yapit.catalog import Catalog
from yapit.plugins import Plugins
from yapit.registry import Registry
from yapit.settings import Settings
from yapit.store import Store


class Parts(Struct, frozen=True, kw_only=True):
    """What a command works with.

    Args:
        settings: the effective ones.
        plugins: the registered ones.
        store: what is registered, and the downloads.
        registry: the models.
    """

    settings: Settings
    plugins: Plugins
    store: Store
    registry: Registry

    @property
    def catalog(self) -> Catalog:
        """The models that are served now."""
        return self.registry.catalog


@contextmanager
def opened(*, all_models: bool = False, level: Literal["warning", "error"] = "warning") -> Iterator[Parts]:
    """Yield the parts, and close the database in the end.

    Args:
        all_models: also those that the setting `models` leaves out.
        level: of what is logged; `error` where the command itself says what is wrong.

    Raises:
        SettingsError: a setting or a models file is wrong.
        StartupError: the database cannot be opened.
    """
    effective = settings.load(os.environ).settings
    log.configure(settings.LogSettings(level=level, format=effective.log.format))
    plugins = Plugins.installed(effective)
    store = Store.of(effective)
    known = replace(effective, models=()) if all_models else effective
    try:
        yield Parts(settings=effective, plugins=plugins, store=store, registry=Registry(known, plugins, store))
    finally:
        store.close()
