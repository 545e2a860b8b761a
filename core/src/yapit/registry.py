"""The catalog that lives: the models of plugins and files, and those that are registered while the server runs."""

import threading
import time
from collections.abc import Iterable

import structlog

from yapit.catalog import Catalog, Entry, Model, check_slug, entry_of, model_of, read_entries
from yapit.errors import ConflictError, InvalidInputError, SettingsError, YapitError
from yapit.plugins import Plugins
from yapit.settings import Settings, model_files
from yapit.store import Registration, Store

_AGAIN_S = 30.0  # before plugins are asked again what a model is
_log = structlog.get_logger(__name__)


class Registry:
    """The models that are served now. Its methods block; any thread may call them.

    Args:
        settings: the effective settings.
        plugins: the registered plugins.
        store: where registered models are kept, by this process and others.

    Raises:
        SettingsError: a models file, or an alias, is wrong.
    """

    def __init__(self, settings: Settings, plugins: Plugins, store: Store) -> None:
        self._settings = settings
        self._plugins = plugins
        self._store = store
        self._lock = threading.Lock()
        self._reported = set[tuple[str, str]]()
        self._again_at = time.monotonic() + _AGAIN_S
        self._generation = store.generation()
        self._registered = self._sound(store.models())
        self._catalog = plugins.catalog(settings, self._registered.values())

    @property
    def catalog(self) -> Catalog:
        """The models that are served now: another object whenever they have changed."""
        return self._catalog

    def is_registered(self, model_id: str) -> bool:
        """Tell whether this id is one of a registered model; as of the last refresh."""
        return model_id in self._registered

    def refresh(self) -> bool:
        """Take over what was registered since; return whether that changed the catalog.

        Raises:
            CapacityError: the database does not answer.
        """
        with self._lock:
            return self._refresh()

    def register(self, entry: Entry, *, replace: bool = False) -> Model:
        """Serve one more model, from now on and after a restart, and return it.

        Args:
            entry: what an entry of a models file says; plugins are asked for what it leaves out.
            replace: it may take the place of a registered model with its id.

        Raises:
            InvalidInputError: it is no model, its name is refused, or no plugin runs it.
            ConflictError: a model has its name, or one of its aliases.
            CapacityError: the database does not answer.
        """
        model = self._described(entry)
        with self._lock:
            self._refresh()
            for name in (model.id, *model.aliases):
                self._check_free(name, model.id, replace=replace)
            described = entry_of(model)
            self._try({**self._registered, model.id: described})
            self._store.register(described, replace=replace)
            self._refresh()
            return self._catalog[model.id]

    def unregister(self, name: str) -> Model:
        """Serve a registered model no longer, and return it.

        Args:
            name: its id, or an alias.

        Raises:
            ModelNotFoundError: there is no such model.
            ConflictError: a plugin or a file brings it, or the settings name it.
            CapacityError: the database does not answer.
        """
        with self._lock:
            self._refresh()
            kept = {registration.id: registration for registration in self._store.models()}
            found = name if name in kept else self._catalog[name].id
            if found not in kept:
                raise ConflictError(
                    f"The model '{found}' was not registered: it comes from {self._origin(found)}.", param="model"
                )
            self._try({model_id: entry for model_id, entry in self._registered.items() if model_id != found})
            self._store.unregister(found)
            self._refresh()
            return _as_model(kept[found])

    def _refresh(self) -> bool:
        # Asked before the models are: what changes in between is seen the next time.
        generation = self._store.generation()
        if generation == self._generation and not self._asks_again():
            return False
        registered = self._sound(self._store.models())
        self._generation = generation
        try:
            catalog = self._plugins.catalog(self._settings, registered.values())
        except SettingsError as error:
            _log.error("catalog_not_renewed", reason=error.message)
            return False
        changed = registered != self._registered or list(catalog) != list(self._catalog)
        if changed:
            self._registered, self._catalog = registered, catalog
        return changed

    def _asks_again(self) -> bool:
        """Tell whether plugins may know more by now of models of which they knew no tasks: the hub may be back."""
        now = time.monotonic()
        if now < self._again_at or all(model.tasks for model in self._catalog):
            return False
        self._again_at = now + _AGAIN_S
        return True

    def _sound(self, registrations: Iterable[Registration]) -> dict[str, Entry]:
        """Return the entries that are models still, by id; report the others."""
        sound: dict[str, Entry] = {}
        for registration in registrations:
            try:
                self._check_served(model_of(registration.entry))
            except YapitError as error:
                if (registration.id, error.message) not in self._reported:
                    self._reported.add((registration.id, error.message))
                    _log.error("registered_model_left_out", model=registration.id, reason=error.message)
            else:
                sound[registration.id] = registration.entry
        return sound

    def _described(self, entry: Entry) -> Model:
        """Return the complete model that an entry describes, if it may be registered."""
        try:
            model = model_of(entry, self._plugins.describe)
        except SettingsError as error:
            raise InvalidInputError(error.message) from error
        for name in (model.id, *model.aliases):
            check_slug(name)
        if model.python is not None:
            # Whoever may register a model may not therefore start programs.
            raise InvalidInputError("Only a models file may name an interpreter.", param="python")
        self._check_served(model)
        return model

    def _check_served(self, model: Model) -> None:
        if not self._plugins.serves(model):
            raise InvalidInputError(self._plugins.unserved(model), param="backend")

    def _check_free(self, name: str, model_id: str, *, replace: bool) -> None:
        """Raise `ConflictError` if the name is another model's, or this one's that is not to be replaced."""
        if name not in self._catalog:
            return
        owner = self._catalog[name]
        if replace and owner.id == model_id and self.is_registered(model_id):
            return
        what = "exists already" if owner.id == name else f"is a name of the model '{owner.id}' already"
        origin = "it was registered" if self.is_registered(owner.id) else f"it comes from {self._origin(owner.id)}"
        raise ConflictError(f"The model '{name}' {what}: {origin}.", param="name", code="model_exists")

    def _try(self, registered: dict[str, Entry]) -> None:
        """Raise `ConflictError` if there would be no catalog with just these registered models."""
        try:
            self._plugins.catalog(self._settings, registered.values())
        except SettingsError as error:
            raise ConflictError(f"The settings and the models files do not allow it: {error.message}") from error

    def _origin(self, model_id: str) -> str:
        for plugin, models in self._plugins.models().items():
            if any(model.id == model_id for model in models):
                return f"the plugin '{plugin}'"
        for path in reversed(model_files(self._settings)):
            if any(model_id in (entry.get("id"), entry.get("source")) for entry in read_entries(path)):
                return f"the file '{path.name}'"
        return "the settings"


def _as_model(registration: Registration) -> Model:
    """Return the model; the least that is one if the entry is none any more."""
    try:
        return model_of(registration.entry)
    except SettingsError:
        return Model(id=registration.id, backend=str(registration.entry.get("backend")), tasks=())
