"""Under which key a result is kept: everything that the answer depends on, and nothing for an answer left to chance."""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from yapit import __version__
from yapit.catalog import Model
from yapit.errors import YapitError
from yapit.plugins import Plugins
from yapit.schemas import Request, SynthesizeRequest
from yapit.tasks import GENERATE, PROVISION, Task

_FORMAT = 1  # of the entries; another one has other keys
_LARGE_BYTES = 1_000_000  # hashed off the event loop
# What of a catalog entry changes where, when and how a model runs, but not what it answers.
_RUNNING = {
    "tasks",
    "aliases",
    "memory_bytes",
    "licence",
    "description",
    "placement",
    "executor",
    "device",
    "keep_alive",
    "pin",
    "exclusive",
    "max_concurrency",
    "max_queue",
    "batch_tokens",
    "deterministic",
}
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Keys:
    """Names answers.

    Args:
        plugins: whose versions count.
        plugin_settings: what plugins are told, which may change what they answer.
    """

    def __init__(self, plugins: Plugins, plugin_settings: Mapping[str, Mapping[str, Any]]) -> None:
        self._plugins = plugins
        self._plugin_settings = plugin_settings
        self._known: dict[str, tuple[Model, bytes]] = {}
        # Stands for a version that nobody knows: what was made by it is not found by the next process.
        self._lifetime = secrets.token_hex(8)

    async def of(self, task: Task, model: Model, request: Request, *further: object) -> bytes | None:
        """Return the key of an answer, of which `further` says more; None if the next one may be different."""
        if not _is_deterministic(task, model, request):
            return None
        if _media_bytes(request) < _LARGE_BYTES:
            return self._key(task, model, request, further)
        return await asyncio.to_thread(self._key, task, model, request, further)

    def _key(self, task: Task, model: Model, request: Request, further: tuple[object, ...]) -> bytes | None:
        try:
            if isinstance(request, SynthesizeRequest) and request.voice is None and not request.language:
                request = msgspec.structs.replace(request, voice=model.voice(None))
            said = _encode((_FORMAT, __version__, task.name, self._model(model), request, further))
        except (YapitError, TypeError, ValueError, OverflowError):
            # An unknown voice, or options that msgpack cannot write: whoever runs the request will say so.
            return None
        return hashlib.sha256(said).digest()

    def _model(self, model: Model) -> bytes:
        """Return the digest of the model and of what runs it."""
        known = self._known.get(model.id)
        if known is None or known[0] is not model:
            known = self._known[model.id] = (model, self._digest(model))
        return known[1]

    def _digest(self, model: Model) -> bytes:
        plugin = self._plugins.owner(model)
        entry = {name: value for name, value in msgspec.to_builtins(model).items() if name not in _RUNNING}
        settings = self._plugin_settings.get(plugin or "", {})
        said = _encode((entry, plugin, self._version(plugin, model), settings, _stamp(model.source)))
        return hashlib.sha256(said).digest()

    def _version(self, plugin: str | None, model: Model) -> str:
        """Return what tells this version of the plugin from others."""
        environment = self._plugins.apart.get(plugin or "")
        if model.python is not None and (environment is None or environment.python != model.python):
            # With an interpreter that somebody names, it may be any.
            return self._lifetime
        return self._plugins.version(plugin) or self._lifetime


def _is_deterministic(task: Task, model: Model, request: Request) -> bool:
    if task is PROVISION or not model.deterministic or getattr(request, "path", None) is not None:
        # A file lasts only as long as the request that names it.
        return False
    asked = {name: value for name in ("seed", "temperature") if (value := getattr(request, name, None)) is not None}
    seed = asked.get("seed", request.options.get("seed"))
    if isinstance(seed, int) and seed >= 0:  # negative ones ask for a new seed each time
        return True
    own = request.options.get("temperature")
    temperatures = [asked.get("temperature", model.defaults.get("temperature") if own is None else None), own]
    given = [temperature for temperature in temperatures if temperature is not None]
    if any(temperature != 0 for temperature in given):
        return False
    return task is not GENERATE or "temperature" in asked or own is not None


def _media_bytes(request: Request) -> int:
    """Return how much sound, or how many bytes of pictures, a request brings."""
    fields = (field if isinstance(field, tuple) else (field,) for field in msgspec.structs.astuple(request))
    return sum(len(item) for field in fields for item in field if isinstance(item, bytes))


def _stamp(source: str | None) -> tuple[int, int] | None:
    """Return what changes when the model on this machine does, if that is where it comes from."""
    if not source:
        return None
    try:
        found = Path(source).stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size
