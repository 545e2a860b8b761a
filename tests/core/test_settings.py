from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from yapit import Model, SettingsError
from yapit.errors import ModelNotFoundError
from yapit.settings import (
    LogSettings,
    ServerSettings,
    Settings,
    SpeechSettings,
    TranscriptionSettings,
    catalog,
    leaves,
    load,
    schema,
)

EXAMPLE = """
server:
  host: 0.0.0.0
  port: 8080
  api_keys: [secret]
  drain_s: 5
speech:
  default_model: kokoro
  voice_map: {alloy: af_heart}
log: {level: debug, format: json}
plugins: [espeak, kokoro]
plugin_settings:
  runpod: {region: EU, retries: 3}
models: [kokoro, openai/whisper-tiny]
models_config: /etc/yapit/models.yaml
aliases: {tts-1: kokoro}
device: cuda:1
data_dir: /var/lib/yapit
"""


def write(folder: Path, text: str, name: str = "yapit.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# ── where a value comes from ──────────────────────────────────────────────────────────────────────────────────────────
def test_nothing_set_is_all_defaults(tmp_path: Path) -> None:
    effective = load({}, folder=tmp_path)
    assert (effective.settings, effective.sources) == (Settings(), {})


def test_the_whole_file_is_read(tmp_path: Path) -> None:
    write(tmp_path, EXAMPLE)
    assert load({}, folder=tmp_path).settings == Settings(
        server=ServerSettings(host="0.0.0.0", port=8080, api_keys=("secret",), drain_s=5),  # noqa: S104 - an example
        speech=SpeechSettings(default_model="kokoro", voice_map={"alloy": "af_heart"}),
        log=LogSettings(level="debug", format="json"),
        plugins=("espeak", "kokoro"),
        plugin_settings={"runpod": {"region": "EU", "retries": 3}},
        models=("kokoro", "openai/whisper-tiny"),
        models_config="/etc/yapit/models.yaml",
        aliases={"tts-1": "kokoro"},
        device="cuda:1",
        data_dir="/var/lib/yapit",
    )


@pytest.mark.parametrize(
    ("environ", "flags", "port", "source"),
    [
        ({}, {}, 1001, "{file}"),
        ({"YAPIT_SERVER_PORT": "1002"}, {}, 1002, "YAPIT_SERVER_PORT"),
        ({"YAPIT_PORT": "1003"}, {}, 1003, "YAPIT_PORT"),
        ({"YAPIT_PORT": "1003", "YAPIT_SERVER_PORT": "1002"}, {}, 1002, "YAPIT_SERVER_PORT"),
        ({"YAPIT_PORT": "1003"}, {"server.port": 1004}, 1004, "flag"),
        ({"YAPIT_PORT": "1003"}, {"server.port": None}, 1003, "YAPIT_PORT"),
        ({"YAPIT_PORT": ""}, {}, 1001, "{file}"),
    ],
)
def test_the_stronger_source_wins(
    tmp_path: Path, environ: dict[str, str], flags: dict[str, Any], port: int, source: str
) -> None:
    file = write(tmp_path, "server: {port: 1001, drain_s: 1}")
    effective = load(environ, flags, tmp_path)
    assert effective.settings.server == ServerSettings(port=port, drain_s=1)
    assert effective.sources == {"server.port": source.format(file=file), "server.drain_s": str(file)}


def test_rows_name_every_setting_its_value_and_its_source(tmp_path: Path) -> None:
    write(tmp_path, "device: cpu")
    rows = {path: (value, source) for path, value, source in load({"YAPIT_PORT": "1"}, folder=tmp_path).rows()}
    assert rows.keys() == set(leaves(Settings))
    assert rows["server.port"] == (1, "YAPIT_PORT")
    assert rows["device"] == ("cpu", str(tmp_path / "yapit.yaml"))
    assert rows["server.host"] == ("127.0.0.1", "default")


def test_rows_hide_the_keys(tmp_path: Path) -> None:
    rows = list(load({"YAPIT_API_KEYS": "sesame,open"}, folder=tmp_path).rows())
    assert "sesame" not in repr(rows)
    assert ("server.api_keys", ["…", "…"], "YAPIT_API_KEYS") in rows


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("server: {prot: 1}", r"yapit\.yaml: unknown key `\$\.server\.prot`.*'server\.port'"),
        ("sever: {}", r"unknown key `\$\.sever`"),
        ("server: {port: many}", r"yapit\.yaml: .*`\$\.server\.port`"),
        ("server: {port: 70000}", r"`\$\.server\.port`"),
        ("server: 1", r"`\$\.server`"),
        ("log: {level: loud}", r"'loud'.*`\$\.log\.level`"),
        ("server: {api_keys: ['']}", r"`\$\.server\.api_keys"),
        ("- server", "expected a mapping"),
        ("server: [", r"yapit\.yaml: "),
    ],
)
def test_a_wrong_file_is_named_with_the_place_in_it(tmp_path: Path, text: str, named: str) -> None:
    write(tmp_path, text)
    with pytest.raises(SettingsError, match=named) as caught:
        load({}, folder=tmp_path)
    assert "\n" not in caught.value.message, "errors at the start are one line"


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    write(tmp_path, "# later\n")
    assert load({}, folder=tmp_path).settings == Settings()


def test_another_file_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, "device: cpu")
    other = write(tmp_path, "device: mps", "other.yaml")
    effective = load({"YAPIT_CONFIG": str(other)}, folder=tmp_path)
    assert (effective.settings.device, effective.sources) == ("mps", {"device": str(other)})


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"YAPIT_CONFIG: there is no file '.*absent\.yaml'"):
        load({"YAPIT_CONFIG": str(tmp_path / "absent.yaml")}, folder=tmp_path)


# ── the environment ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("YAPIT_API_KEYS", "one, two,", "server.api_keys", ["one", "two"]),
        ("YAPIT_API_KEYS", '["a,b"]', "server.api_keys", ["a,b"]),
        ("YAPIT_HOST", "::1", "server.host", "::1"),
        ("YAPIT_SERVER_ALLOW_OPEN", "true", "server.allow_open", True),
        ("YAPIT_SERVER_DRAIN_S", "0.5", "server.drain_s", 0.5),
        ("YAPIT_LOG_LEVEL", "debug", "log.level", "debug"),
        ("YAPIT_PLUGINS", "echo,espeak", "plugins", ["echo", "espeak"]),
        ("YAPIT_PLUGIN_SETTINGS", '{"runpod": {"retries": 3}}', "plugin_settings", {"runpod": {"retries": 3}}),
        ("YAPIT_ALIASES", "tts-1:kokoro, chat : org/llm", "aliases", {"tts-1": "kokoro", "chat": "org/llm"}),
        ("YAPIT_VOICE_MAP", '{"alloy": "a:b"}', "speech.voice_map", {"alloy": "a:b"}),
        ("YAPIT_VOICE_MAP_FILE", "map.yaml", "speech.voice_map_file", "map.yaml"),
        ("MODELS", "BAAI/bge-m3,kokoro", "models", ["BAAI/bge-m3", "kokoro"]),
        ("MODEL_CONFIG", "models/mine.yaml", "models_config", "models/mine.yaml"),
        ("VOICE_MAP", "alloy:af_heart,echo:bm_george", "speech.voice_map", {"alloy": "af_heart", "echo": "bm_george"}),
        ("VOICE_MAP_FILE", "map.json", "speech.voice_map_file", "map.json"),
        ("DEVICE", "cuda:0", "device", "cuda:0"),
    ],
)
def test_a_variable_sets_its_setting(tmp_path: Path, name: str, text: str, path: str, value: object) -> None:
    effective = load({name: text}, folder=tmp_path)
    rows = {path: found for path, found, _ in effective.rows()}
    if path == "server.api_keys":
        rows[path] = msgspec.to_builtins(effective.settings.server.api_keys)
    assert (rows[path] if not isinstance(rows[path], tuple) else [*rows[path]]) == value
    assert effective.sources == {path: name}


@pytest.mark.parametrize("path", leaves(Settings))
def test_every_setting_has_a_variable_of_its_own(tmp_path: Path, path: str) -> None:
    name = f"YAPIT_{path.replace('.', '_').upper()}"
    with pytest.raises(SettingsError, match=r"^(?!.*sets nothing)"):
        load({name: "[[1]]"}, folder=tmp_path)  # known, and no setting may be this


@pytest.mark.parametrize("weak", ["MODELS", "DEVICE"])
def test_a_name_of_our_own_wins_over_a_borrowed_one(tmp_path: Path, weak: str) -> None:
    effective = load({f"YAPIT_{weak}": "ours", weak: "theirs"}, folder=tmp_path)
    assert [*effective.sources.values()] == [f"YAPIT_{weak}"]


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"YAPIT_SERVER_PROT": "1"}, r"YAPIT_SERVER_PROT sets nothing.*'YAPIT_SERVER_PORT'"),
        ({"YAPIT_MODEL": "x"}, r"YAPIT_MODEL sets nothing.*'YAPIT_MODELS'"),
        ({"YAPIT_PORT": "many"}, r"YAPIT_PORT: .*`\$\.server\.port`"),
        ({"YAPIT_API_KEYS": "[1"}, r"server\.api_keys: "),
        ({"VOICE_MAP": "alloy"}, r"speech\.voice_map: expected 'name:value,name:value', got 'alloy'"),
        ({"DEVICE": " "}, "DEVICE"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load(environ, folder=tmp_path)


@pytest.mark.parametrize("service", ["YAPIT", "YAPIT_WEB", "YAPIT_SERVER"])
def test_what_kubernetes_sets_beside_a_service_is_ignored(tmp_path: Path, service: str) -> None:
    environ = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "8000",
        f"{service}_SERVICE_PORT_HTTP": "8000",
        f"{service}_PORT": "tcp://10.0.0.1:8000",
        f"{service}_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        f"{service}_PORT_8000_TCP_PROTO": "tcp",
        f"{service}_PORT_8000_TCP_PORT": "8000",
        f"{service}_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ, folder=tmp_path).settings == Settings()


def test_variables_of_others_are_ignored(tmp_path: Path) -> None:
    assert load({"PATH": "/bin", "PORT": "1", "HOST": "h", "PLUGINS": "p"}, folder=tmp_path).settings == Settings()


# ── the schema ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_schema_accepts_the_example() -> None:
    jsonschema.validate(msgspec.yaml.decode(EXAMPLE), schema())


@pytest.mark.parametrize("wrong", [{"server": {"prot": 1}}, {"server": {"port": -1}}, {"models": "a"}, {"a": "b"}])
def test_the_schema_refuses_what_loading_refuses(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema())
    write(tmp_path, msgspec.yaml.encode(wrong).decode())
    with pytest.raises(SettingsError):
        load({}, folder=tmp_path)


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "settings",
    [
        ServerSettings(),
        ServerSettings(host="localhost"),
        ServerSettings(host="::1"),
        ServerSettings(host="0.0.0.0", api_keys=("k",)),  # noqa: S104 - what is being allowed
        ServerSettings(host="0.0.0.0", allow_open=True),  # noqa: S104 - what is being allowed
    ],
)
def test_no_key_is_needed(settings: ServerSettings) -> None:
    settings.require_key()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com"])  # noqa: S104 - what is being refused
def test_the_network_needs_a_key(host: str) -> None:
    with pytest.raises(SettingsError, match=r"YAPIT_API_KEYS.*allow_open"):
        ServerSettings(host=host).require_key()


# ── the catalog ───────────────────────────────────────────────────────────────────────────────────────────────────────
def speaking(name: str, backend: str = "b", **fields: Any) -> Model:
    return Model(id=name, backend=backend, tasks=("synthesize",), **fields)


def test_a_local_file_wins_over_the_file_and_the_file_over_plugins(tmp_path: Path) -> None:
    write(tmp_path, "- {id: a, revision: file, licence: file}\n- {id: b, backend: b, tasks: [embed]}", "models.yaml")
    write(tmp_path, "- {id: a, revision: local}", "models.local.yaml")
    plugin = speaking("a", revision="plugin", licence="plugin", description="plugin")
    first, second = catalog(Settings(), {"p": [plugin]}, tmp_path)
    assert (first.revision, first.licence, first.description, second.id) == ("local", "file", "plugin", "b")


@pytest.mark.parametrize("name", ["models.local.yaml", "models.local.yml"])
def test_a_local_file_needs_no_other(tmp_path: Path, name: str) -> None:
    write(tmp_path, "- {id: a, revision: local}", name)
    assert catalog(Settings(), {"p": [speaking("a")]}, tmp_path)["a"].revision == "local"


def test_a_named_models_file_is_read_with_the_local_one_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "- {id: wrong, backend: b, tasks: [embed]}", "models.yaml")
    (tmp_path / "sub").mkdir()
    named = write(tmp_path / "sub", "- {id: a, backend: b, tasks: [embed]}", "mine.yaml")
    write(tmp_path / "sub", "- {id: a, revision: local}", "models.local.yaml")
    assert [(m.id, m.revision) for m in catalog(Settings(models_config=str(named)), {}, tmp_path)] == [("a", "local")]


def test_a_named_models_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"models_config: there is no file '.*absent\.yaml'"):
        catalog(Settings(models_config=str(tmp_path / "absent.yaml")), {}, tmp_path)


def test_a_model_of_two_plugins_is_named_and_the_first_stays(tmp_path: Path) -> None:
    found = catalog(Settings(), {"p": [speaking("a", licence="p")], "q": [speaking("a", licence="q")]}, tmp_path)
    assert (found["a"].licence, len(found)) == ("p", 1)
    assert found.duplicates == ("model 'a' of plugin 'q' is displaced by another plugin's",)


def test_what_an_entry_leaves_out_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "- {hf_repo_id: org/a}\n- {id: c, backend: b, tasks: [embed]}", "models.local.yaml")
    complete = {"org/a": {"backend": "found", "tasks": ["embed"]}}
    interpreters = {"found": "/env/bin/python"}
    found = catalog(
        Settings(), {"p": [speaking("b")]}, tmp_path, interpreters, complete=lambda entry: complete[entry["id"]]
    )
    assert [(model.id, model.backend) for model in found] == [("b", "b"), ("org/a", "found"), ("c", "b")]
    assert found["org/a"].python == "/env/bin/python"


def test_an_entry_that_nobody_completes_is_named(tmp_path: Path) -> None:
    write(tmp_path, "- {hf_repo_id: org/a}", "models.local.yaml")
    with pytest.raises(SettingsError, match=r"model 'org/a' names no backend.*pip install yapit-plugin-hf-generic"):
        catalog(Settings(), {}, tmp_path)


def test_only_the_wanted_models_are_served(tmp_path: Path) -> None:
    found = catalog(Settings(models=("b",)), {"p": [speaking("a"), speaking("b")]}, tmp_path)
    assert [model.id for model in found] == ["b"]


def test_an_unknown_wanted_model_names_near_ones(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"MODELS names 'kokoru'.*'kokoro'"):
        catalog(Settings(models=("kokoru",)), {"p": [speaking("kokoro")]}, tmp_path)


KOKORO, ECHO, WHISPER = speaking("kokoro"), speaking("echo", "echo"), Model(id="w", backend="b", tasks=("transcribe",))
LIKE_TTS = speaking("mine", aliases=("tts-1",))
RENAMED = speaking("kokoro", aliases=("old",))


@pytest.mark.parametrize(
    ("models", "settings", "wanted"),
    [
        ([ECHO, WHISPER, KOKORO], Settings(), "kokoro"),
        ([ECHO], Settings(), "echo"),
        ([ECHO, KOKORO], Settings(speech=SpeechSettings(default_model="echo")), "echo"),
        ([ECHO, KOKORO], Settings(aliases={"tts-1": "echo"}), "echo"),
        ([KOKORO, LIKE_TTS], Settings(), "mine"),
        ([KOKORO, speaking("tts-1")], Settings(), "tts-1"),
        ([KOKORO, speaking("other")], Settings(models=("other",)), "other"),
        ([speaking("other"), RENAMED], Settings(models=("old",)), "kokoro"),
        ([speaking("other"), KOKORO], Settings(models=("k",), aliases={"k": "kokoro"}), "kokoro"),
        ([speaking("other"), RENAMED], Settings(speech=SpeechSettings(default_model="old")), "kokoro"),
    ],
    ids=[
        "the first that speaks and does not echo",
        "echo when nothing else speaks",
        "the default model",
        "what aliases sets",
        "a model's own alias",
        "a model of that very name",
        "a model that is served",
        "a model served by its alias",
        "a model served by an alias of the settings",
        "the default model by its alias",
    ],
)
def test_tts_1_is(tmp_path: Path, models: list[Model], settings: Settings, wanted: str) -> None:
    assert catalog(settings, {"p": models}, tmp_path)["tts-1"].id == wanted


def test_every_openai_speech_model_is_an_alias(tmp_path: Path) -> None:
    found = catalog(Settings(), {"p": [KOKORO]}, tmp_path)
    assert {found[name].id for name in ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")} == {"kokoro"}


def listening(name: str, backend: str = "b") -> Model:
    return Model(id=name, backend=backend, tasks=("transcribe",))


EAR, HEARS_ITSELF, REAL = listening("ear"), listening("echo", "echo"), listening("large", "whisper")


@pytest.mark.parametrize(
    ("models", "settings", "wanted"),
    [
        ([HEARS_ITSELF, KOKORO, EAR, listening("other")], Settings(), "ear"),
        ([HEARS_ITSELF], Settings(), "echo"),
        ([HEARS_ITSELF, EAR, REAL], Settings(), "large"),
        ([REAL, EAR], Settings(transcription=TranscriptionSettings(default_model="ear")), "ear"),
        ([REAL, EAR], Settings(speech=SpeechSettings(default_model="ear")), "large"),
        ([REAL, EAR], Settings(aliases={"whisper-1": "ear"}), "ear"),
        ([EAR, listening("whisper-1")], Settings(), "whisper-1"),
        ([REAL, EAR], Settings(models=("ear",)), "ear"),
    ],
    ids=[
        "the first that listens and does not echo",
        "echo when nothing else listens",
        "a whisper before others",
        "the default model",
        "not the default of speech",
        "what aliases sets",
        "a model of that very name",
        "a model that is served",
    ],
)
def test_whisper_1_is(tmp_path: Path, models: list[Model], settings: Settings, wanted: str) -> None:
    assert catalog(settings, {"p": models}, tmp_path)["whisper-1"].id == wanted


def test_every_openai_listening_model_is_an_alias(tmp_path: Path) -> None:
    found = catalog(Settings(), {"p": [KOKORO, EAR]}, tmp_path)
    assert {found[name].id for name in ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")} == {"ear"}
    assert found["tts-1"].id == "kokoro"


@pytest.mark.parametrize(("factor", "expected"), [(2.5, (180, 250)), (0, (None, None))])
def test_a_transcription_may_take_so_long(factor: float, expected: tuple[float | None, float | None]) -> None:
    chosen = TranscriptionSettings(timeout_factor=factor)
    assert (chosen.timeout_s(10), chosen.timeout_s(100)) == expected


def test_without_a_model_that_speaks_tts_1_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        catalog(Settings(), {"p": [WHISPER]}, tmp_path)["tts-1"]


@pytest.mark.parametrize(
    "settings", [Settings(aliases={"a": "kokoru"}), Settings(speech=SpeechSettings(default_model="kokoru"))]
)
def test_a_name_of_nothing_is_refused_at_the_start(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"'kokoru'.*'kokoro'"):
        catalog(settings, {"p": [KOKORO]}, tmp_path)
