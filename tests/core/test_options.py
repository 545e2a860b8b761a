"""What an entry and a request may say to a plugin."""

from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct

from yapit import InvalidInputError, Model, SettingsError
from yapit.options import entry_options, request_options


class Options(Struct, frozen=True, kw_only=True):
    """Options of some plugin."""

    threads: Annotated[int, Meta(ge=1)] = 2
    dtype: str = "auto"


def model(**fields: Any) -> Model:
    return Model(id="m", backend="b", tasks=("embed",), **fields)


def test_an_entry_s_options_are_read() -> None:
    assert entry_options(model(), Options) == Options()
    assert entry_options(model(options={"threads": 3}), Options) == Options(threads=3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"thread": 3}, r"model 'm': unknown option 'thread'\. Did you mean 'threads'\?"),
        ({"threads": 0}, r"model 'm': options: .*>= 1.*\$\.threads"),
    ],
)
def test_a_wrong_option_of_an_entry_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        entry_options(model(options=options), Options)


def test_the_options_of_other_tasks_are_left_out_where_there_are_any() -> None:
    entry = model(options={"threads": 3, "pooling": "mean"})
    assert entry_options(entry, Options, others=True) == Options(threads=3)
    with pytest.raises(SettingsError, match="'pooling'"):
        entry_options(entry, Options)


def test_a_request_s_options_go_over_the_entry_s_defaults() -> None:
    entry = model(defaults={"threads": 3, "dtype": "float32", "voice": "af"})
    assert request_options(entry, {}, Options) == Options(threads=3, dtype="float32")
    assert request_options(entry, {"threads": 4}, Options) == Options(threads=4, dtype="float32")


@pytest.mark.parametrize(
    ("given", "param", "says"),
    [
        ({"thread": 3}, "options.thread", r"The model 'm' has no option 'thread'\. Did you mean 'threads'\?"),
        ({"threads": 0}, "options.threads", ">= 1"),
        ({"dtype": 0}, "options.dtype", "Expected `str`"),
    ],
)
def test_a_wrong_option_of_a_request_is_named(given: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as refusal:
        request_options(model(), given, Options)
    assert refusal.value.param == param
