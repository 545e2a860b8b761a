"""`yapit models info`: all that is known of a model."""

import msgspec
import rich_click as click
from msgspec import Struct

from yapit.catalog import Entry, Model, entry_of
from yapit.cli.parts import Parts, opened
from yapit.cli.remote import loaded_by
from yapit.cli.tables import show, show_json
from yapit.errors import RemoteError, YapitError
from yapit.provisioning.parameters import parameters
from yapit.provisioning.presence import Presence, presence
from yapit.quantities import written

_SERVER_S = 2.0
_LISTED = 12  # languages
_SHOWN_ABOVE = {"id", "tasks", "backend", "source", "revision", "voices", "languages", "licence", "memory_bytes"}


class Info(Struct, frozen=True, kw_only=True):
    """All that is known of a model.

    Args:
        id: of the model.
        entry: complete.
        plugin: that runs its backend, and its version; None if nobody does.
        registered: at run time, not by a plugin or a file.
        weights: on this machine; None if nobody knows what it needs.
        parameters: as its safetensors files say; None without any.
        loaded: for which tasks a running server has loaded it; None if no server answers.
    """

    id: str
    entry: Entry
    plugin: str | None
    registered: bool
    weights: Presence | None
    parameters: int | None
    loaded: list[str] | None


@click.command()
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
def info(name: str, *, as_json: bool) -> None:
    """Say all that is known of the model ID: its entry, its weights on this machine, who runs it, whether it is loaded.

    Whether it is loaded is known if a server answers at the address of the settings.
    """
    with opened() as parts:
        model = parts.catalog[name]
        found = _info(parts, model)
    if as_json:
        show_json(msgspec.to_builtins(found, enc_hook=str))
        return
    show(("field", "value"), [(key, value) for key, value in _rows(model, found) if value not in (None, "")])


def _info(parts: Parts, model: Model) -> Info:
    try:
        held = presence(model, parts.plugins, parts.settings)
    except YapitError:
        held = None
    owner = parts.plugins.owner(model)
    return Info(
        id=model.id,
        entry=entry_of(model),
        plugin=f"{owner} {parts.plugins.version(owner) or ''}".rstrip() if owner is not None else None,
        registered=parts.registry.is_registered(model.id),
        weights=held,
        parameters=parameters(held.folders if held is not None else ()),
        loaded=_loaded(parts, model),
    )


def _loaded(parts: Parts, model: Model) -> list[str] | None:
    try:
        found = loaded_by(parts.settings.server, _SERVER_S)
    except RemoteError:
        return None
    return None if found is None else [each["task"] for each in found if each["name"] == model.id]


def _rows(model: Model, found: Info) -> list[tuple[str, object]]:
    languages = ", ".join(model.languages[:_LISTED])
    more = len(model.languages) - _LISTED
    rest = {key: value for key, value in found.entry.items() if key not in _SHOWN_ABOVE}
    return [
        ("id", model.id),
        ("aliases", ", ".join(rest.pop("aliases", ()))),
        ("description", rest.pop("description", None)),
        ("tasks", ", ".join(model.tasks)),
        ("backend", model.backend),
        ("plugin", found.plugin or "none"),
        ("source", model.source),
        ("revision", model.revision),
        ("registered", "yes" if found.registered else "no"),
        ("licence", model.licence),
        ("voices", len(model.voices) or None),
        ("languages", f"{languages} and {more} more" if more > 0 else languages),
        ("weights", _weights(found.weights)),
        *(("folder", folder) for folder in (found.weights.folders if found.weights else ())),
        *(("commit", commit) for commit in (found.weights.commits.values() if found.weights else ())),
        ("parameters", f"{found.parameters:,}" if found.parameters is not None else None),
        ("memory", f"about {written(model.memory_bytes)}" if model.memory_bytes else None),
        *((key, value if isinstance(value, str | int | float) else _compact(value)) for key, value in rest.items()),
        ("loaded", _said_loaded(found.loaded)),
    ]


def _weights(held: Presence | None) -> str:
    if held is None:
        return "unknown"
    if held.state in ("none", "missing"):
        return {"none": "none are needed", "missing": "missing"}[held.state]
    amount = f"{written(held.bytes)}, {held.files} files"
    return f"here, {amount}" if held.state == "here" else f"partly here, {written(held.bytes)}"


def _said_loaded(loaded: list[str] | None) -> str:
    if loaded is None:
        return "unknown: no server answers"
    return ", ".join(loaded) or "no"


def _compact(value: object) -> str:
    return msgspec.json.encode(value).decode()
