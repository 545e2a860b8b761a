"""Optimizing measures: what is faster and answers the same is kept, and nothing else."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litestar.testing import TestClient

os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["OMP_NUM_THREADS"] = "1"

from core.server.managing.conftest import managed
from hub import Repo, files_of, serve_hub
from models.encoders import save_classifier
from yapit import Context, Embedder, Embedding, EmbedRequest, Model, hookimpl
from yapit.plugins import Plugins
from yapit.schemas import Classification, Score, TextChunk
from yapit.server.app import Application, create_app
from yapit.server.managing.probing import agree
from yapit.settings import Settings


class _Pacing(Embedder):
    """Takes as long as its options say, and answers as wrongly."""

    def __init__(self, model: Model) -> None:
        if model.options.get("broken"):
            raise RuntimeError("it does not load")
        self._pause_s = model.options.get("pause_s", 0.02)
        self._wrong = model.options.get("wrong", 0.0)

    def embed(self, request: EmbedRequest) -> Iterator[Embedding]:
        time.sleep(self._pause_s)
        for index, _ in enumerate(request.inputs):
            vector = np.array([1.0, self._wrong, 0.0], "<f4")
            yield Embedding(index=index, vector=vector.tobytes(), tokens=1)


class Paced:
    """A plugin that offers what it is told to."""

    def __init__(self, *offers: dict[str, Any]) -> None:
        self._offers = list(offers)

    @hookimpl
    def embed(self, model: Model, context: Context) -> Embedder | None:
        return _Pacing(model) if model.backend == "paced" else None

    @hookimpl
    def optimizations(self, model: Model) -> list[dict[str, Any]] | None:
        return self._offers if model.backend == "paced" else None


AB, BA = (("a", 0.5), ("b", 0.5)), (("b", 0.5), ("a", 0.5))
FAST, WRONG, BROKEN, SLOW = {"pause_s": 0}, {"pause_s": 0, "wrong": 0.2}, {"broken": True}, {"pause_s": 0.05}


def optimized(folder: Path, plugin: Paced, *, registered: bool = True) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return the answer, and the model's options afterwards."""
    settings = Settings(data_dir=str(folder))
    if not registered:
        (folder / "models.yaml").write_text("- {id: paced, backend: paced, tasks: [embed]}\n")
        settings = Settings(data_dir=str(folder), models_config=str(folder / "models.yaml"))
    plugins = Plugins()
    plugins.register("paced", plugin)
    app: Application = create_app(settings, plugins)
    with TestClient(app) as client:
        if registered:
            app.parts.registry.register({"id": "paced", "backend": "paced", "tasks": ["embed"]})
        answer = client.post("/models/manage?action=optimize&model_name=paced")
        listed = client.get("/models/managed").json()["optimized_models"]
        options = app.parts.engine.catalog["paced"].options
        assert listed == (["paced"] if options else [])
        assert [resident.model.id for resident in app.parts.engine.residency.all()] in ([], ["paced"])
        return answer.status_code, answer.json(), options


def test_the_fastest_options_that_answer_the_same_are_kept(tmp_path: Path) -> None:
    status, body, options = optimized(tmp_path, Paced(SLOW, WRONG, BROKEN, FAST))
    assert (status, body["success"], body["message"]) == (200, True, "Model 'paced' optimized successfully")
    assert (body["action"], body["model_name"]) == ("optimize", "paced")
    found = body["optimization"]
    assert (options, found["options"]) == (FAST, FAST)
    assert found["after_ms"] < found["before_ms"]
    assert [each["agrees"] for each in found["candidates"]] == [True, False, None, True]
    assert "does not load" in found["candidates"][2]["error"] or found["candidates"][2]["error"]


def test_where_nothing_is_faster_nothing_changes(tmp_path: Path) -> None:
    status, body, options = optimized(tmp_path, Paced(SLOW, WRONG))
    assert (status, body["success"], body["message"]) == (200, True, "Model 'paced' is at its best already")
    assert body["optimization"]["before_ms"] == body["optimization"]["after_ms"]
    assert (len(body["optimization"]["candidates"]), options) == (2, {})


def test_a_model_of_a_file_is_measured_and_the_file_is_named(tmp_path: Path) -> None:
    status, body, options = optimized(tmp_path, Paced(FAST), registered=False)
    assert (status, body["error"]["code"], options) == (409, "not_registered", {})
    assert "models.local.yaml" in body["message"]
    assert "pause_s" in body["message"]


def test_a_model_that_nobody_knows_a_faster_way_for_is_refused(tmp_path: Path) -> None:
    assert optimized(tmp_path, Paced())[0] == 409


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (Score(index=0, relevance=0.5, tokens=1), Score(index=0, relevance=0.505, tokens=9), True),
        (Score(index=0, relevance=0.5, tokens=1), Score(index=0, relevance=0.52, tokens=1), False),
        (Classification(index=0, scores=AB), Classification(index=0, scores=AB), True),
        (Classification(index=0, scores=AB), Classification(index=0, scores=BA), False),
        (TextChunk(text="yes"), TextChunk(text="yes"), True),
        (TextChunk(text="yes"), TextChunk(text="no"), False),
        (Score(index=0, relevance=0.5, tokens=1), TextChunk(text="x"), False),
    ],
)
def test_answers_are_compared_in_what_counts(before: Any, after: Any, *, same: bool) -> None:
    assert agree([before], [after]) is same
    assert agree([before], [before, before]) is False or isinstance(before, TextChunk)


def test_a_model_of_transformers_is_tried_with_what_its_plugin_offers(tmp_path: Path) -> None:
    files = files_of(save_classifier(tmp_path / "judge", ["good", "bad"]))
    served = tmp_path / "served"
    served.mkdir()
    with serve_hub({"org/judge": Repo(files)}) as hub, managed(hub, served) as api:
        api.fetch(model_id="org/judge", name="judge")
        answer = api.client.post("/models/manage?action=optimize&model_name=judge", timeout=110)
        assert answer.status_code == 200, answer.text
        found = answer.json()["optimization"]
        tried = [each["options"] for each in found["candidates"]]
        assert {"dtype": "bfloat16"} in tried
        exact = found["candidates"][tried.index({"dtype": "float32"})]
        assert (exact["agrees"], exact["error"]) == (True, None)
        names = [model["name"] for model in api.client.get("/api/ps").json()["models"]]
        assert set(names) <= {"judge"}, "nothing of the trials stays loaded"
