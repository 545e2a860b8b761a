import json
from typing import Any

import pytest

from conftest import Python

PROGRAM = """
import asyncio, logging, sys
import structlog
from structlog.contextvars import bind_contextvars
from yapit.log import configure
from yapit.settings import LogSettings

configure(LogSettings(level=sys.argv[1], format=sys.argv[2]))
ours = structlog.get_logger("ours")
theirs = logging.getLogger("theirs")
theirs.setLevel(logging.DEBUG)  # as some libraries do on import

async def request(name):
    bind_contextvars(request_id=name)
    await asyncio.sleep(0)
    ours.info("ours_info", data=b"x", number=1)
    theirs.info("theirs %s", name)

async def both():
    await asyncio.gather(request("req_1"), request("req_2"))

asyncio.run(both())
ours.debug("ours_debug")
theirs.debug("theirs_debug")
ours.warning("ours_warning")
theirs.warning("theirs_warning")
try:
    1 / 0
except ZeroDivisionError:
    ours.exception("ours_failed")
    theirs.exception("theirs_failed")
print("output")
"""


def lines(python: Python, level: str = "info", form: str = "auto") -> list[dict[str, Any]]:
    done = python(PROGRAM, level, form)
    assert done.stdout == "output\n", "logging leaves standard output alone"
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.fixture(scope="module")
def info(python: Python) -> list[dict[str, Any]]:
    return lines(python)


def events(found: list[dict[str, Any]]) -> set[str]:
    return {line["event"] for line in found}


def test_off_a_terminal_each_line_is_json_with_level_and_time(info: list[dict[str, Any]]) -> None:
    assert all({"event", "level", "timestamp"} <= line.keys() for line in info)
    assert all(line["timestamp"].endswith("Z") for line in info)


def test_each_line_has_the_id_of_its_own_request(info: list[dict[str, Any]]) -> None:
    with_id = [(line["event"], line["request_id"]) for line in info if "request_id" in line]
    assert sorted(with_id) == [
        ("ours_info", "req_1"),
        ("ours_info", "req_2"),
        ("theirs req_1", "req_1"),
        ("theirs req_2", "req_2"),
    ]


def test_other_libraries_are_named(info: list[dict[str, Any]]) -> None:
    assert {line.get("logger") for line in info if line["event"].startswith("theirs")} == {"theirs"}


def test_values_that_are_not_json_do_not_stop_a_line(info: list[dict[str, Any]]) -> None:
    first = next(line for line in info if line["event"] == "ours_info")
    assert first["number"] == 1
    assert isinstance(first["data"], str)


@pytest.mark.parametrize("event", ["ours_failed", "theirs_failed"])
def test_an_exception_stands_in_its_line(info: list[dict[str, Any]], event: str) -> None:
    (failed,) = [line for line in info if line["event"] == event]
    assert "ZeroDivisionError" in failed["exception"]
    assert failed["level"] == "error"


def test_the_level_filters_both(info: list[dict[str, Any]], python: Python) -> None:
    assert not events(info) & {"ours_debug", "theirs_debug"}
    assert events(lines(python, "warning")) == {"ours_warning", "theirs_warning", "ours_failed", "theirs_failed"}


def test_debug_is_ours_alone(python: Python) -> None:
    found = events(lines(python, "debug"))
    assert "ours_debug" in found
    assert "theirs_debug" not in found, "another library's debug lines may hold what people said"


def test_text_can_be_asked_for(python: Python) -> None:
    text = python(PROGRAM, "info", "text").stderr
    assert "ours_warning" in text
    assert not text.startswith("{")
