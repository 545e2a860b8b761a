from collections.abc import Iterator

import pytest

from live import Server, serve


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as a newcomer starts it: no file, no setting."""
    with serve(tmp_path_factory.mktemp("clients")) as running:
        yield running
