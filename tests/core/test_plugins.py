import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Python
from yapit import (
    CapacityError,
    Context,
    Embedder,
    Embedding,
    EmbedRequest,
    LoadError,
    Model,
    Provisioner,
    ProvisionRequest,
    ProvisionState,
    SettingsError,
    YapitError,
    hookimpl,
)
from yapit.errors import PluginError
from yapit.plugins import Plugins
from yapit.settings import Settings
from yapit.tasks import EMBED, GENERATE, PROVISION


def model(backend: str, **fields: Any) -> Model:
    return Model(**{"id": f"{backend}-model", "backend": backend, "tasks": ("embed",), **fields})


class Constant(Embedder):
    def __init__(self, name: str = "constant") -> None:
        self.name = name

    def embed(self, request: EmbedRequest) -> Iterator[Embedding]:
        yield Embedding(index=0, vector=b"", tokens=0)


# ── installed distributions ───────────────────────────────────────────────────────────────────────────────────────────
HEAD = "from yapit import Model, hookimpl\n"
MODELS = HEAD + "@hookimpl\ndef register_models():\n    return [Model(id='{0}', backend='{0}', tasks=('embed',))]\n"
EMBEDS = "@hookimpl\ndef embed(model, context):\n    return None\n"
SOURCES = {
    "works": MODELS.format("works") + EMBEDS,
    "works_too": MODELS.format("works_too"),
    "imports_nothing": "import a_library_that_is_not_there",
    "asserts": "assert 1 == 2, 'never\\nequal'",
    "exits": "import sys; sys.exit('no licence key')",
    "is_no_python": "def (",
    "misspells": HEAD + "@hookimpl\ndef register_model():\n    return []\n",
    "renames": HEAD + "@hookimpl\ndef embed(model, contxt):\n    return None\n",
    "awaits": HEAD + "@hookimpl\nasync def embed(model, context):\n    return None\n",
    "yields": HEAD + "@hookimpl\ndef embed(model, context):\n    yield None\n",
    "yields_late": HEAD + "@hookimpl\nasync def embed(model, context):\n    yield None\n",
    "raises": HEAD + "@hookimpl\ndef register_models():\n    raise ValueError('no such\\nfile')\n" + EMBEDS,
    "exits_late": HEAD + "@hookimpl\ndef register_models():\n    raise SystemExit('no models')\n",
    "returns_none": HEAD + "@hookimpl\ndef register_models():\n    pass\n",
    "returns_dicts": HEAD + "@hookimpl\ndef register_models():\n    return [{'id': 'm'}]\n",
    "heavy": MODELS.format("heavy")
    + "@hookimpl\ndef embed(model, context):\n    import heavy_library\n    return heavy_library\n",
    "marks": "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n" + MODELS.format("marks"),
}
FAILURES = {
    "imports_nothing": "ModuleNotFoundError: No module named 'a_library_that_is_not_there'",
    "asserts": "AssertionError: never equal",
    "exits": "SystemExit: no licence key",
    "is_no_python": "SyntaxError: invalid syntax",
    "misspells": "unknown hook 'register_model'",
    "renames": "hook 'embed'",
    "awaits": "hook 'embed' must be a plain function",
    "yields": "hook 'embed' must be a plain function",
    "yields_late": "hook 'embed' must be a plain function",
    "raises": "ValueError: no such file",
    "exits_late": "SystemExit: no models",
    "returns_none": "register_models must return a list of models",
    "returns_dicts": "register_models must return a list of models",
    "twice": "several distributions bring a plugin of this name: dist-twice, dist-twice-again",
}
LIST = """
import json, sys
from yapit.plugins import Plugins

allow = json.loads(sys.argv[1])
plugins = Plugins.load(allow)
listing = [{name: getattr(plugin, name) for name in plugin.__struct_fields__} for plugin in plugins.listing()]
heavy = sorted({"heavy_library", "litestar", "numpy", "click"} & sys.modules.keys())
print(json.dumps({"listing": listing, "names": plugins.names, "models": [*plugins.models()], "heavy": heavy}))
"""


def distribution(site: Path, name: str, module: str, project: str, version: str = "0.1") -> None:
    info = site / f"{project.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[yapit.plugins]\n{name} = {module}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one installed distribution for each of the sources, and two that share a name."""
    folder = tmp_path_factory.mktemp("site")
    for name, source in SOURCES.items():
        (folder / f"fake_{name}.py").write_text(source, encoding="utf-8")
        version = "1.2" if name == "works" else "0.1"
        distribution(folder, name, f"fake_{name}", f"dist-{name.replace('_', '-')}", version)
    for project in ("dist-twice", "dist-twice-again"):
        distribution(folder, "twice", "fake_works", project)
    (folder / "heavy_library.py").write_text("", encoding="utf-8")
    return folder


class Loaded:
    """What `Plugins.load` made of the installed distributions."""

    def __init__(self, python: Python, site: Path, allow: list[str] | None) -> None:
        found = json.loads(python(LIST, json.dumps(allow), site=site).stdout)
        self.plugins: dict[str, dict[str, Any]] = {plugin["name"]: plugin for plugin in found["listing"]}
        self.order = [plugin["name"] for plugin in found["listing"]]
        self.names: list[str] = found["names"]
        self.models: list[str] = found["models"]
        self.heavy: list[str] = found["heavy"]


@pytest.fixture(scope="module")
def everything(python: Python, site: Path) -> Loaded:
    return Loaded(python, site, None)


def test_a_plugin_that_works_is_listed_with_what_it_brings(everything: Loaded) -> None:
    assert everything.plugins["works"] == {
        "name": "works",
        "version": "1.2",
        "environment": None,
        "hooks": ["embed", "register_models"],
        "models": ["works"],
        "error": None,
        "details": None,
    }


@pytest.mark.parametrize("name", FAILURES)
def test_a_plugin_that_fails_is_listed_with_its_error(everything: Loaded, name: str) -> None:
    plugin = everything.plugins[name]
    assert FAILURES[name] in plugin["error"]
    assert "\n" not in plugin["error"], "one line for people"
    assert "Error" in plugin["details"] or "SystemExit" in plugin["details"]
    assert plugin["version"] == "0.1"
    assert (plugin["hooks"], plugin["models"]) == ([], [])


@pytest.mark.parametrize("name", ["imports_nothing", "asserts", "exits", "raises"])
def test_the_details_are_the_traceback(everything: Loaded, name: str) -> None:
    assert f"fake_{name}.py" in everything.plugins[name]["details"]


def test_the_others_work_all_the_same(everything: Loaded) -> None:
    working = {"echo", "works", "works_too", "heavy", "marks"}
    assert working <= set(everything.names)
    assert not FAILURES.keys() & set(everything.names)
    assert working <= set(everything.models)
    assert everything.order == sorted(everything.order)


def test_loading_imports_no_heavy_library(everything: Loaded) -> None:
    assert everything.heavy == []


def test_only_what_is_allowed_is_even_imported(python: Python, site: Path) -> None:
    marker = site / "imported"
    marker.unlink(missing_ok=True)
    some = Loaded(python, site, ["works_too", "works", "absent", "works"])
    assert (some.names, some.order) == (["works", "works_too"], ["absent", "works", "works_too"])
    assert some.plugins["absent"]["error"] == "not installed; try: pip install yapit-plugin-absent"
    assert not marker.exists()
    assert Loaded(python, site, ["marks"]).names == ["marks"]
    assert marker.exists(), "the plugin that was not imported above would have left its mark"


def test_none_may_be_allowed(python: Python, site: Path) -> None:
    assert Loaded(python, site, []).order == []


# ── registering ───────────────────────────────────────────────────────────────────────────────────────────────────────
class Misspelt:
    @hookimpl
    def synthesise(self, model: Model, context: Context) -> None: ...


class WrongArgument:
    @hookimpl
    def embed(self, model: Model, ctx: Context) -> None: ...


class Coroutine:
    @hookimpl
    async def embed(self, model: Model, context: Context) -> None: ...


class Generator:
    @hookimpl
    def embed(self, model: Model, context: Context) -> Iterator[None]:
        yield


class AsyncGenerator:
    @hookimpl
    async def embed(self, model: Model, context: Context) -> AsyncIterator[None]:
        yield


class Serves:
    """A plugin whose one factory answers for one backend."""

    def __init__(self, backend: str, answer: Any = None) -> None:
        self.backend = backend
        self.answer = answer

    @hookimpl
    def register_models(self) -> list[Model]:
        return [model(self.backend)]

    @hookimpl
    def embed(self, model: Model, context: Context) -> Any:
        if model.backend != self.backend:
            return None
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("plugin", "named"),
    [
        (Misspelt(), "unknown hook 'synthesise'"),
        (WrongArgument(), "'embed'.*ctx"),
        (Coroutine(), "'embed' must be a plain function"),
        (Generator(), "'embed' must be a plain function"),
        (AsyncGenerator(), "'embed' must be a plain function"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_plugin_that_breaks_the_contract_is_refused_and_leaves_nothing(plugin: object, named: str) -> None:
    plugins = Plugins()
    plugins.register("good", Serves("good", Constant()))
    with pytest.raises(PluginError, match=named) as caught:
        plugins.register("bad", plugin)
    assert "\n" not in caught.value.message
    assert plugins.names == ["good"]
    plugins.register("bad", Serves("bad"))
    assert plugins.names == ["bad", "good"], "its name is free again, and later plugins are not blamed for it"
    assert isinstance(plugins.adapter(EMBED, model("good"), Context()), Constant)


def test_a_wrapper_may_be_a_generator() -> None:
    class Wraps:
        @hookimpl(wrapper=True)
        def embed(self, model: Model, context: Context) -> Any:
            inner = yield
            return Constant(f"wrapped {inner.name}")

    plugins = Plugins()
    plugins.register("wraps", Wraps())
    plugins.register("serves", Serves("a", Constant("a")))
    adapter = plugins.adapter(EMBED, model("a"), Context())
    assert isinstance(adapter, Constant)
    assert adapter.name == "wrapped a"


# ── asking for an adapter ─────────────────────────────────────────────────────────────────────────────────────────────
def serving(*plugins: Serves) -> Plugins:
    made = Plugins()
    for plugin in plugins:
        made.register(plugin.backend, plugin)
    return made


def test_the_plugin_of_the_backend_answers() -> None:
    plugins = serving(Serves("a", Constant("a")), Serves("b", Constant("b")))
    for backend in ("a", "b"):
        adapter = plugins.adapter(EMBED, model(backend), Context())
        assert isinstance(adapter, Constant)
        assert adapter.name == backend


@pytest.mark.parametrize("generic_first", [True, False])
def test_a_generic_plugin_answers_last(generic_first: bool) -> None:  # noqa: FBT001 - a parameter of the test
    class Generic:
        asked = 0

        @hookimpl(trylast=True)
        def embed(self, model: Model, context: Context) -> Embedder:
            self.asked += 1
            return Constant("generic")

    generic = Generic()
    plugins = Plugins()
    both: list[tuple[str, object]] = [("generic", generic), ("own", Serves("own", Constant("own")))]
    for name, plugin in both if generic_first else reversed(both):
        plugins.register(name, plugin)
    adapter = plugins.adapter(EMBED, model("own"), Context())
    assert isinstance(adapter, Constant)
    assert (adapter.name, generic.asked) == ("own", 0), "the first answer ends the question"
    adapter = plugins.adapter(EMBED, model("another"), Context())
    assert isinstance(adapter, Constant)
    assert (adapter.name, generic.asked) == ("generic", 1)


def test_a_factory_gets_the_model_and_the_context() -> None:
    class Notes:
        seen: tuple[Model, Context] | None = None

        @hookimpl
        def embed(self, model: Model, context: Context) -> Embedder:
            self.seen = (model, context)
            return Constant()

    notes, plugins, context = Notes(), Plugins(), Context(device="cpu", data_dir=Path("x"))
    plugins.register("notes", notes)
    plugins.adapter(EMBED, model("a"), context)
    assert notes.seen == (model("a"), context)


def test_a_provisioner_is_asked_for_its_target() -> None:
    class Nowhere(Provisioner):
        def provision(self, request: ProvisionRequest) -> Iterator[ProvisionState]:
            yield ProvisionState(state="ready")

    class Provisions:
        @hookimpl
        def provision(self, model: Model, target: str, context: Context) -> Provisioner | None:
            return Nowhere() if target == "nowhere" else None

    plugins = Plugins()
    plugins.register("provisions", Provisions())
    assert isinstance(plugins.adapter(PROVISION, model("a"), Context(), target="nowhere"), Nowhere)
    with pytest.raises(LoadError):
        plugins.adapter(PROVISION, model("a"), Context())


def test_a_backend_that_nobody_serves_names_the_plugins_and_the_way_out() -> None:
    plugins = serving(Serves("zebra"), Serves("a"))
    with pytest.raises(LoadError) as caught:
        plugins.adapter(EMBED, model("kokoro"), Context())
    assert caught.value.message == (
        "No installed plugin serves backend 'kokoro' (installed: a, zebra); try: pip install yapit-plugin-kokoro"
    )
    assert caught.value.param == "model"
    with pytest.raises(LoadError, match=r"\(installed: none\)"):
        Plugins().adapter(GENERATE, model("kokoro"), Context())


@pytest.mark.parametrize(
    "error", [RuntimeError("/root/secret.bin"), KeyError("secret"), SystemExit("secret"), StopIteration("secret")]
)
def test_what_a_factory_raises_is_told_in_general_words_only(error: BaseException) -> None:
    with pytest.raises(LoadError) as caught:
        serving(Serves("a", error)).adapter(EMBED, model("a"), Context())
    assert caught.value.message == (
        f"The model 'a-model' cannot be loaded ({type(error).__name__}); the server's log says more."
    )
    assert caught.value.__cause__ is error, "the log shows it in full"


@pytest.mark.parametrize("error", [CapacityError("Out of memory.", retry_after_s=3), LoadError("No weights.")])
def test_an_error_meant_for_the_client_passes(error: YapitError) -> None:
    with pytest.raises(type(error)) as caught:
        serving(Serves("a", error)).adapter(EMBED, model("a"), Context())
    assert caught.value is error


def test_a_wrong_setting_of_the_plugin_is_a_failed_load() -> None:
    with pytest.raises(LoadError, match=r"'a-model' cannot be loaded: plugin_settings\.a: no `url`"):
        serving(Serves("a", SettingsError("plugin_settings.a: no `url`"))).adapter(EMBED, model("a"), Context())


@pytest.mark.parametrize("answer", ["an adapter", Constant, object()])
def test_an_answer_of_another_kind_is_refused(answer: object) -> None:
    kind = type(answer).__name__
    with pytest.raises(LoadError, match=f"backend 'a' returned a {kind}, not a Embedder"):
        serving(Serves("a", answer)).adapter(EMBED, model("a"), Context())


# ── asking everybody ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_each_names_who_answered_the_newest_first() -> None:
    plugins = serving(Serves("b"), Serves("a"), Serves("c"))
    assert [(who, answer[0].backend) for who, answer in plugins.each("register_models")] == [
        ("c", "c"),
        ("a", "a"),
        ("b", "b"),
    ]


class Raises:
    asked = 0

    @hookimpl
    def register_models(self) -> list[Model]:
        self.asked += 1
        raise RuntimeError("no\nmodels")

    @hookimpl
    def embed(self, model: Model, context: Context) -> Embedder:
        return Constant("must not be asked")


def test_a_plugin_that_raises_is_taken_out_and_the_others_go_on() -> None:
    plugins, raises = Plugins(), Raises()
    plugins.register("a", Serves("a"))
    plugins.register("raises", raises)
    plugins.register("b", Serves("b"))
    assert [*plugins.models()] == ["b", "a"]
    assert [*plugins.models()] == ["b", "a"]
    assert raises.asked == 1, "the models are asked for once"
    assert plugins.names == ["a", "b"]
    assert [(plugin.name, plugin.error) for plugin in plugins.listing()] == [
        ("a", None),
        ("b", None),
        ("raises", "RuntimeError: no models"),
    ]
    assert "in register_models" in (plugins.failed["raises"].details or "")
    with pytest.raises(LoadError, match="No installed plugin"):
        plugins.adapter(EMBED, model("z"), Context())


@pytest.mark.parametrize(("backend", "served"), [("named", True), ("of-a-model", True), ("other", False)])
def test_whether_a_backend_is_served_is_told_without_loading(backend: str, served: bool) -> None:  # noqa: FBT001 - a parameter
    plugins = Plugins()
    plugins.register("named", Serves("of-a-model", AssertionError("a factory was called")))
    assert plugins.serves(model(backend)) is served


class Completes:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[str] = []

    @hookimpl
    def complete_model(self, entry: dict[str, Any]) -> Any:
        self.asked.append(entry["id"])
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def served(folder: Path, text: str, *found: Completes) -> tuple[Plugins, list[Model]]:
    """Return the plugins, of which the last is asked first, and the models of a file."""
    path = folder / "models.yaml"
    path.write_text(text, encoding="utf-8")
    plugins = Plugins()
    for number, plugin in enumerate(found):
        plugins.register(str(number), plugin)
    return plugins, [*plugins.catalog(Settings(models_config=str(path)))]


KNOWN = {"backend": "b", "tasks": ["embed"]}


def test_the_first_plugin_that_knows_an_entry_completes_it(tmp_path: Path) -> None:
    last, knows, first = Completes({}), Completes(KNOWN), Completes(None)
    text = "- {source: org/a}\n- {id: c, backend: b, tasks: [embed]}"
    _, models = served(tmp_path, text, last, knows, first)
    assert [(model.id, model.backend) for model in models] == [("org/a", "b"), ("c", "b")]
    assert (first.asked, knows.asked, last.asked) == (["org/a"], ["org/a"], [])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ValueError("no\nidea"), "ValueError: no idea"),
        (SystemExit("no idea"), "SystemExit: no idea"),
        (["embed"], "complete_model must return a dictionary or None"),
    ],
)
def test_a_plugin_that_cannot_complete_is_taken_out_and_the_next_is_asked(
    tmp_path: Path, answer: Any, error: str
) -> None:
    knows, fails = Completes(KNOWN), Completes(answer)
    plugins, models = served(tmp_path, "- {source: org/a}\n- {source: org/b}", knows, fails)
    assert [model.id for model in models] == ["org/a", "org/b"]
    assert (fails.asked, knows.asked) == (["org/a"], ["org/a", "org/b"])
    assert plugins.names == ["0"]
    assert plugins.failed["1"].error == error


def test_an_entry_that_no_plugin_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"model 'org/a' names no backend, and no installed plugin knows"):
        served(tmp_path, "- {source: org/a}", Completes(None))
