"""From the body that asks for a model to the entry of a catalog."""

from pathlib import Path
from typing import Any

from yapit.catalog import Entry, Model
from yapit.errors import InvalidInputError
from yapit.provisioning.sources import entry_of, task_of
from yapit.server.managing.asking import DownloadBody
from yapit.server.managing.refusals import unknown_source

# In the order in which clients know them.
SOURCES = ("pytorch_hub", "torchvision", "huggingface", "url", "tts_auto", "local")
_FIXED = ("id", "name", "source", "revision", "python")  # said elsewhere, or not by strangers


def entry_for(body: DownloadBody, data_dir: Path) -> Entry:
    """Return the entry of the model that is wanted, not yet complete.

    Args:
        body: what is wanted.
        data_dir: where yapit keeps what it has.

    Raises:
        RefusedError: nobody knows the source.
        InvalidInputError: a field cannot be used; `param` names it.
    """
    if body.source not in SOURCES:
        raise unknown_source(body.source, SOURCES)
    more = dict(body.config or {})
    fixed = [name for name in _FIXED if name in more]
    if fixed:
        raise InvalidInputError(f"'config' must not say '{fixed[0]}'.", param=f"config.{fixed[0]}")
    options = {**_options(more), **(body.custom_settings or {})}
    # What it is for is found out first, where it shall speak only if it can.
    task = None if body.auto_convert_tts and body.source == "huggingface" else body.task
    entry = entry_of(
        body.source,
        body.url or body.model_id,
        body.name,
        task=task,
        revision=body.revision,
        vocoder=body.vocoder_model,
        architecture=body.architecture,
        sha256=body.sha256,
        backend=more.pop("backend", None),
        options=options,
        data_dir=data_dir,
    )
    if "hub_code" in entry.get("options", {}) and not body.experimental:
        raise InvalidInputError(
            f"'{body.model_id}' is code that somebody else's repository brings: say 'experimental': true if that is "
            "meant. It runs only if plugin_settings.hf-generic.hub_code names it.",
            param="experimental",
            code="experimental_model",
        )
    return {**entry, **more}


def named_task(body: DownloadBody) -> str | None:
    """Return our word for the task that a body names, if it names one; raises `InvalidInputError` if it is none."""
    return None if body.task is None else task_of(body.task)


def is_same(entry: Entry, model: Model) -> bool:
    """Tell whether a model of the catalog is the one that an entry describes."""
    said = all(getattr(model, name) == entry[name] for name in ("source", "revision", "backend") if name in entry)
    return said and model.options.items() >= entry.get("options", {}).items()


def _options(more: dict[str, Any]) -> dict[str, Any]:
    found = more.pop("options", {})
    if not isinstance(found, dict):
        raise InvalidInputError("'config.options' is no object.", param="config.options")
    return found
