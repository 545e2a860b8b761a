"""Downloads over HTTP: one for each model, paused, resumed and cancelled, refused honestly, and never lost."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.server.managing.conftest import BIG, CONFIG, MEGABYTE, Managed, managed, repos
from hub import Generated, Hub, Repo, serve_hub
from live import until
from transferring import small_disk

SIZE = 200 * MEGABYTE


def begun(api: Managed, **fields: str) -> str:
    answer = api.download(**fields)
    assert answer.status_code == 202, answer.text
    found: str = answer.json()["download_id"]
    return found


def test_a_server_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with serve_hub({"org/huge": Repo({"config.json": CONFIG, BIG: Generated(SIZE)})}) as hub:
        held = hub.hold(BIG, SIZE * 6 // 10)
        with managed(hub, tmp_path) as api:
            download_id = begun(api, model_id="org/huge", name="huge")
            assert held.reached.wait(60)
            assert until(lambda: api.status(download_id)["progress"] >= 55)
            api.server.process.kill()
            api.server.process.wait(20)
        held.released.set()
        sent = hub.sent[BIG]
        with managed(hub, tmp_path) as api:
            assert api.ended(download_id)["status"] == "completed", "it began again by itself"
            assert api.client.get("/models/download/huge/info").json()["info"]["downloaded"]
        assert sent >= SIZE * 6 // 10
        assert hub.sent[BIG] - SIZE < SIZE * 5 // 100, "sent twice"


def test_twenty_who_want_a_model_at_once_cause_one_transfer(api: Managed) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: api.download(model_id="org/big", name="big"), range(20)))
    assert {answer.status_code for answer in answers} <= {200, 202}, [answer.text for answer in answers]
    assert len({answer.json()["download_id"] for answer in answers}) == 1
    assert api.ended(answers[0].json()["download_id"])["status"] == "completed"
    assert api.hub.fetched.count(BIG) == 1


def test_a_download_is_paused_and_goes_on_with_what_it_had(api: Managed) -> None:
    held = api.hub.hold(BIG, 2 * MEGABYTE)
    download_id = begun(api, model_id="org/big", name="big")
    assert held.reached.wait(20)
    assert until(lambda: api.status(download_id)["bytes_done"] > MEGABYTE)
    half = api.status(download_id)
    assert (half["status"], half["bytes_total"]) == ("downloading", 3 * MEGABYTE + len(CONFIG))
    assert half["eta"] is None or half["eta"] > 0
    assert 30 < half["progress"] < 99
    paused = api.client.post(f"/models/download/{download_id}/pause")
    assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    assert api.client.post(f"/models/download/{download_id}/pause").status_code == 409
    held.released.set()
    resumed = api.client.post(f"/models/download/{download_id}/resume")
    assert (resumed.status_code, resumed.json()["download_id"]) == (200, download_id)
    assert api.ended(download_id)["status"] == "completed"
    assert api.hub.ranges[-1][1] is not None, "only the rest was asked for"
    assert api.client.post(f"/models/download/{download_id}/dance").status_code == 400
    assert api.client.post("/models/download/00000000/resume").status_code == 404
    assert api.client.get("/models/download/status/00000000").status_code == 404


@pytest.mark.parametrize("keep", [True, False])
def test_a_download_that_is_cancelled_leaves_its_parts_or_nothing(api: Managed, tmp_path: Path, *, keep: bool) -> None:
    held = api.hub.hold(BIG, 2 * MEGABYTE)
    download_id = begun(api, model_id="org/big", name="big")
    assert held.reached.wait(20)
    assert until(lambda: api.status(download_id)["bytes_done"] > MEGABYTE)
    ended = api.client.delete(f"/models/download/status/{download_id}", params={"keep_partial": keep})
    assert (ended.status_code, ended.json()["status"]) == (200, "cancelled")
    parts = [path for path in (tmp_path / "hf").rglob("*.incomplete") if path.stat().st_size]
    assert bool(parts) == keep
    assert api.client.delete(f"/models/download/status/{download_id}").status_code == 409
    held.released.set()
    retried = api.client.post("/models/manage?action=retry_download&model_name=big")
    assert retried.status_code == 202
    assert api.ended(retried.json()["download_id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model_id": "org/none"}, 404, "repository_not_found"),
        ({"model_id": "org/gated"}, 403, "gated_repository"),
        ({"name": "echo"}, 409, "model_exists"),
        ({"name": "../x"}, 400, "invalid_value"),
        ({"task": "dancing"}, 400, "invalid_value"),
        ({"config": {"python": "/bin/sh"}}, 400, "invalid_value"),
        ({"config": {"id": "other"}}, 400, "invalid_value"),
        ({"config": {"backend": "nobody"}}, 400, "invalid_value"),
        ({"config": {"tasks": "embed"}}, 400, "invalid_value"),
        ({"model_id": "no repository"}, 400, "invalid_value"),
    ],
)
def test_what_cannot_be_begun_leaves_nothing_registered(
    api: Managed, fields: dict[str, object], status: int, code: str
) -> None:
    before = api.served
    answer = api.download(**fields)
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["success"]) == (status, code, False)
    assert api.served == before
    assert api.hub.sent[BIG] == 0


def test_a_name_is_not_taken_from_another_model(api: Managed) -> None:
    api.fetch()
    for other in ({"model_id": "org/big"}, {"revision": "v9"}):
        refused = api.download(**other)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_exists")


def test_a_large_model_is_fetched_only_for_who_means_it(hub: Hub, tmp_path: Path) -> None:
    with managed(hub, tmp_path, YAPIT_PROVISIONING_LARGE_MODEL="1MB") as api:
        refused = api.download(model_id="org/big", name="big")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "large_model")
        assert "3.0 MB" in refused.json()["error"]["message"]
        assert "big" not in api.served
        assert api.fetch(model_id="org/big", name="big", enable_large_model=True)["status"] == "completed"


def test_a_full_disk_is_refused_before_anything_is_registered(tmp_path: Path) -> None:
    tmp_path.joinpath("hf").mkdir()
    words = small_disk("16m", tmp_path / "hf")
    with serve_hub(repos()) as hub, managed(hub, tmp_path, *words) as api:
        before = api.served
        refused = api.download(model_id="org/big", name="big")
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")
        assert refused.json()["message"] == "Failed to download model 'big'"
        assert (api.served, hub.sent[BIG]) == (before, 0)
        assert api.client.get("/health").json()["status"] == "ready"


def test_a_failed_download_says_why_and_is_tried_again(api: Managed) -> None:
    api.hub.spoil(BIG, times=None)
    download_id = begun(api, model_id="org/big", name="big")
    failed = api.ended(download_id)
    assert failed["status"] == "failed"
    assert failed["message"]
    assert failed["error_code"]
    api.hub.troubles.clear()
    retried = api.client.post("/models/manage?action=retry_download&model_name=big")
    assert (retried.status_code, retried.json()["download_id"]) == (202, download_id)
    assert api.ended(download_id)["status"] == "completed"
    again = api.client.post("/models/manage?action=retry_download&model_name=big")
    assert (again.status_code, again.json()["message"]) == (200, "Model 'big' is downloaded already")


def test_the_rate_of_earlier_downloads_says_how_long_one_takes(api: Managed) -> None:
    assert api.download().json()["estimated_time"] == "unknown"
    api.fetch(model_id="org/big", name="big")
    told = api.download(model_id="suno/bark", name="bark").json()
    assert told["estimated_time"] == "less than a minute"
    assert told["download_info"]["estimated_size_mb"] == pytest.approx(0.02, abs=0.01)


def test_what_is_registered_survives_a_restart(hub: Hub, tmp_path: Path) -> None:
    with managed(hub, tmp_path) as api:
        download_id = api.fetch()["download_id"]
    hub.ill = True
    with managed(hub, tmp_path) as api:
        assert api.status(download_id)["status"] == "completed"
        assert api.download().json()["status"] == "already_exists", "the hub is not asked"
