from typing import Any

import msgspec
import pytest

import yapit
from yapit import Adapter, Context, SettingsError
from yapit.tasks import TASKS, Task

ROWS = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())


def finished(task: Task) -> type[Adapter]:
    """Return an adapter class that has the task's method and nothing more."""
    return type("Finished", (task.adapter,), {task.name: lambda self, request: iter(())})


@ROWS
def test_a_task_is_one_word(task: Task) -> None:
    assert task.adapter.task == task.name
    assert task.adapter.__abstractmethods__ == {task.name}, "one method per adapter"


@ROWS
def test_an_adapter_without_its_method_cannot_be_made(task: Task) -> None:
    unfinished: Any = type("Unfinished", (task.adapter,), {})
    with pytest.raises(TypeError, match=task.name):
        unfinished()


@ROWS
def test_one_method_is_all_an_adapter_needs(task: Task) -> None:
    adapter = finished(task)()
    adapter.close()
    assert adapter.max_concurrency == 1


def test_the_adapters_an_author_imports_are_those_of_the_tasks() -> None:
    public = {getattr(yapit, name) for name in yapit.__all__}
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Adapter)}
    assert kinds - {Adapter} == {task.adapter for task in TASKS.values()}


class Remote(msgspec.Struct, forbid_unknown_fields=True):
    url: str = "http://localhost"
    timeout_s: float = 5.0


CONTEXT = Context(plugin_settings={"remote": {"timeout_s": 2}, "wrong": {"timeout_s": "soon"}, "typo": {"ulr": "x"}})


def test_a_plugin_decodes_its_own_section() -> None:
    assert CONTEXT.settings("remote", Remote) == Remote(timeout_s=2)
    assert CONTEXT.settings("absent", Remote) == Remote()


@pytest.mark.parametrize(("plugin", "named"), [("wrong", r"\$\.timeout_s"), ("typo", "ulr")])
def test_a_wrong_section_is_named(plugin: str, named: str) -> None:
    with pytest.raises(SettingsError, match=rf"^plugin_settings\.{plugin}: .*{named}"):
        CONTEXT.settings(plugin, Remote)
