"""What a catalog entry's `options` may say to this plugin, and what the settings may."""

from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct

from yapit import Context, Model
from yapit.options import entry_options

PLUGIN = "hf-generic"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `plugin_settings.hf-generic` of yapit.yaml.

    Args:
        trust_remote_code: repo ids, as in `source`, whose own Python code may run; no others' may.
        hub_code: code of torch's hub, as in the option `hub_code`, that may run; no other may.
        remote_images: images named by a URL are fetched.
        image_hosts: if any, the only hosts they are fetched from; `*.example.org` stands for all below it.
        max_image_bytes: of an image, fetched or sent.
        image_timeout_s: for fetching one.
    """

    trust_remote_code: tuple[str, ...] = ()
    hub_code: tuple[str, ...] = ()
    remote_images: bool = False
    image_hosts: tuple[str, ...] = ()
    max_image_bytes: Annotated[int, Meta(ge=1)] = 20_000_000
    image_timeout_s: Annotated[float, Meta(gt=0)] = 10.0


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every model may be told.

    Args:
        architecture: the class of transformers that loads it, instead of the one its configuration names; of a state
            dict, the network of torchvision whose tensors it has.
        dtype: of the weights; `auto` takes the fastest that is accurate on the device.
        attn_implementation: as transformers names them (`sdpa`, `eager`, `flash_attention_2`, …).
        device_map: `auto` spreads a model over several GPUs, and what does not fit over the main memory.
        threads: that compute on a CPU; as many as there are cores when None.
        supports_structured_outputs: of existing models files; every text model does here.
        skip_download: likewise; the weights must be here already.
        sha256: of the file, where the source is the URL of one.
    """

    architecture: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: str | None = None
    device_map: str | dict[str, Any] | None = None
    threads: Annotated[int, Meta(ge=1)] | None = None
    supports_structured_outputs: bool | None = None
    skip_download: bool = False
    sha256: Annotated[str, Meta(pattern="^[0-9A-Fa-f]{8,64}$")] | None = None


OptionsT = TypeVar("OptionsT", bound=Options)


def options_of(model: Model, kind: type[OptionsT]) -> OptionsT:
    """Return the model's options as `kind`.

    Raises:
        SettingsError: an option is unknown or has a value that is refused.
    """
    return entry_options(model, kind, others=len(model.tasks) > 1)


def settings_of(context: Context) -> Settings:
    """Return the plugin's settings."""
    return context.settings(PLUGIN, Settings)
