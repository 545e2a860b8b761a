"""What a catalog entry's `options` may say to this plugin, and what the settings may."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from yapit import Context, Model, SettingsError
from yapit.errors import did_you_mean

PLUGIN = "hf-generic"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `plugin_settings.hf-generic` of yapit.yaml.

    Args:
        trust_remote_code: repo ids, as in `source`, whose own Python code may run; no others' may.
        remote_images: images named by a URL are fetched.
        image_hosts: if any, the only hosts they are fetched from; `*.example.org` stands for all below it.
        max_image_bytes: of an image, fetched or sent.
        image_timeout_s: for fetching one.
    """

    trust_remote_code: tuple[str, ...] = ()
    remote_images: bool = False
    image_hosts: tuple[str, ...] = ()
    max_image_bytes: Annotated[int, Meta(ge=1)] = 20_000_000
    image_timeout_s: Annotated[float, Meta(gt=0)] = 10.0


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every model may be told.

    Args:
        architecture: the class of transformers that loads it, instead of the one its configuration names.
        dtype: of the weights; `auto` takes the fastest that is accurate on the device.
        attn_implementation: as transformers names them (`sdpa`, `eager`, `flash_attention_2`, …).
        device_map: `auto` spreads a model over several GPUs, and what does not fit over the main memory.
        threads: that compute on a CPU; as many as there are cores when None.
        supports_structured_outputs: of existing models files; every text model does here.
        skip_download: likewise; the weights must be here already.
    """

    architecture: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: str | None = None
    device_map: str | dict[str, Any] | None = None
    threads: Annotated[int, Meta(ge=1)] | None = None
    supports_structured_outputs: bool | None = None
    skip_download: bool = False


OptionsT = TypeVar("OptionsT", bound=Options)


def options_of(model: Model, kind: type[OptionsT]) -> OptionsT:
    """Return the model's options as `kind`.

    Raises:
        SettingsError: an option is unknown or has a value that is refused.
    """
    given, known = model.options, kind.__struct_fields__
    if len(model.tasks) > 1:
        # The options of its other tasks are among them.
        given = {name: value for name, value in given.items() if name in known}
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise SettingsError(
            f"model '{model.id}': unknown option '{unknown}'. {did_you_mean(unknown, [*known])}".rstrip()
        )
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"model '{model.id}': options: {error}") from error


def settings_of(context: Context) -> Settings:
    """Return the plugin's settings."""
    return context.settings(PLUGIN, Settings)
