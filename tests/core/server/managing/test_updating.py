"""A model moves to a newer revision only if that loads; the one before stays until then."""

import os
from pathlib import Path

import pytest

os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["OMP_NUM_THREADS"] = "1"

from core.server.managing.conftest import BIG, Managed, managed
from hub import Repo, commit, files_of, serve_hub
from models.encoders import save_classifier


def update(api: Managed, name: str = "judge") -> tuple[int, dict[str, object]]:
    answer = api.client.post(f"/models/manage?action=update&model_name={name}", timeout=110)
    return answer.status_code, answer.json()


def labels(api: Managed) -> set[str]:
    answer = api.client.post("/classify", json={"model": "judge", "input": ["rain"]}, timeout=60)
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["data"] if isinstance(answer.json(), dict) else answer.json()
    return {str(result["label"])}


def snapshots(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "hf").glob("hub/models--org--judge/snapshots/*"))


def test_the_old_revision_stays_until_the_new_one_loads(tmp_path: Path) -> None:
    old, new = (files_of(save_classifier(tmp_path / name, [name, f"{name}2"])) for name in ("old", "new"))
    repo = Repo(old)
    served = tmp_path / "served"
    served.mkdir()
    with serve_hub({"org/judge": repo}) as hub, managed(hub, served) as api:
        assert api.fetch(model_id="org/judge", name="judge")["status"] == "completed"
        assert labels(api) <= {"old", "old2"}
        assert update(api)[1]["message"] == "Model 'judge' is at its newest revision already"

        repo.push({**old, BIG: b"no weights", "README.md": b"broken"})
        status, refused = update(api)
        assert (status, refused["success"]) == (503, False)
        assert "cannot be loaded" in str(refused["message"])
        assert labels(api) <= {"old", "old2"}
        assert snapshots(served) == [commit(old)]
        state = api.client.get("/models/judge/status").json()
        assert state["status"]["value"] == "loaded", "it was never unloaded"

        repo.push(new)
        status, done = update(api)
        assert (status, done["message"], done["revision"]) == (200, "Model 'judge' updated successfully", commit(new))
        assert labels(api) <= {"new", "new2"}
        assert snapshots(served) == [commit(new)]


def test_a_pinned_model_is_not_updated(api: Managed) -> None:
    pinned = commit(api.hub.repos["models"]["org/small"].files)
    api.fetch(revision=pinned)
    status, refused = update(api, "small")
    assert status == 409
    assert pinned in str(refused["message"])
    assert update(api, "echo")[0] == 409
    assert update(api, "nobody")[0] == 404


@pytest.mark.parametrize("trouble", [404, 503])
def test_a_new_revision_that_cannot_be_had_changes_nothing(api: Managed, trouble: int) -> None:
    api.fetch()
    api.hub.refuse(trouble, "/api/models/", times=None)
    status, refused = update(api, "small")
    assert (status >= 400, refused["success"]) == (True, False)
    assert api.client.get("/models/download/small/info").json()["info"]["downloaded"] is True
