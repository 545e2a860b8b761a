"""The pages say what the code does: tables against structs, signatures, routes and options; examples are run."""

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

import yapit
from pages import (
    CODE,
    DOCS,
    FENCE,
    PAGES,
    ROOT,
    after,
    code,
    curl_lines,
    fences,
    page,
    prose,
    sections,
    shell_lines,
    sources,
    tables,
)
from yapit import YapitError, catalog, errors, hookspecs, settings
from yapit.audio import FORMATS
from yapit.cli import cli
from yapit.plugins import Plugins
from yapit.server import classify, embeddings, loaded, readiness, rerank, score, speech
from yapit.server.app import Application, create_app
from yapit.server.writing import chat, completions, responses
from yapit.settings import Settings
from yapit.tasks import TASKS

FIRST_CURL = (
    """curl -s localhost:8000/v1/audio/speech -H 'content-type: application/json' """
    """-d '{"model":"espeak","input":"Hello, this is yapit.","voice":"en-us"}' -o hello.mp3"""
)
HF = "hf-generic"
COMPLETE = {"id", "backend", "tasks"}
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


# ── what the code has ─────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Application:
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return create_app(Settings())


@pytest.fixture(scope="module")
def client(app: Application) -> Iterator[TestClient[Application]]:
    with TestClient(app) as found:
        yield found


@pytest.fixture(scope="module")
def served() -> catalog.Catalog:
    return settings.catalog(Settings(), Plugins.load().models(), folder=Path("/nonexistent"))


def example_models(path: Path) -> dict[str, catalog.Model]:
    """Return the complete entries that the examples of a page define."""
    found: dict[str, catalog.Model] = {}
    for language, block in FENCE.findall(path.read_text()):
        document = msgspec.yaml.decode(block.encode()) if language == "yaml" else None
        entries = document.get("models", []) if isinstance(document, dict) else document or []
        found |= {entry["id"]: msgspec.convert(entry, catalog.Model) for entry in entries if set(entry) >= COMPLETE}
    return found


def known(path: Path, name: str, served: catalog.Catalog) -> catalog.Model:
    found = example_models(path).get(name)
    if name in sources(path):
        return catalog.Model(id=name, backend=HF, tasks=())
    return found or served[name]


# ── hooks and adapters ────────────────────────────────────────────────────────────────────────────────────────────────
def signature(source: str) -> str:
    """Return a function's name, arguments and answer in one form, with annotations in quotes taken out of them."""
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    for argument in function.args.args:
        if isinstance(argument.annotation, ast.Constant):
            argument.annotation = ast.parse(str(argument.annotation.value), mode="eval").body
    assert function.returns is not None
    return f"{function.name}({ast.unparse(function.args)}) -> {ast.unparse(function.returns)}"


def hooks() -> dict[str, Any]:
    return {name: found for name, found in vars(hookspecs).items() if hasattr(found, "yapit_spec")}


def test_every_hook_has_a_heading_and_no_other_does() -> None:
    headings = {code(heading) for heading in sections(page("hooks.md")) if heading.startswith("`")}
    assert headings == set(hooks())
    assert len(headings) > len(TASKS)


@pytest.mark.parametrize("name", sorted(hooks()))
def test_the_signature_of_a_hook_is_the_documented_one(name: str) -> None:
    blocks = FENCE.findall(sections(page("hooks.md"))[f"`{name}`"])
    assert signature(blocks[0][1]) == signature(inspect.getsource(hooks()[name]))


def test_the_adapters_are_the_documented_ones() -> None:
    documented = [tuple(map(code, row)) for row in tables(page("adapters.md"))[0]]
    assert documented == [
        (task.name, task.adapter.__name__, task.request.__name__, task.chunk.__name__) for task in TASKS.values()
    ]
    assert all(hasattr(yapit, name) for _, *names in documented for name in names)


@pytest.mark.parametrize(("heading", "struct"), [("Vectors", yapit.EmbedRequest), ("Text", yapit.TextChunk)])
def test_the_fields_that_adapters_are_told_of_are_the_documented_ones(
    heading: str, struct: type[msgspec.Struct]
) -> None:
    documented = {code(row[0]) for row in tables(sections(page("adapters.md"))[heading])[0]}
    assert documented == set(struct.__struct_fields__) - {"inputs", "options"}


def test_the_context_is_the_documented_one() -> None:
    documented = [code(row[0]) for row in tables(sections(page("adapters.md"))["Context"])[0]]
    assert documented == [field.name for field in msgspec.structs.fields(yapit.Context)]


def test_the_errors_of_adapters_exist_and_have_the_documented_status() -> None:
    for row in tables(sections(page("adapters.md"))["Errors"])[0]:
        assert getattr(yapit, code(row[0])).status == int(row[2])


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("heading", "struct"), [("Fields", yapit.Model), ("Voices", yapit.Voice)])
def test_the_fields_of_the_catalog_are_the_documented_ones(heading: str, struct: type[msgspec.Struct]) -> None:
    rows = tables(sections(page("models.md"))[heading])[0]
    assert fields_of(rows) == fields_in(struct)


def fields_of(rows: list[list[str]]) -> dict[str, bool]:
    """Return the names of a table and whether each is required."""
    return {name: "required" in row[1] for row in rows for name in CODE.findall(row[0])}


def fields_in(struct: type[msgspec.Struct]) -> dict[str, bool]:
    return {field.name: field.required for field in msgspec.structs.fields(struct)}


def test_the_legacy_names_are_the_documented_ones() -> None:
    names, handlers = tables(sections(page("models.md"))["Legacy names"])
    documented = {code(row[0]): (code(row[1]), code(row[2])) for row in handlers}
    assert documented == {name: tuple(handler) for name, handler in catalog.HANDLERS.items()}
    options = sections(page("models.md"))["Legacy names"].rpartition("into `options`:")[2]
    assert CODE.findall(options) == list(catalog._OPTION_KEYS)
    assert [code(row[0]) for row in names] == ["name", "hf_repo_id", "handler"]


def test_legacy_names_mean_what_the_page_says(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("- {name: ear, hf_repo_id: a/b, handler: app.models.WhisperASR, pooling: mean}")
    model = yapit.read_models(file)[0]
    assert (model.id, model.source, model.backend, model.tasks) == ("ear", "a/b", "whisper", ("transcribe",))
    assert model.options == {"pooling": "mean"}


def test_openai_names_are_the_documented_aliases(served: catalog.Catalog) -> None:
    text = sections(page("models.md"))["Names that OpenAI's clients use"]
    assert CODE.findall(text)[:3] == list(settings._OPENAI_SPEECH_MODELS)
    assert served["tts-1"].backend != "echo"


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def kind(schema: dict[str, Any]) -> str:
    """Return the words for what a JSON schema allows."""
    name = str(schema.get("type"))
    words = {"string": "text", "object": "map"}.get(name, name)
    match schema:
        case {"enum": [*names, last]}:
            words = f"{', '.join(f'`{name}`' for name in names)} or `{last}`"
        case {"anyOf": choices}:
            words = " or ".join(map(kind, choices))
        case {"type": [*choices]}:
            words = " or ".join(kind({"type": choice}) for choice in choices)
        case {"type": "array", "items": items}:
            words = f"list of {kind(items)}"
        case {"additionalProperties": values}:
            words = f"map of text to {kind(values)}"
        case {"minimum": low, "maximum": high}:
            words = f"{words}, {low} to {high}"
        case {"minimum": low}:
            words = f"{words}, at least {low}"
    return words


def schemas(definition: str = "Settings", prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    definitions = settings.schema()["$defs"]
    for name, item in definitions[definition]["properties"].items():
        if "$ref" in item:
            yield from schemas(item["$ref"].rpartition("/")[2], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def documented_settings() -> dict[str, list[str]]:
    return {code(row[0]): row[1:] for row in tables(page("settings.md"))[0]}


def test_the_settings_are_the_documented_ones_in_the_same_order() -> None:
    assert list(documented_settings()) == settings.leaves(Settings)


@pytest.mark.parametrize(("path", "schema"), list(schemas()))
def test_type_and_default_of_a_setting_are_the_documented_ones(path: str, schema: dict[str, Any]) -> None:
    written, default, *_ = documented_settings()[path]
    assert written == kind(schema)
    assert code(default) == json.dumps(schema["default"])


def text_for(schema: dict[str, Any]) -> str:
    """Return what an environment variable may hold for such a setting."""
    samples = {"integer": "2048", "boolean": "true", "number": "1", "map of text to text": "a:b"}
    samples |= {"text or number": "1m", "text or integer": "1GB", "map of text to text or integer": "a:1GB"}
    words = kind(schema)
    if words.startswith("`"):
        return str(schema["enum"][0])
    return '{"a": {}}' if words.endswith("to map") else samples.get(words.partition(",")[0], "x")


@pytest.mark.parametrize(("path", "schema"), list(schemas()))
def test_the_variables_of_a_setting_are_the_documented_ones_strongest_first(path: str, schema: dict[str, Any]) -> None:
    names = CODE.findall(documented_settings()[path][2])
    others = {name for name, target in settings._OTHER_NAMES.items() if target == path}
    assert set(names) == {f"YAPIT_{path.replace('.', '_').upper()}", *others}
    environ = dict.fromkeys(names, text_for(schema))
    for name in names:
        assert settings.load(environ, folder=Path("/nonexistent")).sources == {path: name}
        del environ[name]


# ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_routes_are_the_documented_ones_and_ask_for_keys_as_said(app: Application) -> None:
    documented = {
        (code(method), path): key
        for method, paths, key, _ in tables(sections(page("http.md"))["Routes"])[0]
        for path in CODE.findall(paths)
    }
    real: dict[tuple[str, str], str] = {}
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        path = re.sub(r":\w+}", "}", route.path)
        for handler in route.route_handlers:
            assert isinstance(handler, HTTPRouteHandler)
            key = "open" if handler.opt.get("open") else "yes"
            real |= {(method, path): key for method in handler.http_methods & METHODS}
    # Litestar's own answer to wrong addresses below the document.
    del real["GET", "/schema/{path}"]
    assert documented == real


@pytest.mark.parametrize(
    ("heading", "struct"),
    [
        ("Speech", speech.SpeechBody),
        ("Timestamps", speech.TimestampsBody),
        ("Embeddings", embeddings.EmbeddingsBody),
        ("Rerank", rerank.RerankBody),
        ("Scores", score.ScoreBody),
        ("Classify", classify.ClassifyBody),
    ],
)
def test_the_fields_of_a_body_are_the_documented_ones(heading: str, struct: type[msgspec.Struct]) -> None:
    assert fields_of(tables(sections(page("http.md"))[heading])[0]) == fields_in(struct)


@pytest.mark.parametrize(
    ("heading", "struct"),
    [("Chat", chat.ChatBody), ("Completions", completions.CompletionBody), ("Responses", responses.ResponseBody)],
)
def test_the_fields_of_what_models_write_by_are_the_documented_ones(heading: str, struct: type[msgspec.Struct]) -> None:
    assert fields_of(tables(sections(page("chat.md"))[heading])[0]) == fields_in(struct)


def test_the_fields_of_usage_and_of_timed_speech_are_the_documented_ones() -> None:
    documented = {code(row[0]) for row in tables(sections(page("http.md"))["Events"])[1]}
    assert documented == set(fields_in(speech.Usage))
    documented = {code(row[0]) for row in tables(sections(page("http.md"))["Timestamps"])[1]}
    assert documented == set(fields_in(speech.TimedSpeech))


def test_the_events_are_the_documented_ones() -> None:
    rows = tables(sections(page("http.md"))["Events"])[0]
    events: list[type[msgspec.Struct]] = [speech.SpeechDelta, speech.SpeechDone]
    for row, struct in zip(rows, events, strict=True):
        assert code(row[0]) == struct.__struct_config__.tag
        assert set(fields_in(struct)) <= set(CODE.findall(row[1]))


def test_the_formats_are_the_documented_ones() -> None:
    documented = {code(row[0]): code(row[1]) for row in tables(sections(page("http.md"))["Formats"])[0]}
    assert documented == {name: known.media_type for name, known in FORMATS.items()}


def test_the_error_codes_are_the_documented_ones() -> None:
    of_classes, *of_places = tables(sections(page("http.md"))["Errors"])
    documented = {code(row[0]): (int(row[1]), code(row[2])) for row in of_classes}
    classes = [item for item in vars(errors).values() if inspect.isclass(item) and issubclass(item, YapitError)]
    assert documented == {found.code: (found.status, found.type) for found in classes if found.code}
    folder = ROOT / "core/src/yapit"
    used = {found for file in folder.rglob("*.py") for found in re.findall(r'code="(\w+)"', file.read_text())}
    used -= {row.code for row in classes}
    used |= {f"server_{state}" for state in get_args(readiness.State) if state != "ready"}
    assert sorted(code(row[0]) for rows in of_places for row in rows) == sorted(used)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (("POST", "/v1/audio/speech", b'{"model":"echo"}'), "missing_required_parameter"),
        (("POST", "/v1/audio/speech", b'{"model":"echo","input":" "}'), "empty_input"),
        (("POST", "/v1/audio/speech", b'{"model":"echo","input":"%s"}' % (b"x" * 4097)), "string_above_max_length"),
        (("POST", "/v1/audio/speech", b"{"), "invalid_json"),
        (("POST", "/v1/audio/speech", b"[]"), "invalid_body"),
        (("GET", "/v1/nothing", b""), "unknown_url"),
        (("DELETE", "/v1/models", b""), "method_not_supported"),
        (("POST", "/v1/audio/speech", bytes(10 * 1024 * 1024 + 1)), "body_too_large"),
        (("POST", "/v1/audio/speech", b'{"model":"echo","input":"x","voice":"nobody"}'), "invalid_value"),
        (("GET", "/v1/models/nobody", b""), "model_not_found"),
    ],
)
def test_an_error_has_the_documented_code_and_status(
    client: TestClient[Application], request_: tuple[str, str, bytes], expected: str
) -> None:
    rows = [row for table in tables(sections(page("http.md"))["Errors"]) for row in table]
    status = {code(row[0]): int(row[1].split(",")[0]) for row in rows}[expected]
    method, path, body = request_
    answer = client.request(method, path, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, expected)


# ── command line ──────────────────────────────────────────────────────────────────────────────────────────────────────
def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from commands(child, f"{name} {child.name}")


def options_in(command: click.Command) -> set[str]:
    options = [found for found in command.params if isinstance(found, click.Option)]
    return {name for option in options for name in (*option.opts, *option.secondary_opts)}


def test_the_commands_are_the_documented_ones() -> None:
    headings = [code(heading) for heading in sections(page("cli.md"))]
    assert sorted(headings) == sorted(name for name, _ in commands(cli, "yapit"))


@pytest.mark.parametrize(("name", "command"), list(commands(cli, "yapit")), ids=str)
def test_the_options_of_a_command_are_the_documented_ones(name: str, command: click.Command) -> None:
    rows = [row for table in tables(sections(page("cli.md"))[f"`{name}`"]) for row in table]
    documented = {span.split()[0] for row in rows for span in CODE.findall(row[0])}
    assert documented == options_in(command)


def test_the_exit_codes_are_the_documented_ones(tmp_path: Path) -> None:
    documented = {int(row[0]) for row in tables(page("cli.md"))[0]}
    model, usage = ["speak", "x", "-m", "nobody", "-o", "x.wav"], ["speak", "x", "--bogus"]
    ended = {run_yapit(tmp_path, *line).returncode for line in (model, usage)}
    assert ended == {1, 2}
    assert documented == {0, *ended, 130}


def run_yapit(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("YAPIT_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("yapit")), *arguments],
        cwd=folder,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# ── examples ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_readme_begins_with_the_two_commands_and_the_first_request() -> None:
    blocks = FENCE.findall((ROOT / "README.md").read_text())
    assert [block for _, block in blocks[:2]] == ["make run\nmake test\n", f"{FIRST_CURL}\n"]


def test_make_has_the_targets_that_the_pages_name() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = " ".join(path.read_text() for path in PAGES)
    used = re.findall(r"^make ([a-z]+)|`make ([a-z]+)", text, re.MULTILINE)
    assert {"run", "test"} <= {name for pair in used for name in pair if name} <= targets


def yapit_lines() -> list[tuple[Path, list[str]]]:
    """Return the arguments of each `yapit` in the shell examples, without pipes, redirections and variables."""
    found = []
    for path, line in shell_lines():
        for part in re.split(r"\s[|<>]\s", line):
            words = shlex.split(part)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words and words[0] == "yapit":
                found.append((path, words[1:]))
    return found


def parsed(arguments: list[str]) -> click.Context:
    """Return the context of the command that `arguments` name; a wrong option raises."""
    context = cli.make_context("yapit", list(arguments))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    return context


def test_every_yapit_line_is_one_that_the_command_line_takes(served: catalog.Catalog) -> None:
    lines = yapit_lines()
    assert len(lines) > len(cli.commands)
    for path, arguments in lines:
        if arguments == ["--version"]:
            continue
        context = parsed(arguments)
        if context.info_name == "speak":
            known(path, context.params["model"], served).voice(context.params["voice"])


BODIES: dict[str, type[msgspec.Struct]] = {
    "/timestamps": speech.TimestampsBody,
    "/speech": speech.SpeechBody,
    "/load": loaded.LoadBody,
    "/unload": loaded.LoadBody,
    "/embeddings": embeddings.EmbeddingsBody,
    "/rerank": rerank.RerankBody,
    "/score": score.ScoreBody,
    "/classify": classify.ClassifyBody,
    "/chat/completions": chat.ChatBody,
    "/completions": completions.CompletionBody,
    "/responses": responses.ResponseBody,
}


def test_every_curl_body_names_fields_models_and_voices_that_exist(served: catalog.Catalog) -> None:
    bodies = [(path, words) for path, words in curl_lines() if "-d" in words]
    assert {path.name for path, _ in bodies} >= {"README.md", "http.md", "first-plugin.md"}
    for path, words in bodies:
        struct = next(body for ending, body in BODIES.items() if any(word.endswith(ending) for word in words))
        body = json.loads(str(after(words, "-d")))
        assert set(body) <= set(fields_in(struct))
        msgspec.convert(body, struct)
        known(path, body["model"], served).voice(body.get("voice"))


def test_every_curl_line_is_answered(client: TestClient[Application], served: catalog.Catalog) -> None:
    # A model of the page's own plugin is not here; those of hf-generic have a test of their own.
    ids = {model.id for model in served if model.backend != HF}
    for _, words in curl_lines():
        url = next(word for word in words if word.startswith("localhost:8000"))
        if "-F" in words:
            continue  # forms have a test of their own
        body = after(words, "-d")
        if body is not None and json.loads(body)["model"] not in ids:
            continue
        target = url.removeprefix("localhost:8000")
        method = after(words, "-X") or ("GET" if body is None else "POST")
        answer = client.request(method, target, content=body)
        # The request that shall be cancelled is not there.
        assert answer.status_code == (404 if method == "DELETE" else 200), answer.text
        assert answer.content


def unknown(entry: catalog.Entry) -> catalog.Entry | None:
    """Answer the hook `complete_model` as if the hub could not be reached."""
    return {"backend": entry.get("backend", HF), "tasks": []}


def test_every_settings_and_models_example_is_taken(tmp_path: Path) -> None:
    plugins = Plugins.load()
    seen = set()
    for number, (_, block) in enumerate(fences("yaml")):
        name = block.partition("\n")[0].removeprefix("# ")
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / (name if name.endswith("yaml") else "models.yaml")).write_text(block)
        effective = settings.load({}, folder=folder).settings
        found = settings.catalog(effective, plugins.models(), folder, complete=unknown)
        assert len(found) >= len(plugins.models())
        seen.add(name)
    assert {"yapit.yaml", "models.yaml", "models.local.yaml"} <= seen


def test_the_models_example_speaks(tmp_path: Path) -> None:
    for number, (path, block) in enumerate(fences("yaml")):
        if path.name in {"README.md", "models.md"} and "id: reader" in block:
            (tmp_path / "models.yaml").write_text(block)
            ended = run_yapit(tmp_path, "speak", "Hello", "-m", "reader", "-o", f"{number}.wav")
            assert ended.returncode == 0, ended.stderr
            assert wave_of(tmp_path / f"{number}.wav")[1]


def test_json_examples_are_json_and_python_examples_are_python() -> None:
    for _, block in fences("json"):
        assert json.loads(block)
    for _, block in fences("python"):
        compile(block, "example", "exec")


def wave_of(path: Path) -> tuple[int, bytes]:
    with wave.open(str(path)) as file:
        return file.getframerate(), file.readframes(file.getnframes())


# ── the first plugin ──────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files in a folder, with the metadata that an installation would leave beside the package."""
    folder = tmp_path_factory.mktemp("plugin")
    found = re.findall(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```$", page("first-plugin.md"), re.MULTILINE | re.DOTALL)
    for name, text in found:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    installed = folder / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    return folder


def test_the_page_shows_the_files_that_it_lists(plugin: Path) -> None:
    shown = {path.name for path in plugin.rglob("*") if path.is_file() and ".dist-info" not in str(path)}
    assert shown == {"pyproject.toml", "__init__.py", "adapter.py", "models.yaml", "test_morse.py"}


def test_the_first_plugin_is_listed_without_an_error(plugin: Path) -> None:
    ended = run_yapit(plugin, "plugins", "--json", PYTHONPATH=str(plugin / "src"))
    found = {entry["name"]: entry for entry in json.loads(ended.stdout)}["morse"]
    assert (found["version"], found["models"], found["error"]) == ("0.1.0", ["morse"], None)


def test_the_first_plugin_speaks_as_its_page_says(plugin: Path) -> None:
    lines = [arguments for path, arguments in yapit_lines() if path.name == "first-plugin.md"]
    arguments = next(arguments for arguments in lines if arguments[0] == "speak")
    ended = run_yapit(plugin, *arguments, PYTHONPATH=str(plugin / "src"))
    assert ended.returncode == 0, ended.stderr
    rate, pcm = wave_of(plugin / "morse.wav")
    assert rate == 16_000
    # "hello world" is 111 dots long with the gap after each word; the core cuts silence at the end.
    assert 90 < len(pcm) / 2 / rate / 0.06 < 115
    assert max(memoryview(pcm).cast("h")) > 8000


def test_the_first_plugins_own_test_passes(plugin: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=plugin,
        env={**os.environ, "PYTHONPATH": str(plugin / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout


# ── the pages themselves ──────────────────────────────────────────────────────────────────────────────────────────────
def test_every_internal_link_leads_somewhere() -> None:
    count = 0
    for path in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
            if re.match(r"https?:", target):
                continue
            name, _, anchor = target.partition("#")
            file = path.parent / name if name else path
            assert file.exists(), f"{path.name}: {target}"
            headings = re.findall(r"^#+ (.+)$", prose(file.read_text()), re.MULTILINE) if anchor else []
            assert not anchor or anchor in map(slug, headings), f"{path.name}: {target}"
            count += 1
    assert count > len(PAGES)


def test_the_package_index_page_has_no_links_that_break_there() -> None:
    assert "](" not in (ROOT / "core/README.md").read_text().replace("](https://", "")


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = FENCE.findall(page("index.md"))[0][1].split()
    assert {path.stem for path in DOCS.glob("*.md")} == {"index", *(name for name in listed if name != ":hidden:")}


def test_the_glossary_has_each_word_once_in_order() -> None:
    words = [row[0] for row in tables(page("glossary.md"))[0]]
    assert words == sorted(set(words))
    needed = {"task", "model", "backend", "plugin", "adapter", "catalog", "chunk", "engine", "resident", "executor"}
    needed |= {"worker", "channel", "call", "deployment", "provision", "voice", "segment", "word", "mark", "usage"}
    assert needed | {"finish_reason", "context"} <= set(words)


def test_the_documentation_has_the_version_of_the_code() -> None:
    assert f'release = "{yapit.__version__}"' in (DOCS / "conf.py").read_text()
    assert f"## {yapit.__version__}" in (ROOT / "CHANGELOG.md").read_text()
