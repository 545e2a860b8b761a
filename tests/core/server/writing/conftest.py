import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from litestar.testing import TestClient

from live import WRITERS, Server, serve
from yapit import Context, Model, TextGenerator, hookimpl
from yapit.plugins import Plugins
from yapit.server.app import Application, create_app
from yapit.settings import Settings

Check = Callable[[str, Any], None]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with models that write, for all tests that leave it as it was."""
    folder: Path = tmp_path_factory.mktemp("writing")
    (folder / "models.yaml").write_text(WRITERS)
    with serve(folder) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as opened:
        yield opened


@pytest.fixture(scope="session")
def check(openai_schema: dict[str, Any]) -> Check:
    """Return what validates a value against a schema of OpenAI's specification."""

    def validate(name: str, value: object) -> None:
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", "components": openai_schema["components"]})

    return validate


@pytest.fixture(scope="session")
def refusal() -> Callable[[httpx.Response], tuple[int, str | None, str | None]]:
    """Return what checks an error's envelope and says its status, param and code."""

    def told(answer: httpx.Response) -> tuple[int, str | None, str | None]:
        body = json.loads(answer.text)
        assert list(body) == ["error"], body
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return answer.status_code, body["error"]["param"], body["error"]["code"]

    return told


class Plugin:
    """Serves one adapter as all of its models."""

    def __init__(self, writer: TextGenerator, models: dict[str, dict[str, Any]]) -> None:
        self.writer = writer
        self.models = [Model(id=name, backend="own", tasks=("generate",), **entry) for name, entry in models.items()]

    @hookimpl
    def register_models(self) -> list[Model]:
        return self.models

    @hookimpl
    def generate(self, model: Model, context: Context) -> TextGenerator:
        return self.writer


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TestClient[Application]]:
    """Return what makes a client of an application in this process, whose models all are the adapter it is given."""

    def make(writer: TextGenerator, **models: dict[str, Any]) -> TestClient[Application]:
        plugins = Plugins()
        plugins.register("own", Plugin(writer, models))
        folder = tmp_path_factory.mktemp("app")
        (folder / "models.yaml").write_text("[]")
        settings = Settings(models_config=str(folder / "models.yaml"), data_dir=str(folder))
        return TestClient(create_app(settings, plugins))

    return make
