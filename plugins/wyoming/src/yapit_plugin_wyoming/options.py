"""What can be set: the section `plugin_settings.wyoming`."""

import ipaddress
from typing import Annotated, Literal

from msgspec import Meta, Struct

Service = Literal["speech", "transcription"]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Name = Annotated[str, Meta(min_length=1)]
SPEECH_PORT, TRANSCRIPTION_PORT = 10_200, 10_300  # where piper and whisper are expected


class WyomingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is served over Wyoming, where, and with which models.

    Args:
        serve: what is served; nothing when empty.
        host: address to bind; anything but loopback needs `allow_open`.
        allow_open: bind beyond loopback, although Wyoming has no keys: whoever reaches the ports may use the models.
        speech_port: 0 takes a free one. When None it is 10200, and if that is taken, speech is not served.
        transcription_port: likewise with 10300. If it is the speech port, both are served there.
        speech_model: that speaks where the client names no voice; that of `tts-1` when None.
        voice: of that model, where the client names none; the model's default when None.
        transcription_model: that listens where the client names none; that of `whisper-1` when None.
        idle_timeout_s: seconds after which a connection ends on which nothing happens.
        max_connections: at once, on all ports together.
        discovery: announce the ports on the network; needs `pip install yapit-plugin-wyoming[discovery]`.
    """

    serve: tuple[Service, ...] = ("speech", "transcription")
    host: Name = "127.0.0.1"
    allow_open: bool = False
    speech_port: Port | None = None
    transcription_port: Port | None = None
    speech_model: Name | None = None
    voice: Name | None = None
    transcription_model: Name | None = None
    idle_timeout_s: Annotated[float, Meta(gt=0)] = 60.0
    max_connections: Annotated[int, Meta(ge=1)] = 64
    discovery: bool = False

    def __post_init__(self) -> None:
        if is_loopback(self.host):
            if self.discovery:
                raise ValueError(f"discovery: nobody on the network could reach host '{self.host}'")
        elif not self.allow_open:
            raise ValueError(
                f"host '{self.host}' is reachable from the network, and Wyoming has no keys: set allow_open if "
                "whoever reaches it may use the models"
            )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
