"""The page on managing models against the code."""

from typing import get_args, get_type_hints

import msgspec
import pytest

from pages import CODE, code, page, sections, tables
from yapit.provisioning.sources import KINDS
from yapit.server.managing.asking import DownloadBody, DownloadInfo, DownloadStarted
from yapit.server.managing.starting import Begun
from yapit.server.managing.telling import DownloadStatus


def section(name: str) -> str:
    return sections(page("management.md"))[name]


def fields_in(struct: type[msgspec.Struct]) -> list[str]:
    return [item.encode_name for item in msgspec.structs.fields(struct)]


def test_the_fields_of_a_download_are_the_documented_ones() -> None:
    body, statuses, sources, status = tables(section("Download"))
    assert sorted(code(row[0]) for row in body) == sorted(fields_in(DownloadBody))
    assert {code(row[1]) for row in statuses} == set(get_args(get_type_hints(Begun)["status"]))
    assert {code(row[0]) for row in sources} == set(KINDS)
    assert [code(row[0]) for row in status] == fields_in(DownloadStatus)
    (states,) = [row[1] for row in status if code(row[0]) == "status"]
    assert set(CODE.findall(states)) == set(get_args(get_type_hints(DownloadStatus)["status"]))


@pytest.mark.parametrize("struct", [DownloadStarted, DownloadInfo])
def test_the_example_of_a_download_has_every_field(struct: type[msgspec.Struct]) -> None:
    example = section("Download").split("```json\n")[1].partition("```")[0]
    assert all(f'"{name}":' in example for name in fields_in(struct))
