"""The installed plugins: stevedore turns their names into objects, pluggy asks them the questions."""

import inspect
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from msgspec import Struct

from yapit import hookspecs
from yapit.adapters import Adapter, Context
from yapit.catalog import Model
from yapit.errors import LoadError, PluginError, StartupError, YapitError
from yapit.tasks import PROVISION, Task

GROUP = "yapit.plugins"


class Plugin(Struct, frozen=True, kw_only=True):
    """What a person may know of a plugin; `error` is one line, `details` its traceback."""

    name: str
    version: str | None = None
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
        self.failed: dict[str, Plugin] = {}

    @classmethod
    def load(cls, allow: Iterable[str] | None = None) -> "Plugins":
        """Import and register the installed plugins, or of these just the ones named in `allow`.

        A plugin that cannot be imported, breaks the hook contract, or shares its name with another distribution's
        goes to `failed`, and everything else works.
        """
        plugins = cls()
        found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
        allowed = None if allow is None else list(dict.fromkeys(allow))
        counts = Counter(entry.name for entry in found)
        for entry in found:
            plugins._versions[entry.name] = entry.dist.version if entry.dist else None
        # pluggy asks the newest first: registered backwards, the first name is the first to be asked.
        for name in reversed(list(counts) if allowed is None else allowed):
            if counts[name] == 1:
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
        """The plugins that work, by name."""
        return sorted(name for name, _ in self._manager.list_name_plugin())

    def listing(self) -> list[Plugin]:
        """Return every plugin, also the failed ones, by name."""
        models = self.models()
        working = [
            Plugin(
                name=name,
                version=self._versions.get(name),
                hooks=self._hooks(plugin),
                models=tuple(model.id for model in models.get(name, ())),
            )
            for name, plugin in self._manager.list_name_plugin()
        ]
        return sorted([*working, *self.failed.values()], key=lambda plugin: plugin.name)

    def models(self) -> dict[str, list[Model]]:
        """Return the models of each plugin; asked once. A plugin that raises or answers wrongly is taken out."""
        if self._models is None:
            self._models = {}
            for name, answer in self.each("register_models"):
                if isinstance(answer, list) and all(isinstance(model, Model) for model in answer):
                    self._models[name] = answer
                else:
                    self._take_out(name, PluginError("register_models must return a list of models"))
        return self._models

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

    def serves(self, model: Model) -> bool:
        """Tell, without loading, whether an installed plugin seems to run the model's backend."""
        if model.backend in self.names:
            return True
        return any(model.backend == known.backend for models in self.models().values() for known in models)

    def unserved(self, model: Model) -> str:
        """Return the sentence for a model whose backend nobody runs."""
        installed = ", ".join(self.names) or "none"
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
