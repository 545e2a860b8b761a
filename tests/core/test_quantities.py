import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yapit.quantities import seconds, size, written


# ── durations ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, 0.0),
        (90, 90.0),
        (0.25, 0.25),
        ("300", 300.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-0", 0.0),
        ("5m", 300.0),
        (" 5m ", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
        ("250ms", 0.25),
        ("1m500ms", 60.5),
        ("0s", 0.0),
        (-1, math.inf),
        (-0.5, math.inf),
        ("-1", math.inf),
        ("-1s", math.inf),
        ("-1h30m", math.inf),
        ("inf", math.inf),
        (math.inf, math.inf),
    ],
)
def test_what_a_duration_is(duration: str | float, expected: float) -> None:
    assert seconds(duration) == expected


@pytest.mark.parametrize(
    "duration", ["", "-", "m", "5 m", "5x", "5m3", "m5", "--5", "--5m", "5m-3s", "1h 30m", "five", "5M", "1.h", ".5h"]
)
def test_what_is_no_duration_is_named_with_an_example(duration: str) -> None:
    with pytest.raises(ValueError, match=rf"'{duration}' is no duration: expected seconds, or text such as '10m'"):
        seconds(duration)


@pytest.mark.parametrize("duration", ["nan", "-nan", math.nan])
def test_not_a_number_is_no_duration(duration: str | float) -> None:
    with pytest.raises(ValueError, match="a duration must be a number"):
        seconds(duration)


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from(["ms", "s", "m", "h", "d"])), min_size=1, max_size=4))
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    scale = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
    text = "".join(f"{count}{unit}" for count, unit in parts)
    assert seconds(text) == pytest.approx(sum(count * scale[unit] for count, unit in parts))


@given(st.text() | st.floats())
def test_a_duration_is_a_number_from_0_or_an_error(duration: str | float) -> None:
    try:
        value = seconds(duration)
    except ValueError:
        return
    assert value >= 0


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0),
        (123, 123),
        ("123", 123),
        ("123B", 123),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("8GB", 8_000_000_000),
        ("8G", 8_000_000_000),
        ("8Gi", 8 * 1024**3),
        (" 8 gib ", 8 * 1024**3),
        ("512MiB", 512 * 1024**2),
        ("1.5TB", 1_500_000_000_000),
        ("0.1GB", 100_000_000),
        ("9007199254740993", 9_007_199_254_740_993),
    ],
)
def test_what_a_size_is(text: str | int, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize(
    ("text", "whole", "expected"),
    [("80%", 1000, 800), ("12.5 %", 1000, 125), ("0%", 1000, 0), ("80%", None, None), ("8GB", 1000, 8_000_000_000)],
)
def test_a_share_is_of_the_whole(text: str, whole: int | None, expected: int | None) -> None:
    assert size(text, whole) == expected


@pytest.mark.parametrize("text", ["", "GB", "8iB", "8 i", "-8GB", -8, "8XB", "8GBs", "%", "-5%", "8e9", "1,5GB", "nan"])
def test_what_is_no_size_is_named_with_examples(text: str | int) -> None:
    with pytest.raises(ValueError, match=rf"'{text}' is no size: expected bytes, or text such as '8GB'"):
        size(text, 1000)


@given(st.text() | st.from_regex(r"[0-9]{1,400}(\.[0-9]{1,400})?[KMGT]?i?B?|[0-9]{1,400}%", fullmatch=True))
def test_a_size_is_a_number_from_0_or_an_error(text: str) -> None:
    try:
        value = size(text, 1000)
    except ValueError:
        return
    assert value is not None
    assert value >= 0


# ── for people ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999_999, "999999 bytes"),
        (1_000_000, "1.0 MB"),
        (12_345_678, "12 MB"),
        (4_000_000_000, "4.0 GB"),
        (143_771_000_000, "144 GB"),
    ],
)
def test_what_people_read(count: int, text: str) -> None:
    assert written(count) == text


@given(st.integers(1_000_000, 10**15))
def test_what_people_read_is_nearly_what_it_is(count: int) -> None:
    assert size(written(count)) == pytest.approx(count, rel=0.06)
