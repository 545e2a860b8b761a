"""The installed plugins: stevedore turns their names into objects, pluggy asks them the questions."""

import inspect
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec
import pluggy
from msgspec import Struct

from yapit import hookspecs
from yapit.adapters import Adapter, Context
from yapit.catalog import Backend, Catalog, Entry, Model
from yapit.environments import Environment, read
from yapit.errors import InvalidInputError, LoadError, PluginError, StartupError, YapitError
from yapit.settings import Settings, catalog
from yapit.tasks import PROVISION, Task
from yapit.weights import Weights, weights_of

GROUP = "yapit.plugins"


class Plugin(Struct, frozen=True, kw_only=True):
    """What a person may know of a plugin.

    Args:
        name: that of its entry point.
        version: of its distribution.
        environment: its folder, if it lives in an environment of its own.
        hooks: what it implements; in an environment of its own, what it implements there.
        models: ids of the models it brings.
        error: one line, if it does not work.
        details: the error's traceback.
    """

    name: str
    version: str | None = None
    environment: str | None = None
    hooks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    error: str | None = None
    details: str | None = None


class Plugins:
    """The registered plugins and the ones that failed; every hook is called from here."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._versions: dict[str, str | None] = {}
        self._models: dict[str, list[Model]] | None = None
        self._backends: dict[str, Backend] | None = None
        self._runners: dict[str, str] | None = None
        self._completed: dict[bytes, Entry] = {}  # what was found out of entries, by what they say
        self.failed: dict[str, Plugin] = {}

    @classmethod
    def installed(cls, settings: Settings) -> "Plugins":
        """Load the plugins that the settings allow, those in environments of their own included."""
        return cls.load(settings.plugins, read(settings.data_dir))

    @classmethod
    def load(
        cls, allow: Iterable[str] | None = None, environments: Mapping[str, Environment | PluginError] | None = None
    ) -> "Plugins":
        """Import and register the installed plugins, or of these just the ones named in `allow`.

        A plugin that cannot be imported, breaks the hook contract, or shares its name with another distribution's
        goes to `failed`, and everything else works. One that has an environment of its own is not imported, even if
        it is also installed here: the environment stands for it.
        """
        plugins = cls()
        found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
        allowed = None if allow is None else list(dict.fromkeys(allow))
        counts = Counter(entry.name for entry in found)
        for entry in found:
            plugins._versions[entry.name] = entry.dist.version if entry.dist else None
        apart = environments or {}
        # pluggy asks the newest first: registered backwards, the first name is the first to be asked.
        for name in reversed(sorted({*counts, *apart}) if allowed is None else allowed):
            if name in apart:
                plugins._register_apart(name, apart[name])
            elif counts[name] == 1:
                plugins._load_one(name)
            else:
                plugins._fail(name, _unloadable(name, found))
        return plugins

    def register(self, name: str, plugin: object) -> None:
        """Register an imported plugin.

        Raises:
            PluginError: it implements an unknown hook, has wrong arguments, or a hook is a coroutine or a generator.
        """
        try:
            self._manager.register(plugin, name=name)
            self._manager.check_pending()
            self._check_colour(plugin)
        except (pluggy.PluginValidationError, PluginError) as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            raise PluginError(" ".join(str(error).split())) from error

    @property
    def names(self) -> list[str]:
        """The plugins that work in this process, by name."""
        return sorted(name for name, plugin in self._manager.list_name_plugin() if not isinstance(plugin, Environment))

    @property
    def apart(self) -> dict[str, Environment]:
        """The environments of the plugins that have one of their own, by the plugin's name."""
        return {name: found for name, found in self._manager.list_name_plugin() if isinstance(found, Environment)}

    def listing(self) -> list[Plugin]:
        """Return every plugin, also the failed ones, by name."""
        models = self.models()
        working = [
            Plugin(
                name=name,
                version=self._versions.get(name),
                environment=str(plugin.folder) if isinstance(plugin, Environment) else None,
                hooks=plugin.plugin.hooks if isinstance(plugin, Environment) else self._hooks(plugin),
                models=tuple(model.id for model in models.get(name, ())),
            )
            for name, plugin in self._manager.list_name_plugin()
        ]
        return sorted([*working, *self.failed.values()], key=lambda plugin: plugin.name)

    def models(self) -> dict[str, list[Model]]:
        """Return the models of each plugin; asked once. A plugin that raises or answers wrongly is taken out."""
        if self._models is None:
            self._models = dict(self._lists("register_models", Model))
        return self._models

    def catalog(self, settings: Settings, registered: Iterable[Entry] = ()) -> Catalog:
        """Return the models that are served: the plugins', the registered ones and the files', each complete.

        Raises:
            SettingsError: a models file, or an alias, is wrong.
        """
        interpreters, complete = self.interpreters(), self.complete
        return catalog(settings, self.models(), interpreters=interpreters, complete=complete, registered=registered)

    def backends(self) -> dict[str, Backend]:
        """Return the backends that plugins declare, by name; asked once."""
        if self._backends is None:
            self._ask_backends()
        return self._backends or {}

    def owner(self, model: Model) -> str | None:
        """Return the plugin that seems to run the model's backend; None if nobody does."""
        if model.python is not None:
            for name, environment in self.apart.items():
                if environment.python == model.python:
                    return name
        return self._who_runs().get(model.backend)

    def interpreters(self) -> dict[str, str]:
        """Return the interpreter for each backend that runs only in an environment of its own."""
        apart = self.apart
        return {backend: apart[name].python for backend, name in self._who_runs().items() if name in apart}

    def version(self, plugin: str | None) -> str | None:
        """Return the version of the distribution that brought the plugin."""
        return self._versions.get(plugin) if plugin is not None else None

    def complete(self, entry: Entry) -> Entry | None:
        """Return what the first plugin that knows it says of an incomplete entry; None if nobody does.

        What is known once is not asked again: a plugin may have to ask the hub. Where it could not, it says no tasks.
        """
        said = msgspec.json.encode(entry, order="sorted")
        if said in self._completed:
            return self._completed[said]
        for name, found in self.each("complete_model", entry=entry):
            if isinstance(found, dict):
                if found.get("tasks"):
                    self._completed[said] = found
                return found
            if found is not None:
                self._take_out(name, PluginError("complete_model must return a dictionary or None"))
        return None

    def describe(self, entry: Entry) -> Entry | None:
        """Return as `complete` does, but leave a plugin that raises where it is: the entry may be a stranger's.

        Raises:
            InvalidInputError: a plugin failed with this entry.
        """
        for implementation in reversed(self._manager.hook.complete_model.get_hookimpls()):
            try:
                found = implementation.function(**dict.fromkeys(implementation.argnames, entry))
            except YapitError:
                raise
            except (Exception, SystemExit) as error:
                reason = f"the plugin '{implementation.plugin_name}' failed with it ({type(error).__name__})"
                raise InvalidInputError(f"What the model is could not be found out: {reason}.") from error
            if isinstance(found, dict):
                return found
        return None

    def _who_runs(self) -> dict[str, str]:
        """Return the plugin that runs each backend; asked once."""
        if self._runners is None:
            self._ask_backends()
        return self._runners or {}

    def _ask_backends(self) -> None:
        """Find out who runs what: surely what a plugin declares, else what has its name, or is its models' backend."""
        declared = [(backend, name) for name, found in self._lists("register_backends", Backend) for backend in found]
        runs = [(backend.name, name) for backend, name in declared]
        runs += [(name, name) for name in (*self.names, *self.apart)]
        runs += [(model.backend, name) for name, models in self.models().items() for model in models]
        apart = self.apart
        self._runners, self._backends = {}, {}
        # Of several the first counts, and one of this process more than one of elsewhere.
        for backend, name in sorted(runs, key=lambda pair: pair[1] in apart):
            self._runners.setdefault(backend, name)
        for declaration, _ in declared:
            self._backends.setdefault(declaration.name, declaration)

    def _lists(self, hook: str, kind: type[Any]) -> Iterator[tuple[str, list[Any]]]:
        """Yield each plugin's answer to a hook that returns a list; one that answers wrongly is taken out."""
        for name, answer in self.each(hook):
            if isinstance(answer, list) and all(isinstance(item, kind) for item in answer):
                yield name, answer
            else:
                self._take_out(name, PluginError(f"{hook} must return a list of {kind.__name__.lower()}s"))

    def each(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """Call a hook plugin by plugin and yield who answered what; one that raises is failed and taken out."""
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            name = implementation.plugin_name
            try:
                accepted = {key: arguments[key] for key in implementation.argnames}
                yield name, implementation.function(**accepted)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever one raises, the others must go on
                self._take_out(name, error)

    def adapter(self, task: Task, model: Model, context: Context, target: str = "local") -> Adapter:
        """Load `model` for `task` and return its adapter. Blocks; call it where the model shall run.

        Raises:
            LoadError: no plugin serves the backend, or the one that does failed to load the model.
        """
        arguments: dict[str, Any] = {"model": model, "context": context}
        if task is PROVISION:
            arguments["target"] = target
        try:
            adapter = getattr(self._manager.hook, task.name)(**arguments)
        except StartupError as error:
            raise LoadError(f"The model '{model.id}' cannot be loaded: {error}") from error
        except YapitError:
            raise
        except (Exception, SystemExit) as error:
            message = f"The model '{model.id}' cannot be loaded ({type(error).__name__}); the server's log says more."
            raise LoadError(message) from error
        if adapter is None:
            raise LoadError(self.unserved(model), param="model")
        if not isinstance(adapter, task.adapter):
            kind = type(adapter).__name__
            raise LoadError(
                f"The plugin for backend '{model.backend}' returned a {kind}, not a {task.adapter.__name__}."
            )
        return adapter

    def weights(self, model: Model) -> list[Weights]:
        """Return what has to be on this machine before the model can be loaded; blocks if its plugin asks the hub.

        Raises:
            LoadError: its plugin failed.
        """
        try:
            found = self._manager.hook.weights(model=model)
        except YapitError:
            raise
        except (Exception, SystemExit) as error:
            message = f"What the model '{model.id}' needs is not known ({type(error).__name__}: {error})"
            raise LoadError(" ".join(message.split())) from error
        return weights_of(model) if found is None else list(found)

    def optimizations(self, model: Model) -> list[dict[str, Any]]:
        """Return options with which the model may be faster here; nothing if nobody knows any, or a plugin failed."""
        try:
            found = self._manager.hook.optimizations(model=model)
        except (Exception, SystemExit):  # noqa: BLE001 - whatever one raises, the model works as it is
            return []
        return list(found or ())

    def serves(self, model: Model) -> bool:
        """Tell, without loading, whether the model seems to have somebody who runs its backend."""
        return model.python is not None or self.owner(model) is not None

    def unserved(self, model: Model) -> str:
        """Return the sentence for a model whose backend nobody runs."""
        installed = ", ".join(sorted([*self.names, *self.apart])) or "none"
        return (
            f"No installed plugin serves backend '{model.backend}' (installed: {installed}); "
            f"try: pip install yapit-plugin-{model.backend}"
        )

    def _load_one(self, name: str) -> None:
        # Imported here: 40 ms that `import yapit` need not pay.
        from stevedore import NamedExtensionManager

        failures: list[BaseException] = []
        try:
            manager: NamedExtensionManager[Any] = NamedExtensionManager(
                GROUP,
                [name],
                on_load_failure_callback=lambda _manager, _entry, error: failures.append(error),
                on_missing_entrypoints_callback=None,
            )
            if failures:
                self._fail(name, failures[0])
                return
            self.register(name, manager[name].plugin)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an import may also assert or exit
            self._fail(name, error)

    def _register_apart(self, name: str, found: Environment | PluginError) -> None:
        if isinstance(found, PluginError):
            self._fail(name, found)
            return
        self._versions[name] = found.plugin.version
        self._manager.register(found, name=name)

    def _take_out(self, name: str, error: BaseException) -> None:
        self._manager.unregister(name=name)
        self._fail(name, error)

    def _fail(self, name: str, error: BaseException) -> None:
        line = " ".join(str(error).split())
        self.failed[name] = Plugin(
            name=name,
            version=self._versions.get(name),
            error=line if isinstance(error, PluginError) else f"{type(error).__name__}: {line}",
            details="".join(traceback.format_exception(error)),
        )

    def _implementations(self, plugin: object) -> Iterator[pluggy.HookImpl]:
        for caller in self._manager.get_hookcallers(plugin) or ():
            yield from (found for found in caller.get_hookimpls() if found.plugin is plugin)

    def _hooks(self, plugin: object) -> tuple[str, ...]:
        return tuple(sorted({found.function.__name__ for found in self._implementations(plugin)}))

    def _check_colour(self, plugin: object) -> None:
        for found in self._implementations(plugin):
            function = found.function
            generator = inspect.isgeneratorfunction(function) and not (found.wrapper or found.hookwrapper)
            if generator or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                # Its result is an object and never None, so it would answer for every model.
                raise PluginError(f"hook '{function.__name__}' must be a plain function that returns its answer")


def _unloadable(name: str, found: list[EntryPoint]) -> PluginError:
    owners = [entry.dist.name for entry in found if entry.name == name and entry.dist]
    if owners:
        return PluginError(f"several distributions bring a plugin of this name: {', '.join(sorted(owners))}")
    return PluginError(f"not installed; try: pip install yapit-plugin-{name}")
