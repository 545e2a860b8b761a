import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

import databases
from yapit import Model, YapitError, echo, hookimpl
from yapit.errors import (
    CapacityError,
    ConflictError,
    InvalidInputError,
    LoadError,
    ModelNotFoundError,
    SettingsError,
)
from yapit.plugins import Plugins
from yapit.registry import Registry
from yapit.settings import Settings, SpeechSettings
from yapit.store import Store

ENTRY: dict[str, Any] = {"id": "mine", "backend": "echo", "tasks": ["synthesize"]}


class Brings:
    """A plugin that brings a model, and knows what is behind some sources."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.reachable = False  # the hub that knows one of the sources

    @hookimpl
    def register_models(self) -> list[Model]:
        return [
            Model(
                id="org/brought", backend="brings", tasks=("embed",), aliases=("brought",), source="s/1", dimensions=3
            )
        ]

    @hookimpl
    def complete_model(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        self.asked.append(entry)
        match entry.get("source"):
            case "known/vectors":
                return {"backend": "brings", "tasks": ["embed"], "dimensions": 7, "options": {"a": 1, "b": 1}}
            case "known/later":
                return {"backend": "brings", "tasks": ["embed"] if self.reachable else []}
            case "known/trouble":
                raise ValueError("s3cret")
            case "known/refused":
                raise LoadError("The source wants a token.")
        return None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(database: Settings, folder: Path) -> Iterator[Store]:
    opened = Store.of(database)
    yield opened
    opened.close()


def plugins(*, with_brings: bool = True) -> Plugins:
    made = Plugins()
    made.register("echo", echo)
    if with_brings:
        made.register("brings", Brings())
    return made


def registry(store: Store, settings: Settings | None = None, found: Plugins | None = None) -> Registry:
    return Registry(settings or Settings(), found or plugins(), store)


def ids(made: Registry) -> list[str]:
    return [model.id for model in made.catalog]


# ── registering ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_registered_model_is_served_at_once_and_by_the_next_server(store: Store) -> None:
    made = registry(store)
    before = made.catalog
    model = made.register({**ENTRY, "aliases": ["my/alias"], "options": {"seconds": 2}})
    assert model == Model(
        id="mine", backend="echo", tasks=("synthesize",), aliases=("my/alias",), options={"seconds": 2}
    )
    assert made.catalog is not before
    assert made.catalog["mine"] is made.catalog["my/alias"] is model
    assert made.is_registered("mine")
    assert not made.is_registered("echo")
    assert registry(store).catalog["mine"] == model


def test_plugins_say_what_an_entry_leaves_out_and_it_is_stored_complete(store: Store) -> None:
    model = registry(store).register({"name": "my-vectors", "hf_repo_id": "known/vectors", "options": {"a": 2}})
    expected = {"id": "my-vectors", "source": "known/vectors", "backend": "brings", "tasks": ["embed"]}
    assert model.dimensions == 7
    assert store.models()[0].entry == {**expected, "dimensions": 7, "options": {"a": 2, "b": 1}}
    brings = Brings()
    again = Plugins()
    again.register("brings", brings)
    assert registry(store, found=again).catalog["my-vectors"] == model
    assert brings.asked == [], "nobody is asked again"


def test_a_model_of_a_known_source_is_one_more_and_not_that_one(store: Store) -> None:
    made = registry(store)
    made.register({"id": "mine", "source": "s/1", "backend": "brings", "tasks": ["embed"]})
    assert ids(made) == ["org/brought", "echo", "mine"]
    assert made.catalog["mine"].dimensions is None
    assert made.catalog["org/brought"].dimensions == 3


@pytest.mark.parametrize(
    ("entry", "said", "param"),
    [
        ({"id": "mine"}, "names no backend", None),
        ({"id": "mine", "source": "nobody/knows"}, "names no backend", None),
        ({"id": "mine", "backend": "echo"}, "missing required field `tasks`", None),
        ({**ENTRY, "tasks": ["sing"]}, "unknown task 'sing'", None),
        ({**ENTRY, "colour": "red"}, "unknown key 'colour'", None),
        ({**ENTRY, "context_length": "many"}, "context_length", None),
        ({**ENTRY, "id": 5}, "Expected `str`", None),
        ({**ENTRY, "id": "no spaces"}, "A model's name has 1 to 96", "name"),
        ({**ENTRY, "aliases": ["../up"]}, "A model's name has 1 to 96", "name"),
        ({**ENTRY, "backend": "kokoro"}, "try: pip install yapit-plugin-kokoro", "backend"),
        ({**ENTRY, "python": "/bin/sh"}, "Only a models file may name an interpreter", "python"),
        ({"id": "mine", "source": "known/trouble"}, r"the plugin 'brings' failed with it \(ValueError\)", None),
    ],
)
def test_what_is_no_model_is_refused_and_not_stored(
    store: Store, entry: dict[str, Any], said: str, param: str | None
) -> None:
    made = registry(store)
    with pytest.raises(InvalidInputError, match=said) as refused:
        made.register(entry)
    assert refused.value.param == param
    assert "s3cret" not in refused.value.message
    assert store.models() == []
    assert store.generation() == 0


def test_a_plugin_that_fails_with_somebodys_entry_stays(store: Store) -> None:
    found = plugins()
    made = registry(store, found=found)
    with pytest.raises(InvalidInputError):
        made.register({"id": "mine", "source": "known/trouble"})
    with pytest.raises(LoadError, match="wants a token"):
        made.register({"id": "mine", "source": "known/refused"})
    assert found.failed == {}
    assert made.register({"id": "mine", "source": "known/vectors"}).backend == "brings"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"id": "org/brought"}, "'org/brought' exists already: it comes from the plugin 'brings'"),
        ({"id": "brought"}, "'brought' is a name of the model 'org/brought' already"),
        ({"id": "filed"}, "'filed' exists already: it comes from the file 'models.yaml'"),
        ({"id": "tts-1"}, "'tts-1' is a name of the model 'echo' already"),
        ({"id": "nick"}, "'nick' is a name of the model 'echo' already"),
        ({"id": "first"}, "'first' exists already: it was registered"),
        ({"id": "first-alias"}, "'first-alias' is a name of the model 'first' already: it was registered"),
        ({"id": "new", "aliases": ["echo"]}, "'echo' exists already"),
    ],
)
def test_a_name_that_is_taken_is_refused(store: Store, folder: Path, entry: dict[str, Any], said: str) -> None:
    (folder / "models.yaml").write_text("models: [{id: filed, backend: echo, tasks: [embed]}]")
    made = registry(store, Settings(aliases={"nick": "echo"}))
    made.register({**ENTRY, "id": "first", "aliases": ["first-alias"]})
    for replace in (False, True):
        if replace and entry["id"] == "first":
            continue
        with pytest.raises(ConflictError, match=said):
            made.register({**ENTRY, **entry}, replace=replace)
    assert [kept.id for kept in store.models()] == ["first"]
    made.register({**ENTRY, "id": "First"})


def test_a_registered_model_is_replaced_where_that_is_wanted(store: Store) -> None:
    made = registry(store)
    made.register({**ENTRY, "aliases": ["old"]})
    made.register({**ENTRY, "aliases": ["new"], "description": "better"}, replace=True)
    assert made.catalog["new"].description == "better"
    assert "old" not in made.catalog
    assert ids(made).count("mine") == 1


def test_of_two_servers_that_register_a_name_at_once_one_gets_it(store: Store, database: Settings) -> None:
    other = Store.of(database)
    made = [registry(store), registry(other)]
    barrier, outcomes = threading.Barrier(2), []

    def work(number: int) -> None:
        barrier.wait()
        try:
            made[number].register({**ENTRY, "description": str(number)})
            outcomes.append("won")
        except ConflictError:
            outcomes.append("lost")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost", "won"]
    for each in made:
        each.refresh()
    assert made[0].catalog["mine"] == made[1].catalog["mine"]
    other.close()


# ── unregistering ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_unregistered_model_is_gone_and_its_name_free(store: Store) -> None:
    made = registry(store)
    model = made.register({**ENTRY, "aliases": ["alias"]})
    assert made.unregister("alias") == model
    assert not made.is_registered("mine")
    with pytest.raises(ModelNotFoundError):
        made.catalog["mine"]
    with pytest.raises(ModelNotFoundError):
        made.unregister("mine")
    made.register(ENTRY)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/brought", "it comes from the plugin 'brings'"),
        ("brought", "'org/brought' was not registered: it comes from the plugin 'brings'"),
        ("filed", "it comes from the file 'models.yaml'"),
        ("local", "it comes from the file 'models.local.yaml'"),
    ],
)
def test_what_a_plugin_or_a_file_brings_stays(store: Store, folder: Path, name: str, said: str) -> None:
    (folder / "models.yaml").write_text("models: [{id: filed, backend: echo, tasks: [embed]}]")
    (folder / "models.local.yaml").write_text("models: [{source: local, backend: echo, tasks: [embed]}]")
    with pytest.raises(ConflictError, match=said):
        registry(store).unregister(name)


def test_a_model_that_the_settings_name_stays(store: Store) -> None:
    registry(store).register(ENTRY)
    made = registry(store, Settings(aliases={"favourite": "mine"}))
    with pytest.raises(ConflictError, match="'favourite' names 'mine'"):
        made.unregister("mine")
    assert made.catalog["favourite"].id == "mine"


def test_a_model_that_a_file_says_only_a_part_of_stays(store: Store, folder: Path) -> None:
    made = registry(store)
    made.register(ENTRY)
    (folder / "models.yaml").write_text("models: [{id: mine, description: filed}]")
    with pytest.raises(ConflictError, match="'mine' names no backend"):
        made.unregister("mine")
    assert registry(store).catalog["mine"].description == "filed"


# ── what others do ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_refresh_takes_over_what_others_did(store: Store, database: Settings) -> None:
    other = Store.of(database)
    here, there = registry(store), registry(other)
    assert not there.refresh()
    here.register(ENTRY)
    before = there.catalog
    assert "mine" not in before
    assert there.refresh()
    assert there.catalog["mine"] == here.catalog["mine"]
    assert "mine" not in before, "whoever holds it goes on with it"
    assert not there.refresh()
    there.unregister("mine")
    assert here.refresh()
    assert "mine" not in here.catalog
    other.close()


def test_what_was_registered_elsewhere_meanwhile_is_a_conflict(store: Store, database: Settings) -> None:
    other = Store.of(database)
    here, there = registry(store), registry(other)
    here.register({**ENTRY, "aliases": ["alias"]})
    with pytest.raises(ConflictError, match="'alias' is a name of the model 'mine' already"):
        there.register({**ENTRY, "id": "alias"})
    other.close()


def test_what_a_file_leaves_out_is_asked_once_and_again_only_while_nobody_knows(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "models.yaml").write_text("- {hf_repo_id: known/vectors}\n- {hf_repo_id: known/later}\n")
    brings, clock = Brings(), [100.0]
    monkeypatch.setattr("yapit.registry.time.monotonic", lambda: clock[0])
    made = plugins(with_brings=False)
    made.register("brings", brings)
    registry = Registry(Settings(), made, store)
    assert registry.catalog["known/vectors"].tasks == ("embed",)
    assert not registry.catalog["known/later"].tasks
    registry.register(ENTRY)
    assert [entry["source"] for entry in brings.asked].count("known/vectors") == 1
    brings.reachable = True
    clock[0] += 29
    assert not registry.refresh()
    assert not registry.catalog["known/later"].tasks
    clock[0] += 2
    assert registry.refresh()
    assert registry.catalog["known/later"].tasks == ("embed",)
    clock[0] += 100
    asked = len(brings.asked)
    assert not registry.refresh()
    assert len(brings.asked) == asked


def test_others_settings_that_name_what_was_unregistered_keep_what_they_have(store: Store, database: Settings) -> None:
    other = Store.of(database)
    here = registry(store)
    here.register(ENTRY)
    there = registry(other, Settings(aliases={"favourite": "mine"}))
    here.unregister("mine")
    with structlog.testing.capture_logs() as lines:
        assert not there.refresh()
        assert not there.refresh()
    assert [line["event"] for line in lines] == ["catalog_not_renewed"]
    assert there.catalog["favourite"].id == "mine"
    other.close()


def test_a_database_that_is_gone_is_an_error_and_the_catalog_stays(
    postgresql: databases.Postgresql, folder: Path
) -> None:
    name = postgresql.make()
    store = Store.of(Settings(database=postgresql.url(name)))
    made = registry(store)
    made.register(ENTRY)
    postgresql.shut(name)
    with pytest.raises(CapacityError):
        made.refresh()
    with pytest.raises(CapacityError):
        made.register({**ENTRY, "id": "second"})
    assert "mine" in made.catalog
    postgresql.open(name)
    made.register({**ENTRY, "id": "second"})
    assert ids(made)[-2:] == ["mine", "second"]
    store.close()


# ── the layers ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_registered_models_lie_over_plugins_and_under_files(store: Store, folder: Path) -> None:
    first = registry(store, found=plugins(with_brings=False))
    first.register({**ENTRY, "id": "org/brought", "description": "registered", "memory_bytes": 5})
    first.register({**ENTRY, "description": "registered", "memory_bytes": 5, "source": "of/mine"})
    (folder / "models.yaml").write_text("models: [{id: mine, description: filed}]")
    made = registry(store)
    assert made.catalog["mine"].description == "filed"
    assert made.catalog["mine"].memory_bytes == 5
    brought = made.catalog["org/brought"]
    assert (brought.backend, brought.description, brought.dimensions) == ("echo", "registered", None)
    assert made.catalog.duplicates == ("model 'org/brought' of a plugin is displaced by a registered one",)


def test_an_entry_of_a_file_with_the_source_of_a_registered_model_is_another_model(store: Store, folder: Path) -> None:
    store.register({"id": "mine", "backend": "echo", "tasks": ["embed"], "source": "s/9", "revision": "v1"})
    (folder / "models.yaml").write_text("- {id: theirs, backend: echo, tasks: [embed], source: s/9}\n")
    catalog = registry(store).catalog
    assert (catalog["mine"].id, catalog["mine"].revision) == ("mine", "v1")
    assert (catalog["theirs"].id, catalog["theirs"].revision) == ("theirs", None)


def test_registered_models_are_served_also_where_the_settings_name_others(store: Store) -> None:
    made = registry(store, Settings(models=("org/brought",)))
    assert ids(made) == ["org/brought"]
    made.register(ENTRY)
    assert ids(made) == ["org/brought", "mine"]


def test_the_settings_may_name_a_registered_model(store: Store) -> None:
    registry(store).register(ENTRY)
    settings = Settings(models=("mine",), aliases={"short": "mine"}, speech=SpeechSettings(default_model="mine"))
    made = registry(store, settings)
    assert ids(made) == ["mine"]
    assert made.catalog["short"] is made.catalog["tts-1"] is made.catalog["mine"]


def test_a_registered_model_does_not_become_the_default_of_others(store: Store) -> None:
    made = registry(store)
    before = made.catalog["tts-1"]
    made.register({**ENTRY, "id": "a-first-one"})
    assert made.catalog["tts-1"] == before


# ── what has become wrong ─────────────────────────────────────────────────────────────────────────────────────────────
def test_what_is_no_model_any_more_is_left_out_and_said_once(store: Store) -> None:
    wrong = {
        "unknown-key": {**ENTRY, "id": "unknown-key", "colour": "red"},
        "unknown-task": {**ENTRY, "id": "unknown-task", "tasks": ["sing"]},
        "no-backend": {"id": "no-backend"},
        "no-plugin": {**ENTRY, "id": "no-plugin", "backend": "kokoro"},
    }
    for entry in wrong.values():
        store.register(entry)
    store.register(ENTRY)
    with structlog.testing.capture_logs() as lines:
        made = registry(store)
        store.register({**ENTRY, "id": "later"})
        assert made.refresh()
    assert ids(made) == ["org/brought", "echo", "mine", "later"]
    assert [line["event"] for line in lines] == ["registered_model_left_out"] * len(wrong)
    said = {line["model"]: line["reason"] for line in lines}
    assert said.keys() == wrong.keys()
    assert "colour" in said["unknown-key"]
    assert "yapit-plugin-kokoro" in said["no-plugin"]
    for name in wrong:
        assert not made.is_registered(name)
        with pytest.raises(ConflictError, match="registered already"):
            made.register({**ENTRY, "id": name})
        assert made.unregister(name).id == name, "it can be removed all the same"
    assert [kept.id for kept in store.models()] == ["mine", "later"]


def test_settings_that_are_wrong_in_themselves_stop_the_start(store: Store) -> None:
    registry(store).register(ENTRY)
    with pytest.raises(SettingsError, match="'nothing'"):
        registry(store, Settings(aliases={"a": "nothing"}))


def test_a_models_file_that_broke_meanwhile_is_a_conflict(store: Store, folder: Path) -> None:
    made = registry(store)
    (folder / "models.yaml").write_text("models: 5")
    with pytest.raises(ConflictError, match=r"do not allow it: .*expected a list of models") as refused:
        made.register(ENTRY)
    assert isinstance(refused.value, YapitError)
    assert store.models() == []


def test_a_stored_entry_is_what_a_models_file_would_say(store: Store, folder: Path) -> None:
    made = registry(store)
    model = made.register({**ENTRY, "voices": [{"id": "low", "languages": ["de"]}], "speed_range": [0.5, 2.0]})
    text = msgspec.yaml.encode({"models": [store.models()[0].entry]})
    made.unregister("mine")
    (folder / "models.yaml").write_bytes(text)
    assert registry(store).catalog["mine"] == model
