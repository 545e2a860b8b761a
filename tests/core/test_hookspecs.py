import inspect
from types import UnionType
from typing import Any, get_args, get_type_hints

import pluggy
import pytest

from yapit import Context, Model, hookimpl, hookspecs
from yapit.plugins import Plugins
from yapit.tasks import TASKS, Task

HOOKS = {
    name: found
    for name, found in vars(hookspecs).items()
    if inspect.isfunction(found) and found.__module__ == hookspecs.__name__
}
# What plugins are written against: a hook that goes, or an argument that is renamed, breaks them.
ARGUMENTS = {
    "register_models": [],
    "register_backends": [],
    "complete_model": ["entry"],
    "weights": ["model"],
    "optimizations": ["model"],
    "register_commands": ["cli"],
    "register_routes": [],
    "accompany": ["parts"],
    "synthesize": ["model", "context"],
    "transcribe": ["model", "context"],
    "embed": ["model", "context"],
    "generate": ["model", "context"],
    "rerank": ["model", "context"],
    "classify": ["model", "context"],
    "provision": ["model", "target", "context"],
}
# Questions about one model, of which one plugin knows the answer.
ABOUT_A_MODEL = {"weights", "optimizations", *TASKS}


def specified() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def test_the_hooks_are_these_and_no_others() -> None:
    assert {name: [*inspect.signature(hook).parameters] for name, hook in HOOKS.items()} == ARGUMENTS


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_registered_and_documented(name: str) -> None:
    caller = getattr(specified().hook, name)
    assert caller.has_spec()
    documented = HOOKS[name].__doc__ or ""
    assert documented.endswith(".")
    assert "\n" not in documented, "one sentence that says when it is called"


@pytest.mark.parametrize("name", HOOKS)
def test_the_first_answer_ends_a_question_about_a_model_and_no_other(name: str) -> None:
    assert bool(getattr(specified().hook, name).spec.opts["firstresult"]) is (name in ABOUT_A_MODEL)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_a_task_s_hook_returns_its_adapter_or_none(task: Task) -> None:
    hints = get_type_hints(HOOKS[task.name])
    returned: UnionType = hints.pop("return")
    assert set(get_args(returned)) == {task.adapter, type(None)}
    assert {name: kind for name, kind in hints.items() if name != "target"} == {"model": Model, "context": Context}


@pytest.mark.parametrize("name", HOOKS)
def test_hook(name: str) -> None:
    """Each hook can be implemented with all its arguments and with none of them, and is reached."""
    arguments = ARGUMENTS[name]
    calls: list[str] = []
    namespace: dict[str, Any] = {"calls": calls}
    exec(f"def {name}({', '.join(arguments)}): calls.append('all')", namespace)  # noqa: S102 - one test for all hooks
    every = type("Every", (), {name: staticmethod(hookimpl(namespace[name]))})
    exec(f"def {name}(): calls.append('none')", namespace)  # noqa: S102 - likewise
    bare = type("Bare", (), {name: staticmethod(hookimpl(namespace[name]))})
    plugins = Plugins()
    plugins.register("every", every)
    plugins.register("bare", bare)
    given: dict[str, Any] = dict.fromkeys(arguments)
    assert [who for who, _ in plugins.each(name, **given)] == ["bare", "every"]
    assert calls == ["none", "all"]
    assert plugins.failed == {}
