"""What an entry's `options`, and those of a request, may say to a plugin: its own structs, checked in one way."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from yapit.catalog import Model
from yapit.errors import InvalidInputError, SettingsError, did_you_mean

StructT = TypeVar("StructT", bound=msgspec.Struct)


def entry_options(model: Model, kind: type[StructT], *, others: bool = False) -> StructT:
    """Return the options of a catalog entry as `kind`.

    Args:
        model: the entry.
        kind: a struct with a field for each option.
        others: options that `kind` has not are those of the model's other tasks, and left out.

    Raises:
        SettingsError: an option is unknown or has a value that is refused.
    """
    known = kind.__struct_fields__
    given = {name: value for name, value in model.options.items() if name in known} if others else model.options
    unknown = _unknown(given, known)
    if unknown is not None:
        hint = did_you_mean(unknown, [*known])
        raise SettingsError(f"model '{model.id}': unknown option '{unknown}'. {hint}".rstrip())
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"model '{model.id}': options: {error}") from error


def request_options(model: Model, given: Mapping[str, Any], kind: type[StructT]) -> StructT:
    """Return the options of a request over the entry's `defaults`, as `kind`.

    Args:
        model: the entry; those of its defaults that `kind` has not are left out.
        given: the request's.
        kind: a struct with a field for each option.

    Raises:
        InvalidInputError: an option is unknown or has a value that is refused; `param` names it.
    """
    known = kind.__struct_fields__
    unknown = _unknown(given, known)
    if unknown is not None:
        message = f"The model '{model.id}' has no option '{unknown}'. {did_you_mean(unknown, [*known])}"
        raise InvalidInputError(message.rstrip(), param=f"options.{unknown}")
    defaults = {name: value for name, value in model.defaults.items() if name in known}
    try:
        return msgspec.convert({**defaults, **given}, kind)
    except msgspec.ValidationError as error:
        _, _, name = str(error).rpartition("$.")
        raise InvalidInputError(str(error), param=f"options.{name.rstrip('`')}") from error


def _unknown(given: Iterable[str], known: tuple[str, ...]) -> str | None:
    return next((name for name in given if name not in known), None)
