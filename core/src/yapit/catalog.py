"""The models a server knows: entries of plugins, `models.yaml` and `models.local.yaml`, merged into one catalog."""

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from yapit.blends import is_blend, read_blend, spell_blend
from yapit.errors import InvalidInputError, ModelNotFoundError, SettingsError, did_you_mean
from yapit.quantities import seconds
from yapit.tasks import TASKS

Entry = dict[str, Any]
_SLUG_LENGTH = 96
_SLUG = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


class Backend(Struct, frozen=True, kw_only=True):
    """Software that runs models, as the plugin that brings it declares it.

    Args:
        name: what catalog entries call it.
        heavy: its models compute or take much memory: each runs in a process of its own unless the settings say
            otherwise.
    """

    name: str
    heavy: bool = False


class Voice(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A voice a client may name: its id, the name shown to people, BCP 47 languages, and what is known of it."""

    id: str
    name: str | None = None
    languages: tuple[str, ...] = ()
    gender: str | None = None
    description: str | None = None


class Model(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A catalog entry: everything a client may ask before the model is loaded.

    Args:
        id: the name clients use; may contain `/`.
        backend: the software that runs it: the key a plugin's factory matches.
        tasks: names from `yapit.tasks`.
        aliases: further names.
        source: a Hugging Face repo id, a URL or a path.
        revision: of the source; the newest when None.
        options: the backend's own settings for this model.
        defaults: request values used where the client gives none (`voice`, `temperature`, …).
        voices: what `voice` may be; any when empty.
        voice_aliases: further names of voices, such as OpenAI's.
        voice_variants: suffixes that may follow a voice's id after `+`.
        voice_blends: mixtures of voices are voices too, as `yapit.blends` writes them.
        markup: it reads `[word](/phonemes/)` and `[pause:1s]`, which no piece of a text is then cut in; its option, and
            a request's, `markup: false` turn that off.
        languages: BCP 47 tags.
        sample_rate: Hz of the speech it makes.
        speed_range: the speeds its adapter honours itself; the core stretches the rest, keeping the pitch.
        dimensions: length of its vectors.
        context_length: tokens it can read.
        memory_bytes: estimate of what it takes when loaded.
        licence: SPDX expression of the weights.
        description: one line for people.
        placement: where it may run, best first.
        executor: how its calls reach it: `thread` in the server's process, `process` in a child of its own.
        python: interpreter of the child, where the model's plugin lives in an environment of its own.
        device: where it runs; the setting `device` when None.
        keep_alive: how long it stays loaded when idle; the setting `engine.keep_alive` when None.
        pin: never evicted; leaves only when it is asked to.
        exclusive: name of a group of models of which only one may be loaded at a time.
        max_concurrency: calls at once, if fewer than its adapter takes.
        max_queue: requests that may wait for it; the setting `engine.max_queue` when None.
        batch_tokens: limit of a batch, padding counted; the setting `engine.batch_tokens` when None.
        deterministic: the same request has the same answer, which may be kept in a cache.
    """

    id: str
    backend: str
    tasks: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    source: str | None = None
    revision: str | None = None
    options: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    voices: tuple[Voice, ...] = ()
    voice_aliases: dict[str, str] = {}
    voice_variants: tuple[str, ...] = ()
    voice_blends: bool = False
    markup: bool = False
    languages: tuple[str, ...] = ()
    sample_rate: int | None = None
    speed_range: tuple[float, float] = (1.0, 1.0)
    dimensions: int | None = None
    context_length: int | None = None
    memory_bytes: int | None = None
    licence: str | None = None
    description: str | None = None
    placement: tuple[str, ...] = ("local",)
    executor: str | None = None
    python: str | None = None
    device: str | None = None
    keep_alive: str | float | None = None
    pin: bool = False
    exclusive: str | None = None
    max_concurrency: Annotated[int, Meta(ge=1)] | None = None
    max_queue: Annotated[int, Meta(ge=0)] | None = None
    batch_tokens: Annotated[int, Meta(ge=1)] | None = None
    deterministic: bool = True

    def __post_init__(self) -> None:
        if self.keep_alive is not None:
            seconds(self.keep_alive)

    def voice(self, wanted: str | None) -> str | None:
        """Return the voice id that `wanted` names, or the default one; None if the model has no list.

        It may be an id, an alias, or a language tag (then the first voice of that language is meant), in any case; or a
        blend of those, if the model takes any. An alias may stand for a blend.

        Raises:
            InvalidInputError: the model has no such voice; the message lists near ones.
        """
        name = wanted or self.defaults.get("voice") or (self.voices[0].id if self.voices else None)
        if not self.voices or name is None or any(voice.id == name for voice in self.voices):
            return name
        if self.voice_blends:
            aliases = {alias.casefold(): target for alias, target in self.voice_aliases.items()}
            meant = aliases.get(name.casefold(), name)
            if is_blend(meant) and meant.casefold() not in self._known():  # the tag of a language may look like one
                return spell_blend(
                    tuple(share._replace(voice=self._listed(share.voice)) for share in read_blend(meant))
                )
        return self._listed(name)

    def _listed(self, name: str) -> str:
        """Return the id that one name stands for; raises as `voice`."""
        known = self._known()
        aliases = {alias.casefold(): target for alias, target in self.voice_aliases.items()}
        folded = name.casefold()
        if folded not in known and folded in aliases:
            folded = aliases[folded].casefold()
        base, plus, variant = folded.partition("+")
        variants = {suffix.casefold(): suffix for suffix in self.voice_variants}
        if base in known and (not plus or variant in variants):
            return known[base] + (f"+{variants[variant]}" if plus else "")
        near = [*variants.values()] if base in known else [*dict.fromkeys(known.values()), *self.voice_aliases]
        hint = did_you_mean(variant if base in known else base, near)
        raise InvalidInputError(f"The model '{self.id}' has no voice '{name}'. {hint}".rstrip(), param="voice")

    def _known(self) -> dict[str, str]:
        """Return the voices by what names them alone: the tag of a language, or the id."""
        known = {tag.casefold(): voice.id for voice in reversed(self.voices) for tag in voice.languages[:1]}
        return known | {voice.id.casefold(): voice.id for voice in self.voices}


class Handler(NamedTuple):
    """What a handler class of an existing models.yaml stands for here."""

    backend: str
    task: str


HANDLERS = {
    "HFEmbeddingModel": Handler("hf-generic", "embed"),
    "TextChatModel": Handler("hf-generic", "generate"),
    "QwenVLChat": Handler("hf-generic", "generate"),
    "WhisperASR": Handler("whisper", "transcribe"),
    "OpenAIChatProxyModel": Handler("openai", "generate"),
    "OpenAIEmbeddingProxyModel": Handler("openai", "embed"),
    "VLLMChatProxyModel": Handler("openai", "generate"),
    "VLLMEmbeddingProxyModel": Handler("openai", "embed"),
}
_OPTION_KEYS = (
    "supports_structured_outputs",
    "pooling",
    "upstream_base_url",
    "upstream_api_key_env",
    "upstream_headers",
    "upstream_timeout_s",
    "skip_download",
)


class Catalog:
    """The models by id and by alias, in the order they are listed.

    Args:
        models: entries with unique ids.
        aliases: further names, each for an id or for an alias that a model has.
        duplicates: lines for people about entries that another one of the same id displaced.
    """

    def __init__(
        self, models: Iterable[Model], aliases: Mapping[str, str] | None = None, duplicates: tuple[str, ...] = ()
    ) -> None:
        self._models = {model.id: model for model in models}
        own = {alias: model.id for model in self._models.values() for alias in model.aliases}
        names = own | {name: name for name in self._models}
        self._aliases = own | {alias: names.get(target, target) for alias, target in (aliases or {}).items()}
        self.duplicates = duplicates
        for alias, target in self._aliases.items():
            if target not in self._models:
                raise SettingsError(f"The alias '{alias}' names '{target}', which no catalog has. {self._near(target)}")

    def __getitem__(self, name: str) -> Model:
        """Return the model with this id or alias, or raise `ModelNotFoundError` naming near ones."""
        model = self._models.get(name) or self._models.get(self._aliases.get(name, ""))
        if model is None:
            message = f"The model '{name}' does not exist or you do not have access to it. {self._near(name)}"
            raise ModelNotFoundError(message.rstrip(), param="model")
        return model

    def __contains__(self, name: object) -> bool:
        """Tell whether a model has this id or alias."""
        return name in self._models or name in self._aliases

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def with_task(self, task: str) -> list[Model]:
        """Return the models that do `task`, in order."""
        return [model for model in self if task in model.tasks]

    def restrict(self, names: Iterable[str]) -> "Catalog":
        """Return the catalog of just these ids or aliases.

        Raises:
            SettingsError: no catalog has one of them; the message names near ones.
        """
        kept: dict[str, Model] = {}
        for name in names:
            try:
                model = self[name]
            except ModelNotFoundError as error:
                raise SettingsError(f"MODELS names '{name}', which no catalog has. {self._near(name)}") from error
            kept[model.id] = model
        aliases = {alias: target for alias, target in self._aliases.items() if target in kept}
        return Catalog(kept.values(), aliases, self.duplicates)

    def _near(self, name: str) -> str:
        return did_you_mean(name, [*self._models, *self._aliases])


def read_models(path: Path | Traversable) -> list[Model]:
    """Return the models of a `models.yaml`: a list of entries, or a mapping with that list under `models`.

    Raises:
        SettingsError: the file is not YAML, or an entry is not a model; names the file and the path inside.
    """
    return [_model(entry, f"{path.name}: $.models[{i}]") for i, entry in enumerate(read_entries(path))]


def read_entries(path: Path | Traversable) -> list[Entry]:
    """Return the entries of a `models.yaml` in today's names, not yet complete: a local file may override a part."""
    try:
        document = msgspec.yaml.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path}: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    entries = document.get("models") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SettingsError(f"{path}: expected a list of models, or a mapping with that list under 'models'")
    return [_today(entry, f"{path.name}: $.models[{i}]") for i, entry in enumerate(entries)]


def model_of(entry: Entry, complete: Callable[[Entry], Entry | None] | None = None) -> Model:
    """Return the model that one entry describes, in the names of today or of existing files.

    Args:
        entry: of a models file.
        complete: says what it leaves out, if it has no backend or no tasks; None if nobody knows.

    Raises:
        SettingsError: it is no model.
    """
    return merge([_today(entry, f"model '{entry.get('id', entry.get('name', '?'))}'")], complete=complete)[0]


def check_slug(name: str) -> None:
    """Raise `InvalidInputError` unless the name is one that a registered model may have."""
    if len(name) > _SLUG_LENGTH or not _SLUG.fullmatch(name) or any(not part.strip(".") for part in name.split("/")):
        raise InvalidInputError(
            f"A model's name has 1 to {_SLUG_LENGTH} letters, digits, '.', '_' and '-', with '/' between parts, of "
            f"which none is made of dots only; got {name[: _SLUG_LENGTH + 1]!r}.",
            param="name",
        )


def entry_of(model: Model) -> Entry:
    """Return the model as a mergeable entry: only what it sets."""
    entry: Entry = msgspec.to_builtins(model)
    return entry


def merge(
    *layers: Iterable[Entry],
    complete: Callable[[Entry], Entry | None] | None = None,
    by_id: Container[str] = (),
) -> list[Model]:
    """Return the models of all layers, later ones over earlier ones.

    Entries match by id, then by source; nested maps are merged deep, lists replaced, unmatched entries appended.
    A model that an entry renames keeps its old id as an alias.

    Args:
        layers: of entries.
        complete: says what an entry leaves out that has no backend or no tasks; None if nobody knows.
        by_id: ids of entries that match by their ids alone.
    """
    merged: list[Entry] = []
    for layer in layers:
        merged = _merge_layer(merged, layer, by_id)
    return [_model(_completed(entry, complete), f"model '{entry.get('id', '?')}'") for entry in merged]


def _completed(entry: Entry, complete: Callable[[Entry], Entry | None] | None) -> Entry:
    """Return the entry with what it leaves out; what it says itself counts more."""
    if "backend" in entry and "tasks" in entry:
        return entry
    found = complete(entry) if complete is not None else None
    if found is None and "backend" not in entry:
        raise SettingsError(
            f"model '{entry.get('id', '?')}' names no backend, and no installed plugin knows its source; "
            "name its backend and its tasks, or try: pip install yapit-plugin-hf-generic"
        )
    return _deep_merge(found or {}, entry)


def _merge_layer(lower: list[Entry], layer: Iterable[Entry], by_id: Container[str]) -> list[Entry]:
    result, taken = list(lower), set[int]()
    for entry in layer:
        match = _find(lower, entry, by_id)
        if match is None:
            result.append(entry if "id" in entry else {**entry, "id": entry.get("source")})
            continue
        combined = _deep_merge(lower[match], entry)
        if match in taken:
            result.append(combined)
            continue
        taken.add(match)
        if combined["id"] != lower[match]["id"]:
            combined["aliases"] = [*combined.get("aliases", ()), lower[match]["id"]]
        result[match] = combined
    twice = [name for name, count in Counter(entry["id"] for entry in result).items() if count > 1]
    if twice:
        raise SettingsError(f"two models of one file have the id '{twice[0]}'")
    return result


def _find(entries: list[Entry], wanted: Entry, by_id: Container[str]) -> int | None:
    for key in ("id", "source"):
        for index, entry in enumerate(entries):
            meant = key == "id" or entry["id"] not in by_id
            if meant and wanted.get(key) is not None and entry.get(key) == wanted[key]:
                return index
    return None


def _deep_merge(lower: Entry, upper: Entry) -> Entry:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = _deep_merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _today(entry: Entry, where: str) -> Entry:
    """Return the entry with the names of existing files put into today's."""
    new = dict(entry)
    for old, key in (("name", "id"), ("hf_repo_id", "source")):
        if old in new:
            value = new.pop(old)
            if new.setdefault(key, value) != value:
                raise SettingsError(f"{where}: '{old}' and '{key}' differ")
    if "handler" in new:
        _apply_handler(new, str(new.pop("handler")), where)
    options = {key: new.pop(key) for key in _OPTION_KEYS if key in new}
    if options:
        new["options"] = {**options, **new.get("options", {})}
    for key in new:
        if key not in Model.__struct_fields__:
            raise SettingsError(f"{where}: unknown key '{key}'. {did_you_mean(key, [*Model.__struct_fields__])}")
    return new


def _apply_handler(entry: Entry, handler: str, where: str) -> None:
    name = handler.rpartition(".")[2]
    known = HANDLERS.get(name)
    if known is not None:
        entry.setdefault("backend", known.backend)
        entry.setdefault("tasks", [known.task])
    elif "." in handler:
        raise SettingsError(f"{where}.handler: '{handler}' is unknown. {did_you_mean(name, [*HANDLERS])}")
    else:
        entry.setdefault("backend", handler)


def _model(entry: Entry, where: str) -> Model:
    complete = entry if "id" in entry else {**entry, "id": entry.get("source")}
    try:
        model = msgspec.convert(complete, Model)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {error}") from error
    unknown = [task for task in model.tasks if task not in TASKS]
    if unknown:
        raise SettingsError(f"{where}: unknown task '{unknown[0]}'. {did_you_mean(unknown[0], [*TASKS])}")
    return model


def folder_of(source: str) -> Path | None:
    """Return the folder on this machine that a source names, None if it names none."""
    try:
        folder = Path(source).expanduser()
    except RuntimeError:  # there is nobody of the name after `~`
        return None
    return folder if folder.is_dir() else None
