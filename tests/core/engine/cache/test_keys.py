"""What makes two requests equal, and which requests have no equal."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import yapit
from loops import run
from yapit import (
    Backend,
    ClassifyRequest,
    Context,
    EmbedRequest,
    GenerateRequest,
    Model,
    ProvisionRequest,
    RerankRequest,
    Synthesizer,
    SynthesizeRequest,
    TranscribeRequest,
    Voice,
    hookimpl,
)
from yapit.engine.cache import keys as module
from yapit.engine.cache.keys import Keys
from yapit.environments import Description, Environment
from yapit.plugins import Plugins
from yapit.schemas import Request
from yapit.tasks import CLASSIFY, EMBED, GENERATE, PROVISION, RERANK, SYNTHESIZE, TRANSCRIBE, Task

MODEL = Model(
    id="m",
    backend="rig",
    tasks=("synthesize",),
    source="org/weights",
    revision="abc",
    options={"a": 1, "b": {"c": [1, 2]}},
    voices=(Voice(id="low"), Voice(id="high")),
)
SAID = SynthesizeRequest(text="Hello.", voice="low")


class Plugin:
    @hookimpl
    def register_backends(self) -> list[Backend]:
        return [Backend(name="rig")]

    @hookimpl
    def synthesize(self, model: Model, context: Context) -> Synthesizer | None:
        return None


def keys(version: str | None = "1.0", settings: dict[str, Any] | None = None, name: str = "rig") -> Keys:
    plugins = Plugins()
    plugins.register(name, Plugin())
    plugins._versions[name] = version
    return Keys(plugins, settings or {})


def key(
    request: Request = SAID, model: Model = MODEL, task: Task = SYNTHESIZE, *further: object, made: Keys | None = None
) -> bytes | None:
    found: list[bytes | None] = []

    async def main() -> None:
        found.append(await (made or keys()).of(task, model, request, *further))

    run(main())
    return found[0]


def changed(thing: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(thing, **fields)


# ── equal and different ───────────────────────────────────────────────────────────────────────────────────────────────
def test_equal_requests_have_the_same_key_in_every_process() -> None:
    wanted = key()
    assert wanted is not None
    assert len(wanted) == 32
    shuffled = changed(MODEL, options={"b": {"c": [1, 2]}, "a": 1})
    assert key(changed(SAID), shuffled) == wanted
    options = {"x": 1, "y": {"z": 2, "w": 3}}
    assert key(changed(SAID, options=options)) == key(changed(SAID, options=dict(reversed(options.items()))))


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "Hello"},
        {"text": "Hello.\u0301"},
        {"voice": "high"},
        {"language": "de"},
        {"speed": 1.1},
        {"instructions": "slowly"},
        {"options": {"x": 1}},
        {"options": {"x": None}},
    ],
)
def test_whatever_a_client_says_makes_another_key(fields: dict[str, Any]) -> None:
    assert key(changed(SAID, **fields)) not in (key(), None)


def test_text_that_only_looks_the_same_is_not_the_same() -> None:
    assert key(changed(SAID, text="caf\u00e9")) != key(changed(SAID, text="cafe\u0301"))


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "other"},
        {"backend": "other"},
        {"source": "org/other"},
        {"revision": "abd"},
        {"revision": None},
        {"options": {"a": 2, "b": {"c": [1, 2]}}},
        {"options": {"a": 1, "b": {"c": [2, 1]}}},
        {"defaults": {"voice": "high"}},
        {"voices": (Voice(id="low"),)},
        {"sample_rate": 8000},
        {"speed_range": (0.5, 2.0)},
        {"dimensions": 7},
        {"context_length": 7},
    ],
)
def test_whatever_may_change_the_answer_of_a_model_makes_another_key(fields: dict[str, Any]) -> None:
    assert key(model=changed(MODEL, **fields)) not in (key(), None)


@pytest.mark.parametrize(
    "fields",
    [
        {"aliases": ("another",)},
        {"description": "better"},
        {"keep_alive": 5},
        {"pin": True},
        {"max_concurrency": 3},
        {"executor": "process"},
        {"memory_bytes": 5},
        {"device": "cpu"},
    ],
)
def test_how_a_model_is_run_makes_no_other_key(fields: dict[str, Any]) -> None:
    assert key(model=changed(MODEL, **fields)) == key()


def test_another_version_of_the_plugin_or_of_yapit_makes_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key(made=keys("1.1")) != key(made=keys("1.0"))
    before = key()
    monkeypatch.setattr(module, "__version__", yapit.__version__ + ".1")
    assert key() != before


def test_another_plugin_or_what_it_is_told_makes_another_key() -> None:
    assert key(made=keys(name="other")) != key()
    assert key(made=keys(settings={"rig": {"url": "http://a"}})) != key(
        made=keys(settings={"rig": {"url": "http://b"}})
    )
    assert key(made=keys(settings={"another": {"url": "http://a"}})) == key()


def test_a_plugin_of_unknown_version_has_keys_of_this_process_only() -> None:
    made = keys(None)
    assert key(made=made) == key(made=made)
    assert key(made=made) not in (key(made=keys(None)), None)
    elsewhere = changed(MODEL, python="/opt/venv/bin/python")
    assert key(model=elsewhere, made=(made := keys())) == key(model=elsewhere, made=made)
    assert key(model=elsewhere) != key(model=elsewhere)


def test_a_plugin_in_an_environment_of_its_own_has_the_version_it_has_there(tmp_path: Path) -> None:
    def there(version: str) -> Keys:
        description = Description(name="rig", distribution="rig", version=version, backends=(Backend(name="rig"),))
        plugins = Plugins()
        plugins.register("rig", Environment(folder=tmp_path, plugin=description))
        plugins._versions["rig"] = version
        return Keys(plugins, {})

    model = changed(MODEL, python=str(tmp_path / "bin" / "python"))
    assert key(model=model, made=there("1.0")) == key(model=model, made=there("1.0"))
    assert key(model=model, made=there("1.0")) != key(model=model, made=there("1.1"))
    another = changed(MODEL, python="/opt/venv/bin/python")
    assert key(model=another, made=there("1.0")) != key(model=another, made=there("1.0"))


def test_weights_on_this_machine_that_change_make_another_key(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"old")
    model = changed(MODEL, source=str(weights))
    before = key(model=model)
    assert key(model=model) == before
    os.utime(weights, ns=(1, 1))
    assert key(model=model) != before


def test_a_task_and_what_else_is_said_of_the_answer_make_another_key() -> None:
    assert key(task=TRANSCRIBE) != key()
    assert (
        len({key(SAID, MODEL, SYNTHESIZE, *further) for further in ((), ("parts",), ("complete",), ("pa", "rts"))}) == 4
    )


def test_no_voice_is_the_default_voice() -> None:
    nothing = changed(SAID, voice=None)
    assert key(nothing) == key()
    assert key(nothing, model := changed(MODEL, defaults={"voice": "high"})) == key(changed(SAID, voice="high"), model)


def noting_threads(function: Callable[..., Any], threads: list[object]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return function(*arguments)

    return noted


def test_large_requests_are_hashed_beside_the_loop_to_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    said = TranscribeRequest(pcm=bytes(1_000_000), sample_rate=16_000)
    shown = ClassifyRequest(images=(bytes(500_000), bytes(500_000)))
    threads: list[object] = []
    monkeypatch.setattr(module.Keys, "_key", noting_threads(module.Keys._key, threads))
    there = [key(said, task=TRANSCRIBE), key(shown, task=CLASSIFY)]
    assert threading.current_thread() not in threads
    monkeypatch.setattr(module, "_LARGE_BYTES", 1 << 40)
    assert [key(said, task=TRANSCRIBE), key(shown, task=CLASSIFY)] == there
    assert threads[2:] == [threading.current_thread()] * 2
    assert key(changed(said, pcm=bytes(999_999) + b"\1"), task=TRANSCRIBE) != there[0]


# ── no key ────────────────────────────────────────────────────────────────────────────────────────────────────────────
AUDIO = TranscribeRequest(pcm=b"ab", sample_rate=8000)
CHAT = GenerateRequest(prompt="Hello.")


@pytest.mark.parametrize(
    ("task", "request_", "has_key"),
    [
        (GENERATE, CHAT, False),
        (GENERATE, changed(CHAT, temperature=0.0), True),
        (GENERATE, changed(CHAT, temperature=0), True),
        (GENERATE, changed(CHAT, temperature=0.7), False),
        (GENERATE, changed(CHAT, temperature=0.7, seed=1), True),
        (GENERATE, changed(CHAT, seed=0), True),
        (GENERATE, changed(CHAT, temperature=0.7, seed=-1), False),
        (GENERATE, changed(CHAT, top_p=0.5), False),
        (GENERATE, changed(CHAT, options={"temperature": 0}), True),
        (GENERATE, changed(CHAT, options={"seed": 5}), True),
        (GENERATE, changed(CHAT, temperature=0.0, options={"temperature": 0.7}), False),
        (GENERATE, changed(CHAT, temperature=0.7, options={"temperature": 0}), False),
        (TRANSCRIBE, AUDIO, True),
        (TRANSCRIBE, changed(AUDIO, temperature=0.0), True),
        (TRANSCRIBE, changed(AUDIO, temperature=0.2), False),
        (TRANSCRIBE, changed(AUDIO, path="a.pcm", temperature=0.0, options={"seed": 5}), False),
        (TRANSCRIBE, changed(AUDIO, temperature=0.2, options={"seed": 5}), True),
        (SYNTHESIZE, SAID, True),
        (SYNTHESIZE, changed(SAID, options={"temperature": 0.7}), False),
        (SYNTHESIZE, changed(SAID, options={"temperature": "high"}), False),
        (SYNTHESIZE, changed(SAID, options={"temperature": 0.7, "seed": 5}), True),
        (SYNTHESIZE, changed(SAID, options={"temperature": 0.7, "seed": None}), False),
        (SYNTHESIZE, changed(SAID, options={"temperature": 0.0}), True),
        (EMBED, EmbedRequest(inputs=("a", (1, 2))), True),
        (RERANK, RerankRequest(pairs=(("a", "b"),)), True),
        (CLASSIFY, ClassifyRequest(texts=("a",)), True),
        (CLASSIFY, ClassifyRequest(images=(b"\xff",)), True),
        (PROVISION, ProvisionRequest(), False),
    ],
)
def test_only_a_request_whose_answer_is_always_the_same_has_a_key(
    task: Task,
    request_: Request,
    has_key: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert (key(request_, task=task) is not None) is has_key


def test_a_model_that_says_so_has_no_keys() -> None:
    assert key(model=changed(MODEL, deterministic=False)) is None
    assert key(changed(SAID, options={"seed": 1}), changed(MODEL, deterministic=False)) is None


def test_a_default_temperature_counts_where_the_client_says_none() -> None:
    warm = changed(MODEL, defaults={"temperature": 0.7})
    assert key(model=warm) is None
    assert key(AUDIO, warm, TRANSCRIBE) is None
    assert key(changed(AUDIO, temperature=0.0), warm, TRANSCRIBE) is not None
    assert key(changed(SAID, options={"temperature": 0}), warm) is not None


@pytest.mark.parametrize("options", [{"x": 1 << 70}, {"x": "\ud800"}, {"x": object()}])
def test_a_request_that_cannot_be_written_down_has_no_key(options: dict[str, Any]) -> None:
    assert key(changed(SAID, options=options)) is None


def test_an_unknown_default_voice_is_left_to_whoever_speaks() -> None:
    model = changed(MODEL, defaults={"voice": "nobody"})
    assert key(changed(SAID, voice=None), model) is None
