"""Whether a server may start that fetches nothing unasked: the weights of what its settings name must be here."""

from collections.abc import Iterator

import structlog

from yapit.catalog import Catalog, Model, read_entries
from yapit.errors import StartupError
from yapit.plugins import Plugins
from yapit.provisioning.presence import absent
from yapit.settings import Settings, model_files

_log = structlog.get_logger(__name__)


def check_weights(settings: Settings, plugins: Plugins, catalog: Catalog) -> None:
    """Raise `StartupError` if weights are missing that nobody will fetch; blocks.

    They must be here for what the settings name: `models`, `engine.warm_up` and the models files. Those of
    `engine.warm_up_optional` are only reported, those of all other models are asked for when a request is.
    """
    if settings.provisioning.auto_download:
        return
    needed = {model.id: model for model in _needed(settings, catalog)}
    missing = [model.id for model in absent(needed.values(), plugins, settings)]
    if missing:
        of = f"'{missing[0]}' are" if len(missing) == 1 else f"{len(missing)} models are"
        raise StartupError(
            f"the weights of {of} not on this machine, and provisioning.auto_download is off; "
            f"fetch them with: yapit pull {' '.join(missing)}"
        )
    optional = [catalog[name] for name in settings.engine.warm_up_optional if name in catalog]
    for model in absent(optional, plugins, settings):
        _log.warning("weights_missing", model=model.id, hint=f"yapit pull {model.id}")


def _needed(settings: Settings, catalog: Catalog) -> Iterator[Model]:
    for name in (*settings.models, *settings.engine.warm_up):
        if name in catalog:
            yield catalog[name]
    for entry in (entry for path in model_files(settings) for entry in read_entries(path)):
        if "id" not in entry:  # it means what has its source
            yield from (model for model in catalog if model.source == entry.get("source"))
        elif entry["id"] in catalog:
            yield catalog[entry["id"]]
