"""Who may change which models there are, and how refusals look to clients of older servers."""

from pathlib import Path

import pytest

from core.server.managing.conftest import Managed, managed
from hub import Hub

CHANGES = [
    ("POST", "/models/download"),
    ("POST", "/models/manage?action=optimize&model_name=echo"),
    ("DELETE", "/models/download/echo"),
    ("DELETE", "/models/download/status/00000000"),
    ("POST", "/models/download/00000000/pause"),
    ("POST", "/models/echo/load"),
    ("POST", "/models/load"),
    ("POST", "/v1/models/unload"),
    ("POST", "/api/pull"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/models/download"),
]
READS = ["/models", "/models/available", "/models/managed", "/models/cache/info", "/api/tags", "/api/ps"]


def headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def test_an_inference_key_reads_and_does_not_change(hub: Hub, tmp_path: Path) -> None:
    with managed(hub, tmp_path, YAPIT_API_KEYS="user", YAPIT_SERVER_ADMIN_KEYS="boss") as api:
        for method, path in CHANGES:
            answers = {key: api.client.request(method, path, headers=headers(key)) for key in ("", "x", "user", "boss")}
            codes = {key: answer.status_code for key, answer in answers.items()}
            assert codes.pop("boss") not in (401, 403), path
            assert codes == {"": 401, "x": 401, "user": 403}, path
        for path in READS:
            codes = {key: api.client.get(path, headers=headers(key)).status_code for key in ("", "user", "boss")}
            assert codes == {"": 401, "user": 200, "boss": 200}, path
        refused = api.client.post("/models/echo/load", headers=headers("user")).json()
        assert (refused["error"]["code"], refused["success"]) == ("admin_key_required", False)
        speech = {"model": "echo", "input": "x"}
        assert api.client.post("/v1/audio/speech", json=speech, headers=headers("boss")).status_code == 200
        assert "boss" not in str(api.server.lines)


def test_with_admin_keys_alone_everybody_reads(hub: Hub, tmp_path: Path) -> None:
    with managed(hub, tmp_path, YAPIT_SERVER_ADMIN_KEYS="boss") as api:
        assert api.client.get("/models").status_code == 200
        assert api.client.post("/models/echo/load").status_code == 401
        assert api.client.post("/models/echo/load", headers=headers("boss")).status_code == 200


def test_without_admin_keys_any_key_changes(hub: Hub, tmp_path: Path) -> None:
    with managed(hub, tmp_path, YAPIT_API_KEYS="user") as api:
        assert api.client.post("/models/echo/load", headers=headers("user")).status_code == 200
        assert api.client.post("/models/echo/load").status_code == 401


def test_older_clients_get_status_200_and_a_text(hub: Hub, tmp_path: Path) -> None:
    with managed(hub, tmp_path, YAPIT_COMPAT_LEGACY_STATUS="true", YAPIT_API_KEYS="user") as api:
        api.client.headers.update(headers("user"))
        invalid = api.download(source="invalid_source")
        assert (invalid.status_code, invalid.json()) == (
            200,
            {
                "success": False,
                "message": "Invalid source. Must be one of: [pytorch_hub, torchvision, huggingface, url, tts_auto, "
                "local]",
                "error": "Invalid source: invalid_source",
            },
        )
        unknown = api.client.delete("/models/download/unknown_model")
        assert (unknown.status_code, unknown.json()) == (
            200,
            {
                "success": False,
                "message": "Model not found in cache: unknown_model",
                "error": "Model does not exist",
            },
        )
        failed = api.download(model_id="org/none", name="failed_model")
        assert (failed.status_code, failed.json()["success"], failed.json()["status"]) == (200, False, "failed")
        assert failed.json()["message"] == "Failed to download model 'failed_model'"
        assert isinstance(failed.json()["error"], str)
        assert api.download().status_code == 200
        assert api.client.get("/v1/models/nobody").status_code == 404, "that is not about managing"
        assert api.client.get("/models", headers=headers("wrong")).status_code == 401


@pytest.mark.parametrize("path", ["/models/download", "/models/manage"])
def test_a_body_that_is_none_is_refused_in_the_same_shape(api: Managed, path: str) -> None:
    refused = api.client.post(path, content=b"{")
    assert refused.status_code == 400
    assert refused.json()["success"] is False
    assert refused.json()["message"] == refused.json()["error"]["message"]
