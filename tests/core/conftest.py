from collections.abc import Iterator
from pathlib import Path

import pytest

import databases
from yapit.settings import Settings


@pytest.fixture(scope="session")
def postgresql() -> Iterator[databases.Postgresql]:
    with databases.postgresql() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Return settings with a database that is empty: once each kind."""
    if request.param == "sqlite":
        return Settings(data_dir=str(tmp_path / "data"))
    running: databases.Postgresql = request.getfixturevalue("postgresql")
    return Settings(data_dir=str(tmp_path / "data"), database=running.url(running.make()))
