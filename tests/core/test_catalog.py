import re
from pathlib import Path
from typing import Any

import pytest

from yapit import InvalidInputError, Model, SettingsError, Voice, read_models
from yapit.catalog import HANDLERS, Catalog, Entry, entry_of, merge, read_entries
from yapit.errors import ModelNotFoundError


def model(name: str, **fields: Any) -> Model:
    return Model(**{"id": name, "backend": "b", "tasks": ("embed",), **fields})


def entry(name: str | None = None, **fields: Any) -> Entry:
    return ({"id": name} if name else {}) | fields


def base(name: str, **fields: Any) -> Entry:
    return entry_of(model(name, **fields))


def written(folder: Path, text: str) -> Path:
    path = folder / "models.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# ── merging ───────────────────────────────────────────────────────────────────────────────────────────────────────────
class TestMerge:
    def test_an_entry_of_the_same_id_overrides_only_what_it_sets(self) -> None:
        (merged,) = merge([base("a", licence="MIT", dimensions=8)], [entry("a", dimensions=4)])
        assert merged == model("a", licence="MIT", dimensions=4)

    def test_maps_are_merged_deep_and_lists_replaced(self) -> None:
        below = base("a", options={"x": {"one": 1, "two": 2}, "y": 1}, languages=("en", "de"))
        (merged,) = merge([below], [entry("a", options={"x": {"two": 22}}, languages=["fr"])])
        assert merged.options == {"x": {"one": 1, "two": 22}, "y": 1}
        assert merged.languages == ("fr",)

    def test_the_lower_layer_stays_as_it_was(self) -> None:
        below = base("a", options={"x": {"one": 1}})
        merge([below], [entry("a", options={"x": {"one": 2}}, dimensions=3)])
        assert below == base("a", options={"x": {"one": 1}})

    def test_new_entries_come_last_and_in_order(self) -> None:
        merged = merge([base("a"), base("b")], [base("d"), base("b"), base("c")])
        assert [one.id for one in merged] == ["a", "b", "d", "c"]

    def test_the_last_layer_wins(self) -> None:
        layers = [[base("a", revision=number)] for number in ("1", "2", "3")]
        assert [one.revision for one in merge(*layers)] == ["3"]

    def test_an_entry_without_id_finds_its_model_by_source(self) -> None:
        (merged,) = merge([base("a", source="org/a")], [entry(source="org/a", dimensions=4)])
        assert (merged.id, merged.dimensions, merged.aliases) == ("a", 4, ())

    def test_the_id_counts_more_than_the_source(self) -> None:
        first, second = merge([base("a", source="x"), base("b", source="y")], [entry("b", source="x")])
        assert (first.source, second.source) == ("x", "x")

    def test_a_renamed_model_keeps_its_old_name_as_an_alias(self) -> None:
        (merged,) = merge([base("org/a", source="org/a", aliases=("old",))], [entry("mine", source="org/a")])
        assert (merged.id, merged.aliases) == ("mine", ("old", "org/a"))
        assert Catalog([merged])["org/a"].id == "mine"

    def test_two_entries_of_one_source_are_two_models(self) -> None:
        merged = merge(
            [base("a", source="org/a", licence="MIT")],
            [entry("fast", source="org/a", options={"x": 1}), entry("good", source="org/a", options={"x": 2})],
        )
        assert [(one.id, one.options, one.licence) for one in merged] == [
            ("fast", {"x": 1}, "MIT"),
            ("good", {"x": 2}, "MIT"),
        ]
        assert Catalog(merged)["a"].id == "fast"

    def test_a_source_alone_is_also_the_id(self) -> None:
        (merged,) = merge([], [entry(source="org/new", backend="b", tasks=["embed"])])
        assert (merged.id, merged.source) == ("org/new", "org/new")

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            (entry("a", dimensions="many"), r"model 'a'.*dimensions"),
            (entry("new"), r"model 'new'.*backend"),
            (entry("a", tasks=["embd"]), r"model 'a'.*'embd'.*'embed'"),
        ],
    )
    def test_what_does_not_make_a_model_is_named(self, wrong: Entry, named: str) -> None:
        with pytest.raises(SettingsError, match=named):
            merge([base("a")], [wrong])


class TestCompleting:
    """What an entry leaves out."""

    def test_an_entry_with_only_a_source_is_completed(self) -> None:
        asked: list[Entry] = []

        def complete(one: Entry) -> Entry:
            asked.append(one)
            return {"backend": "b", "tasks": ["embed"], "dimensions": 8}

        (merged,) = merge([], [entry(source="org/a")], complete=complete)
        assert merged == model("org/a", source="org/a", dimensions=8)
        assert asked == [{"id": "org/a", "source": "org/a"}]

    def test_what_the_entry_says_wins(self) -> None:
        said = entry("a", source="org/a", tasks=["rerank"], options={"x": 1}, languages=["de"])
        found = {
            "id": "other",
            "backend": "b",
            "tasks": ["embed"],
            "options": {"x": 2, "y": 3},
            "languages": ["en", "fr"],
            "licence": "MIT",
        }
        (merged,) = merge([], [said], complete=lambda _: found)
        assert (merged.id, merged.backend, merged.tasks) == ("a", "b", ("rerank",))
        assert (merged.options, merged.languages, merged.licence) == ({"x": 1, "y": 3}, ("de",), "MIT")

    @pytest.mark.parametrize("left_out", ["backend", "tasks"])
    def test_half_of_it_is_enough_to_be_asked_for(self, left_out: str) -> None:
        said = {key: value for key, value in base("a", source="org/a").items() if key != left_out}
        (merged,) = merge([], [said], complete=lambda _: {"backend": "found", "tasks": ["classify"]})
        expected = {"backend": ("found", ("embed",)), "tasks": ("b", ("classify",))}
        assert (merged.backend, merged.tasks) == expected[left_out]

    def test_a_complete_entry_is_not_asked_for(self) -> None:
        def complete(one: Entry) -> Entry:
            raise AssertionError(one)

        assert merge([base("a")], [entry("a", dimensions=4)], complete=complete) == [model("a", dimensions=4)]

    def test_layers_are_merged_before_anybody_is_asked(self) -> None:
        layers = [[entry("a", source="org/a")], [entry("a", revision="v1")]]
        (merged,) = merge(*layers, complete=lambda one: {"backend": "b", "tasks": ["embed"], "options": {**one}})
        assert merged.options == {"id": "a", "source": "org/a", "revision": "v1"}

    def test_what_could_not_be_found_out_is_no_task(self) -> None:
        (merged,) = merge([], [entry(source="org/a")], complete=lambda _: {"backend": "b", "tasks": []})
        assert merged.tasks == ()

    @pytest.mark.parametrize("complete", [None, lambda _: None])
    def test_a_source_that_nobody_knows_is_named(self, complete: Any) -> None:
        with pytest.raises(SettingsError, match=r"model 'org/a' names no backend, and no .* knows its source; name "):
            merge([], [entry(source="org/a")], complete=complete)

    def test_a_backend_whose_tasks_nobody_knows_is_named(self) -> None:
        with pytest.raises(SettingsError, match=r"model 'a': .*`tasks`"):
            merge([], [entry("a", backend="b")], complete=lambda _: None)

    def test_an_answer_that_makes_no_model_is_named(self) -> None:
        with pytest.raises(SettingsError, match=r"model 'a': unknown task 'sing'"):
            merge([], [entry("a", source="x")], complete=lambda _: {"backend": "b", "tasks": ["sing"]})


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
EXISTING = """
models:
  - hf_repo_id: "BAAI/bge-m3"
    handler: "app.models.embedding.HFEmbeddingModel"
    pooling: "cls"
  - name: "chat"
    hf_repo_id: "Qwen/Qwen3-4B-Instruct-2507"
    handler: "app.models.text_chat.TextChatModel"
    supports_structured_outputs: false
    defaults: {temperature: 0.7, top_p: 0.9, max_tokens: 512}
  - hf_repo_id: "Qwen/VL"
    handler: "app.models.vision_chat.QwenVLChat"
  - hf_repo_id: "openai/whisper-tiny"
    handler: "app.models.whisper.WhisperASR"
  - name: "gpt-4o"
    hf_repo_id: "gpt-4o"
    handler: "app.models.openai_proxy.OpenAIChatProxyModel"
    upstream_base_url: "https://api.example.com/v1"
    upstream_api_key_env: "MY_KEY"
    skip_download: true
"""


def test_an_existing_file_loads_as_it_is(tmp_path: Path) -> None:
    assert read_models(written(tmp_path, EXISTING)) == [
        Model(
            id="BAAI/bge-m3",
            source="BAAI/bge-m3",
            backend="hf-generic",
            tasks=("embed",),
            options={"pooling": "cls"},
        ),
        Model(
            id="chat",
            source="Qwen/Qwen3-4B-Instruct-2507",
            backend="hf-generic",
            tasks=("generate",),
            options={"supports_structured_outputs": False},
            defaults={"temperature": 0.7, "top_p": 0.9, "max_tokens": 512},
        ),
        Model(id="Qwen/VL", source="Qwen/VL", backend="hf-generic", tasks=("generate",)),
        Model(id="openai/whisper-tiny", source="openai/whisper-tiny", backend="whisper", tasks=("transcribe",)),
        Model(
            id="gpt-4o",
            source="gpt-4o",
            backend="openai",
            tasks=("generate",),
            options={
                "upstream_base_url": "https://api.example.com/v1",
                "upstream_api_key_env": "MY_KEY",
                "skip_download": True,
            },
        ),
    ]


@pytest.mark.parametrize("name", HANDLERS)
@pytest.mark.parametrize("prefix", ["", "app.models.somewhere."])
def test_a_handler_class_is_a_backend_and_a_task(tmp_path: Path, name: str, prefix: str) -> None:
    (read,) = read_models(written(tmp_path, f"- {{name: m, handler: {prefix}{name}}}"))
    assert (read.backend, *read.tasks) == HANDLERS[name]


def test_a_handler_may_be_a_backend(tmp_path: Path) -> None:
    assert read_entries(written(tmp_path, "- {name: m, handler: kokoro}")) == [{"id": "m", "backend": "kokoro"}]


def test_what_an_entry_says_itself_counts_more_than_its_handler(tmp_path: Path) -> None:
    text = "- {id: m, handler: a.TextChatModel, pooling: mean, backend: vllm, options: {pooling: cls}}"
    (read,) = read_models(written(tmp_path, text))
    assert (read.backend, read.tasks, read.options) == ("vllm", ("generate",), {"pooling": "cls"})


def test_names_of_today(tmp_path: Path) -> None:
    text = """
        - id: org/speaks
          backend: kokoro
          tasks: [synthesize]
          source: org/weights
          sample_rate: 24000
          speed_range: [0.5, 2]
          voices: [{id: af_heart, name: Heart, languages: [en-US]}]
    """
    (read,) = read_models(written(tmp_path, text))
    assert (read.id, read.speed_range) == ("org/speaks", (0.5, 2.0))
    assert read.voices == (Voice(id="af_heart", name="Heart", languages=("en-US",)),)


@pytest.mark.parametrize("text", ["models: []", "[]"])
def test_a_file_may_have_no_models(tmp_path: Path, text: str) -> None:
    assert read_models(written(tmp_path, text)) == []


OK = "- {id: a, backend: b, tasks: [embed]}\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"{OK}- {{id: b, backend: b, tasks: [embed], dimension: 3}}", r"models\.yaml: \$\.models\[1\].*'dimension'"),
        (f"{OK}- {{id: b, backend: b, tasks: [embed], voices: [{{ids: x}}]}}", r"yaml: \$\.models\[1\].*`ids`.*voices"),
        (f"{OK}- {{id: b, backend: b, tasks: [sing]}}", r"models\.yaml: \$\.models\[1\].*'sing'"),
        (f"{OK}- {{id: b, handler: app.models.of_ours.TextChatModl}}", r"\$\.models\[1\]\.handler: .*mean 'TextCh"),
        ("- {name: a, id: b}", r"\$\.models\[0\]: 'name' and 'id' differ"),
        ("- {hf_repo_id: a, source: b}", "'hf_repo_id' and 'source' differ"),
        ("models: {a: b}", r"models\.yaml: expected a list"),
        ("- a\n- b", "expected a list of models"),
        ("model: []", "under 'models'"),
        ("", "expected a list"),
        ("a: [", r"models\.yaml: "),
    ],
)
def test_a_wrong_file_is_named_with_the_place_in_it(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        read_models(written(tmp_path, text))
    assert "\n" not in caught.value.message, "errors at the start are one line"


def test_an_unknown_key_of_a_part_is_refused_with_file_and_path(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"models\.yaml: \$\.models\[0\]: unknown key 'dimension'. .*'dimensions'"):
        read_entries(written(tmp_path, "- {id: a, dimension: 3}"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml: No such file"):
        read_models(tmp_path / "absent.yaml")


# ── looking up ────────────────────────────────────────────────────────────────────────────────────────────────────────
CATALOG = Catalog(
    [model("openai/whisper-tiny", aliases=("tiny",)), model("kokoro", tasks=("synthesize",)), model("bge")],
    {"tts-1": "kokoro"},
)


@pytest.mark.parametrize(
    ("name", "found"),
    [("openai/whisper-tiny", "openai/whisper-tiny"), ("tiny", "openai/whisper-tiny"), ("tts-1", "kokoro")],
)
def test_a_model_is_found_by_id_and_alias(name: str, found: str) -> None:
    assert CATALOG[name].id == found


@pytest.mark.parametrize(("name", "near"), [("whisper-tiny", "openai/whisper-tiny"), ("tts-2", "tts-1")])
def test_an_unknown_model_names_near_ones(name: str, near: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"'{name}' does not exist .*'{near}'") as caught:
        CATALOG[name]
    assert caught.value.param == "model"


def test_a_catalog_keeps_its_order() -> None:
    assert ([one.id for one in CATALOG], len(CATALOG)) == (["openai/whisper-tiny", "kokoro", "bge"], 3)
    assert [one.id for one in CATALOG.with_task("embed")] == ["openai/whisper-tiny", "bge"]


def test_an_alias_of_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'tts-1' names 'kokor'.*mean 'kokoro'"):
        Catalog([model("kokoro")], {"tts-1": "kokor"})


def test_restricting_keeps_the_named_models_and_their_aliases() -> None:
    some = CATALOG.restrict(["tts-1", "openai/whisper-tiny", "kokoro"])
    assert [one.id for one in some] == ["kokoro", "openai/whisper-tiny"]
    assert some["tts-1"].id == "kokoro"
    with pytest.raises(ModelNotFoundError):
        some["bge"]


def test_restricting_drops_the_aliases_of_what_is_left_out() -> None:
    with pytest.raises(ModelNotFoundError):
        CATALOG.restrict(["bge"])["tts-1"]


def test_restricting_to_an_unknown_model_names_near_ones() -> None:
    with pytest.raises(SettingsError, match=r"MODELS names 'kokoru'.*mean 'kokoro'"):
        CATALOG.restrict(["bge", "kokoru"])


# ── voices ────────────────────────────────────────────────────────────────────────────────────────────────────────────
SPEAKING = model(
    "speaks",
    tasks=("synthesize",),
    voices=(Voice(id="af_Heart"), Voice(id="bm_george"), Voice(id="en-us")),
    voice_aliases={"Alloy": "af_heart", "bm_george": "af_heart", "croaky": "en-us+croak"},
    voice_variants=("f3", "Croak"),
    defaults={"voice": "bm_george"},
)


@pytest.mark.parametrize(
    ("wanted", "voice"),
    [
        (None, "bm_george"),
        ("", "bm_george"),
        ("af_Heart", "af_Heart"),
        ("AF_HEART", "af_Heart"),
        ("alloy", "af_Heart"),
        ("ALLOY", "af_Heart"),
        ("en-us+F3", "en-us+f3"),
        ("EN-US+croak", "en-us+Croak"),
        ("Croaky", "en-us+Croak"),
    ],
)
def test_a_voice_is_found(wanted: str | None, voice: str) -> None:
    assert SPEAKING.voice(wanted) == voice


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("af_hart", r"mean 'af_Heart'"),
        ("aloy", r"mean 'Alloy'"),
        ("en-us+crok", r"mean 'Croak'"),
        ("en-us+", r"Known: f3, Croak"),
        ("nobody", r"Known: af_Heart, bm_george, en-us"),
        ("nobody+f3", r"Known: af_Heart"),
    ],
)
def test_an_unknown_voice_lists_near_ones(wanted: str, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"'speaks' has no voice '{re.escape(wanted)}'.*{hint}") as caught:
        SPEAKING.voice(wanted)
    assert caught.value.param == "voice"


@pytest.mark.parametrize(
    ("speaking", "wanted", "voice"),
    [
        (model("m"), None, None),
        (model("m"), "anything", "anything"),
        (model("m", defaults={"voice": "v"}), None, "v"),
        (model("m", voices=(Voice(id="first"), Voice(id="second"))), None, "first"),
    ],
    ids=["no list", "no list, named", "no list, default", "list, no default"],
)
def test_a_model_may_leave_voices_open(speaking: Model, wanted: str | None, voice: str | None) -> None:
    assert speaking.voice(wanted) == voice


def test_a_voice_may_be_named_by_its_language() -> None:
    voices = (
        Voice(id="british", languages=("en-GB", "en")),
        Voice(id="german", languages=("de",)),
        Voice(id="saxon", languages=("de",)),
        Voice(id="de-x", languages=("fr",)),
        Voice(id="fr", languages=("de-x",)),
    )
    model = Model(id="m", backend="b", tasks=("synthesize",), voices=voices, voice_variants=("f1",))
    assert [model.voice(name) for name in ("en-gb", "EN-GB+F1", "de", "fr", "FR", "de-x")] == [
        "british",
        "british+f1",
        "german",
        "fr",
        "fr",
        "de-x",
    ]
    with pytest.raises(InvalidInputError):
        model.voice("en")
