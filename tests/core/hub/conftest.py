from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants

from hub import Hub
from yapit.hub import Repository

Wanted = Callable[..., Repository]


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the loopback hub is asked, whatever the environment says."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield
    close_session()


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    """Say what is wanted of a hub, into a cache of this test."""

    def of(hub: Hub, source: str = "org/tiny", **more: Any) -> Repository:
        return Repository(source=source, endpoint=hub.url, **{"cache": tmp_path / "cache", **more})

    return of
