"""Sources that people name: a repository, a URL or a folder becomes a model that is registered."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import rich_click as click
from msgspec import Struct

from yapit.catalog import Entry, Model, entry_of, folder_of, model_of
from yapit.cli.parts import Parts
from yapit.errors import InvalidInputError, ModelNotFoundError, SettingsError
from yapit.provisioning import provisioner_of
from yapit.provisioning.sources import check_complete, task_of
from yapit.provisioning.sources import entry_of as entry_of_source
from yapit.weights import is_url

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Named(Struct, frozen=True, kw_only=True):
    """What is said of a source.

    Args:
        source: a repo id, a URL or a folder.
        kind: one of `sources.KINDS`; found out from the source when None.
        name: that the model gets; made of the source when None.
        revision: of a repository; the newest when None.
        tasks: of the model, in our words or others'; what its plugin finds out when empty.
        sha256: of the file of a URL.
        backend: that runs it; found out when None.
        options: of its backend.
    """

    source: str
    kind: str | None = None
    name: str | None = None
    revision: str | None = None
    tasks: tuple[str, ...] = ()
    sha256: str | None = None
    backend: str | None = None
    options: dict[str, Any] = {}


def model_named(parts: Parts, named: Named) -> tuple[Model, bool]:
    """Return the model that is meant, and whether it was registered just now.

    Raises:
        ModelNotFoundError: no catalog has it, and it is no source.
        InvalidInputError: a model of the catalog is meant with another revision, without a name for it.
        ConflictError: its name is another model's.
    """
    found = _known(parts, named)
    if found is not None:
        return found, False
    if named.source in parts.catalog and named.kind is None:
        entry = _changed(parts.catalog[named.source], named)
    elif named.kind is not None or _is_source(named.source):
        return registered(parts, named), True
    else:
        parts.catalog[named.source]  # raises, and names near ones
        raise ModelNotFoundError(f"There is no model '{named.source}'.", param="model")
    return parts.registry.register(entry), True


def registered(parts: Parts, named: Named, *, replace: bool = False) -> Model:
    """Register a model with this source, and return it.

    Raises:
        InvalidInputError: what is said of it cannot be used, or what it does cannot be found out.
        YapitError: it cannot be had.
    """
    try:
        model = model_of(entry_for(parts, named), parts.plugins.describe)
    except SettingsError as error:
        raise InvalidInputError(error.message) from error
    if not model.tasks:
        for transfer in provisioner_of(model, parts.plugins, parts.settings).transfers:
            transfer.plan()  # what cannot be had is not known either, and says why
    check_complete(_kind(named), model)
    return parts.registry.register(entry_of(model), replace=replace)


def entry_for(parts: Parts, named: Named) -> Entry:
    """Return the entry of a model with this source; plugins complete it when it is registered.

    Raises:
        InvalidInputError: what is said of it cannot be used.
    """
    folder = folder_of(named.source)
    source = str(folder.absolute()) if folder is not None else named.source
    entry = entry_of_source(
        _kind(named),
        source,
        named.name or _slug(named.source),
        revision=named.revision,
        sha256=named.sha256,
        backend=named.backend,
        options=named.options,
        data_dir=Path(parts.settings.data_dir),
    )
    return {**entry, "tasks": [task_of(each) for each in named.tasks]} if named.tasks else entry


def _kind(named: Named) -> str:
    if named.kind is not None:
        return named.kind
    if is_url(named.source):
        return "url"
    return "local" if folder_of(named.source) is not None or named.source.startswith(("/", ".", "~")) else "huggingface"


def _known(parts: Parts, named: Named) -> Model | None:
    """Return the model of the catalog that is meant, if there is one: the second time, the registered one."""
    catalog = parts.catalog
    if named.name is None and named.kind is None:
        if named.source in catalog:
            found = catalog[named.source]
            if named.revision in (None, found.revision):
                return found
            raise InvalidInputError(
                f"The model '{found.id}' has the revision {found.revision or 'that is newest'}; for another one beside "
                "it, give that a --name.",
                param="revision",
            )
        same = [model for model in catalog if model.source == named.source and model.revision == named.revision]
        return same[0] if same else None
    name = named.name or _slug(named.source)
    if name not in catalog or catalog[name].id != name:
        return None
    of_catalog = named.kind is None and named.source in catalog
    source = catalog[named.source].source if of_catalog else entry_for(parts, named).get("source")
    found = catalog[name]
    asked = named.options | ({"sha256": named.sha256} if named.sha256 else {})
    is_same = (found.source, found.revision) == (source, named.revision) and asked.items() <= found.options.items()
    return found if is_same else None


def _changed(model: Model, named: Named) -> Entry:
    """Return the entry of a model like one of the catalog, under another name."""
    entry = entry_of(model)
    entry.pop("aliases", None)
    entry |= {"id": named.name, "revision": named.revision, "options": {**model.options, **named.options}}
    return entry | ({"tasks": [task_of(each) for each in named.tasks]} if named.tasks else {})


def _is_source(text: str) -> bool:
    return is_url(text) or folder_of(text) is not None or _REPOSITORY.fullmatch(text) is not None


def options_of(texts: Iterable[str]) -> dict[str, Any]:
    """Return the options that `KEY=VALUE` stand for: JSON, or text."""
    return dict(_option(text) for text in texts)


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"An option is KEY=VALUE, and not '{text}'.")
    try:
        return key, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return key, value


def _slug(source: str) -> str:
    """Return a name for a source that has none: that of the file or folder, or the repo id itself."""
    if is_url(source):
        return PurePosixPath(unquote(urlsplit(source).path)).stem
    folder = folder_of(source)
    return Path(folder).absolute().name if folder is not None else source
