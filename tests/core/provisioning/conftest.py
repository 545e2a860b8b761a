"""A hub on this machine, a cache of this test, and downloads of models from one into the other."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants

from hub import Files, Generated, Hub, Repo, serve_hub
from yapit import Model
from yapit.plugins import Plugins
from yapit.provisioning import Downloads, provisioner_of
from yapit.settings import ProvisioningSettings, Settings
from yapit.store import Store

Make = Callable[..., Downloads]
MEGABYTE = 1_000_000
BIG = "model.safetensors"


def model(name: str = "org/one", **fields: Any) -> Model:
    return Model(id=name, backend="own", tasks=("embed",), source=name, **fields)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with two models of 3 MB, which is the one that is asked."""
    files: Files = {"config.json": b"{}", BIG: Generated(3 * MEGABYTE), "pytorch_model.bin": Generated(9 * MEGABYTE)}
    repos = {"org/one": Repo(files), "org/two": Repo(files), "org/gated": Repo(files, gated=True)}
    with serve_hub(repos) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running
    close_session()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path / "data"), provisioning=ProvisioningSettings(parallel=2))


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = Store.of(settings)
    yield opened
    opened.close()


@pytest.fixture
def make(settings: Settings, store: Store) -> Make:
    """Makes the downloads of a process; call it inside of an event loop."""
    plugins = Plugins()
    models = {name: model(name) for name in ("org/one", "org/two", "org/gated", "org/none")}

    def made(**changes: Any) -> Downloads:
        return Downloads(
            lambda name: models[name],
            lambda wanted: provisioner_of(wanted, plugins, settings),
            data_dir=Path(settings.data_dir),
            **{"book": store, "node": "here", "parallel": settings.provisioning.parallel, **changes},
        )

    return made
