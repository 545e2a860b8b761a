"""The settings: defaults < `yapit.yaml` < `YAPIT_*` environment < flags, decoded once into frozen structs."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from yapit.catalog import Catalog, Entry, Model, entry_of, merge, read_entries
from yapit.errors import SettingsError, did_you_mean
from yapit.quantities import seconds, size
from yapit.urls import masked_url

FILE = "yapit.yaml"
PREFIX = "YAPIT_"
_OPENAI_SPEECH_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
_OPENAI_LISTENING_MODELS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
# Further names of settings, weaker than the YAPIT_ ones: short forms, and what existing deployments set.
_OTHER_NAMES = {
    "YAPIT_HOST": "server.host",
    "YAPIT_PORT": "server.port",
    "YAPIT_API_KEYS": "server.api_keys",
    "YAPIT_VOICE_MAP": "speech.voice_map",
    "YAPIT_VOICE_MAP_FILE": "speech.voice_map_file",
    "MODELS": "models",
    "MODEL_CONFIG": "models_config",
    "VOICE_MAP": "speech.voice_map",
    "VOICE_MAP_FILE": "speech.voice_map_file",
    "DEVICE": "device",
    "DATABASE_URL": "database",
    "AUTO_DOWNLOAD_MODELS": "provisioning.auto_download",
}
# Kubernetes sets these in every pod beside a Service called yapit or yapit-web; they are nobody's settings.
_SERVICE_LINK = re.compile(r"YAPIT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_\w+)")
_MASK = "…"
_SECRET = re.compile(r"key|token|secret|password", re.IGNORECASE)

Text = Annotated[str, Meta(min_length=1)]


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server listens and whom it lets in.

    Args:
        host: address to bind; anything but loopback needs `api_keys`.
        port: 0 takes a free one.
        api_keys: keys accepted as `Authorization: Bearer`; none = no key is asked for.
        admin_keys: if any, only they may change which models there are, and they may do all else, too.
        allow_open: bind beyond loopback although no key is set.
        max_body_bytes: a larger request body gets 413.
        drain_s: seconds that running requests get to finish after SIGTERM.
        timeout_s: seconds a request may take, then it gets 504; a client may ask for fewer; 0 = no limit.
        tracing: send OpenTelemetry spans; needs `pip install yapit[otel]`.
    """

    host: Text = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000
    api_keys: tuple[Text, ...] = ()
    admin_keys: tuple[Text, ...] = ()
    allow_open: bool = False
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 10 * 1024 * 1024
    drain_s: Annotated[float, Meta(ge=0)] = 10.0
    timeout_s: Annotated[float, Meta(ge=0)] = 600.0
    tracing: bool = False

    def require_key(self) -> None:
        """Raise `SettingsError` if the server would listen to the network and let anybody in."""
        if not (_is_loopback(self.host) or self.api_keys or self.allow_open):
            raise SettingsError(
                f"server.host '{self.host}' is reachable from the network: set server.api_keys (YAPIT_API_KEYS), "
                "or server.allow_open if something in front of yapit asks for keys"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class SpeechSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How text becomes speech.

    Args:
        default_model: what `tts-1` and the command line use; the first speech model when None.
        max_input_chars: a longer `input` gets 400; 0 = no limit.
        voice_map: names clients may use for voices, in any case.
        voice_map_file: YAML or JSON file with such a map, read again when it changes; wins over `voice_map`.
    """

    default_model: str | None = None
    max_input_chars: Annotated[int, Meta(ge=0)] = 4096
    voice_map: dict[str, str] = {}
    voice_map_file: str | None = None


class TranscriptionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How speech becomes text.

    Args:
        default_model: what `whisper-1` and the command line use; the first model that listens when None.
        max_upload_bytes: a larger file gets 413; 0 = no limit. `server.max_body_bytes` does not hold for recordings.
        max_audio_s: a longer recording gets 400, however small its file is; 0 = no limit.
        min_timeout_s: seconds that a transcription may take at least, from when the recording is known.
        timeout_factor: it may take so many times the recording's length; with 0, `server.timeout_s` holds for it.
    """

    default_model: str | None = None
    max_upload_bytes: Annotated[int, Meta(ge=0)] = 25 * 1024 * 1024
    max_audio_s: Annotated[float, Meta(ge=0)] = 14_400.0
    min_timeout_s: Annotated[float, Meta(ge=0)] = 180.0
    timeout_factor: Annotated[float, Meta(ge=0)] = 2.5

    def timeout_s(self, duration_s: float) -> float | None:
        """Return the time that a recording of this length may take; None if nothing is said of it here."""
        return max(self.min_timeout_s, self.timeout_factor * duration_s) if self.timeout_factor else None


class EngineSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How models are loaded, kept, shared and given back; a catalog entry may say otherwise for its model.

    Args:
        executor: `thread` or `process` for all models; when None, backends that call themselves heavy get processes.
        executors: the same for single backends.
        keep_alive: how long an idle model stays loaded: seconds or `10m`; 0 not at all, negative for ever.
        memory: what loaded models may take of a device: `8GB`, or `80%` of it; 90% when a device is not named.
        max_loaded: models loaded at once; 0 = no limit.
        load_wait_s: seconds a request waits for its model to load, then it gets 503.
        max_queue: requests that may wait for a model; one more gets 429.
        queue_timeout_s: seconds a request waits for its turn, then it gets 503; 0 = no limit.
        batch_tokens: limit of a batch of embeddings, rankings or classifications: its inputs times the longest one.
        batch_window_s: seconds that a batch waits, on a busy model only, for requests to join it.
        warm_up: models that are loaded and tried before the server says it is ready; one that fails ends it.
        warm_up_optional: the same, but one that fails is only reported.
    """

    executor: str | None = None
    executors: dict[str, str] = {}
    keep_alive: str | float = "5m"
    memory: dict[str, str | int] = {}
    max_loaded: Annotated[int, Meta(ge=0)] = 0
    load_wait_s: Annotated[float, Meta(ge=0)] = 120.0
    max_queue: Annotated[int, Meta(ge=0)] = 100
    queue_timeout_s: Annotated[float, Meta(ge=0)] = 60.0
    batch_tokens: Annotated[int, Meta(ge=1)] = 16_384
    batch_window_s: Annotated[float, Meta(ge=0)] = 0.005
    warm_up: tuple[Text, ...] = ()
    warm_up_optional: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        seconds(self.keep_alive)
        for limit in self.memory.values():
            size(limit)


class ProvisioningSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How weights come onto this machine.

    Args:
        auto_download: a first request to a model whose weights are missing fetches them; else they must be there.
        wait_s: seconds that such a request waits for them, then it gets 503 and may try again.
        parallel: models fetched at a time; others wait.
        parallel_files: files of a model fetched at a time.
        tokens: for sources that ask for one, by the beginning of their id (`my-org`, `my-org/model`, or a host); others
            get HF_TOKEN.
        max_file_bytes: a larger file of a URL is not fetched: bytes, or text such as `20GB`.
        large_model: weights beyond this are fetched over HTTP only for who says that a large model is meant.
        allow_private_addresses: fetch files of URLs from addresses that are not public, too.
    """

    auto_download: bool = True
    wait_s: Annotated[float, Meta(ge=0)] = 10.0
    parallel: Annotated[int, Meta(ge=1)] = 2
    parallel_files: Annotated[int, Meta(ge=1)] = 4
    tokens: dict[str, Text] = {}
    max_file_bytes: str | int = "50GB"
    large_model: str | int = "20GB"
    allow_private_addresses: bool = False

    def __post_init__(self) -> None:
        if size(self.max_file_bytes) is None or size(self.large_model) is None:
            raise ValueError("a size in bytes is expected, not a share")

    def token_for(self, source: str) -> str | None:
        """Return the token that is set for a source, None if there is none."""
        fitting = [name for name in self.tokens if source == name or source.startswith(f"{name.rstrip('/')}/")]
        return self.tokens[max(fitting, key=len)] if fitting else None


class CacheSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether work that was done before is done again.

    Args:
        enabled: keep results of requests whose answer is always the same, in `data_dir/cache`.
        max_size: what the results may take on disk: bytes, or text such as `1GB`; the longest unused ones go.
        single_flight: equal requests that run at the same time are one.
    """

    enabled: bool = False
    max_size: str | int = "1GB"
    single_flight: bool = False

    def __post_init__(self) -> None:
        if size(self.max_size) is None:
            raise ValueError("a size in bytes is expected, not a share")


class CompatSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done as older servers did it.

    Args:
        legacy_status: what manages models answers refusals with status 200 and `success: false`.
    """

    legacy_status: bool = False


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged: `format` auto is text on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set.

    Args:
        server: where the server listens and whom it lets in.
        speech: how text becomes speech.
        transcription: how speech becomes text.
        engine: how models are loaded, kept, shared and given back.
        cache: whether work that was done before is done again.
        provisioning: how weights come onto this machine.
        compat: what is done as older servers did it.
        log: what is logged.
        plugins: allow-list of plugins, applied before import; all installed ones when None.
        plugin_settings: a section for each plugin, decoded by the plugin.
        models: ids that are served; all when empty.
        models_config: the models file; `models.yaml` of the working directory when None, if it is there.
        aliases: further names of models.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        data_dir: folder for what yapit and its plugins keep.
        database: URL of the database for what is registered at run time: `postgresql://…` or `sqlite:///…`; the file
            `yapit.db` in `data_dir` when None.
        models_refresh_s: seconds after which models that another server registered in the database are seen.
    """

    server: ServerSettings = ServerSettings()
    speech: SpeechSettings = SpeechSettings()
    transcription: TranscriptionSettings = TranscriptionSettings()
    engine: EngineSettings = EngineSettings()
    cache: CacheSettings = CacheSettings()
    provisioning: ProvisioningSettings = ProvisioningSettings()
    compat: CompatSettings = CompatSettings()
    log: LogSettings = LogSettings()
    plugins: tuple[str, ...] | None = None
    plugin_settings: dict[str, dict[str, Any]] = {}
    models: tuple[str, ...] = ()
    models_config: str | None = None
    aliases: dict[str, str] = {}
    device: Text = "auto"
    data_dir: Text = "data"
    database: Text | None = None
    models_refresh_s: Annotated[float, Meta(ge=0.05)] = 2.0


class Effective(Struct, frozen=True):
    """The settings, and for every path that is not a default, where its value came from."""

    settings: Settings
    sources: dict[str, str]

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Yield path, value and source of every setting; keys are masked."""
        values = msgspec.to_builtins(self.settings)
        for path in leaves(Settings):
            value = _get(values, path)
            if path in ("server.api_keys", "server.admin_keys"):
                value = [_MASK] * len(value)
            if path == "provisioning.tokens":
                value = dict.fromkeys(value, _MASK)
            if path == "database" and value is not None:
                value = masked_url(value)
            if path == "plugin_settings":
                value = {plugin: _masked(section) for plugin, section in value.items()}
            yield path, value, self.sources.get(path, "default")


def _masked(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plugin's section with what may be a secret masked; only the plugin knows what its keys mean."""
    return {key: _MASK if _SECRET.search(key) else value for key, value in section.items()}


def load(environ: Mapping[str, str], flags: Mapping[str, Any] | None = None, folder: Path | None = None) -> Effective:
    """Return the effective settings.

    Args:
        environ: the process's environment.
        flags: values of the command line by path (`server.port`); None values are not set.
        folder: where `yapit.yaml` is looked for; `YAPIT_CONFIG` names another file.

    Raises:
        SettingsError: a key is unknown, a value does not fit, or a named file is missing.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    file = _file(environ, folder or Path.cwd())
    if file is not None:
        document = _read(file)
        _decode(document, str(file))
        _take(merged, sources, {path: _get(document, path) for path in leaves(Settings) if _has(document, path)}, file)
    for name, path, text in _environment(environ):
        value = _from_text(path, text)
        _decode(_nested(path, value), name)
        _take(merged, sources, {path: value}, name)
    for path, value in (flags or {}).items():
        if value is not None:
            _decode(_nested(path, value), f"--{path.rpartition('.')[2]}")
            _take(merged, sources, {path: value}, "flag")
    return Effective(_decode(merged, "settings"), sources)


def leaves(struct: type[Struct], prefix: str = "") -> list[str]:
    """Return the dotted path of every setting."""
    found: list[str] = []
    for item in msgspec.structs.fields(struct):
        path = f"{prefix}{item.name}"
        nested = isinstance(item.type, type) and issubclass(item.type, Struct)
        found += leaves(item.type, f"{path}.") if nested else [path]
    return found


def schema() -> dict[str, Any]:
    """Return the JSON schema of `yapit.yaml`."""
    return msgspec.json.schema(Settings)


def catalog(
    settings: Settings,
    plugin_models: Mapping[str, list[Model]],
    folder: Path | None = None,
    interpreters: Mapping[str, str] | None = None,
    complete: Callable[[Entry], Entry | None] | None = None,
    registered: Iterable[Entry] = (),
) -> Catalog:
    """Return the catalog: `models.local.yaml` over `models.yaml` over registered models over the plugins' ones.

    It is restricted to `models` and to what is registered.

    Args:
        settings: the effective settings.
        plugin_models: what each plugin registers.
        folder: where the models files are looked for; the working directory when None.
        interpreters: for each backend that runs in an environment of its own; models that name none get it.
        complete: says what an entry leaves out that has no backend or no tasks.
        registered: complete entries of what was registered at run time.

    Raises:
        SettingsError: a file is no models file, or a name in `models` or `aliases` is in no catalog.
    """
    lowest: dict[str, Entry] = {}
    duplicates = []
    for plugin, models in plugin_models.items():
        for model in models:
            if model.id in lowest:
                duplicates.append(f"model '{model.id}' of plugin '{plugin}' is displaced by another plugin's")
            else:
                lowest[model.id] = entry_of(model)
    # By their ids alone: unlike an entry of a file, one of another id and the same source is a model of its own.
    added = {entry["id"]: entry for entry in registered}
    duplicates += [f"model '{name}' of a plugin is displaced by a registered one" for name in added if name in lowest]
    layers = [read_entries(path) for path in model_files(settings, folder)]
    merged = merge((lowest | added).values(), *layers, complete=complete, by_id=added)
    models = [_housed(model, interpreters or {}) for model in merged]
    aliases = {**_openai_aliases(settings, models), **settings.aliases}
    served = Catalog(models, aliases, tuple(duplicates))
    return served.restrict((*settings.models, *added)) if settings.models else served


def _housed(model: Model, interpreters: Mapping[str, str]) -> Model:
    python = model.python or interpreters.get(model.backend)
    return model if python == model.python else msgspec.structs.replace(model, python=python)


def _openai_aliases(settings: Settings, models: list[Model]) -> dict[str, str]:
    named = {settings.aliases.get(name, name) for name in settings.models}
    served = [model for model in models if not named or named & {model.id, *model.aliases}]
    taken = {name for model in models for name in (model.id, *model.aliases)}
    aliases: dict[str, str] = {}
    for task, wanted, names in (
        ("synthesize", settings.speech.default_model, _OPENAI_SPEECH_MODELS),
        ("transcribe", settings.transcription.default_model, _OPENAI_LISTENING_MODELS),
    ):
        # echo only hums and hears itself: it is the default when nothing else does the task. `whisper-1` is a Whisper.
        able = [model for model in served if task in model.tasks]
        able.sort(key=lambda model: (model.backend == "echo", model.backend != "whisper"))
        target = wanted or (able[0].id if able else None)
        if target:
            aliases |= {name: target for name in names if name not in taken}
    return aliases


def model_files(settings: Settings, folder: Path | None = None) -> list[Path]:
    """Return the models files that are there, weaker ones first; of the working directory when `folder` is None.

    Raises:
        SettingsError: the settings name one that is not there.
    """
    named = settings.models_config
    main = Path(named) if named else (folder or Path.cwd()) / "models.yaml"
    if named and not main.is_file():
        raise SettingsError(f"models_config: there is no file '{main}'")
    beside = [main.with_name(name) for name in ("models.local.yaml", "models.local.yml")]
    return [path for path in (main, *beside) if path.is_file()]


def _file(environ: Mapping[str, str], folder: Path) -> Path | None:
    named = environ.get(f"{PREFIX}CONFIG")
    path = Path(named) if named else folder / FILE
    if path.is_file():
        return path
    if named:
        raise SettingsError(f"YAPIT_CONFIG: there is no file '{path}'")
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = msgspec.yaml.decode(path.read_bytes())
    except (msgspec.DecodeError, OSError) as error:
        raise SettingsError(f"{path}: {' '.join(str(error).split())}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: expected a mapping")
    return document


def _environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield name, path and text of each variable that sets something, weaker names first."""
    full = {f"{PREFIX}{path.replace('.', '_').upper()}": path for path in leaves(Settings)}
    known = {name: path for name, path in _OTHER_NAMES.items() if not name.startswith(PREFIX)}
    known |= {name: path for name, path in _OTHER_NAMES.items() if name.startswith(PREFIX)}
    known |= full
    for name, path in known.items():
        text = environ.get(name)
        if text and not text.startswith("tcp://"):
            yield name, path, text
    for name, text in environ.items():
        ours = name.startswith(PREFIX) and not (_SERVICE_LINK.fullmatch(name) or text.startswith("tcp://"))
        if ours and name not in known and name != f"{PREFIX}CONFIG":
            raise SettingsError(
                f"{name} sets nothing. {did_you_mean(name, [n for n in known if n.startswith(PREFIX)])}"
            )


def _from_text(path: str, text: str) -> Any:
    """Return the value an environment variable means: JSON, or `a,b` for a list and `a:b,c:d` for a map."""
    default = _get(msgspec.to_builtins(Settings()), path)
    text = text.strip()
    if text[:1] in ("[", "{"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise SettingsError(f"{path}: {error}") from error
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(default, list | tuple) or path == "plugins":
        return parts
    if isinstance(default, dict):
        # A device may have a colon of its own, as `cuda:0:90%`.
        pairs = [part.rpartition(":") if path == "engine.memory" else part.partition(":") for part in parts]
        if not all(colon for _, colon, _ in pairs):
            raise SettingsError(f"{path}: expected 'name:value,name:value', got '{text}'")
        return {key.strip(): value.strip() for key, _, value in pairs}
    return text


def _decode(document: dict[str, Any], source: str) -> Settings:
    try:
        return msgspec.convert(document, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {_with_path(str(error))}") from error


def _with_path(message: str) -> str:
    """Put an unknown key into the path, where msgspec names it beside: `$.server.prot`."""
    match = re.fullmatch(r"Object contains unknown field `(.+?)`(?: - at `(.+)`)?", message)
    if match is None:
        return message
    path = f"{match[2] or '$'}.{match[1]}"
    return f"unknown key `{path}`. {did_you_mean(path.removeprefix('$.'), leaves(Settings))}"


def _take(merged: dict[str, Any], sources: dict[str, str], values: Mapping[str, Any], source: object) -> None:
    for path, value in values.items():
        *parents, last = path.split(".")
        node = merged
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
        sources[path] = str(source)


def _nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def _has(document: Any, path: str) -> bool:
    head, _, rest = path.partition(".")
    return isinstance(document, dict) and head in document and (not rest or _has(document[head], rest))


def _get(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document[key]
    return document
