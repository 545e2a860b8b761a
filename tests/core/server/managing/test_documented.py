"""Every example request of the API that others have documented works here, and has every field that they document."""

from typing import Any

import pytest

from core.server.managing.conftest import Managed

# What is documented of each body: names, and below them those of objects; a list has the fields of its items.
STARTED = {
    "success": bool,
    "download_id": str,
    "message": str,
    "model_name": str,
    "source": str,
    "model_id": str,
    "status": str,
    "estimated_time": str,
    "download_info": {
        "download_id": str,
        "model_type": str,
        "description": str,
        "estimated_size_mb": float,
        "supports_voice_cloning": bool,
        "vocoder_included": bool,
        "vocoder_models": list,
        "started_at": str,
    },
}
MODELS = {
    "success": bool,
    "timestamp": str,
    "total_models": int,
    "available_models": list,
    "models_info": dict,
    "specialized_models": {
        "tts_models": list,
        "stt_models": list,
        "image_classification": list,
        "text_classification": list,
    },
    "audio_models": {"tts_detailed": dict, "loaded_audio_models": list},
}
SUMMARY = {"display_name": str, "task": str, "category": str, "enabled": bool, "tts_enabled": bool}
SPEAKER = {"type": str, "model_name": str, "description": str}
AVAILABLE = {
    "available_models": dict,
    "total_available": int,
    "categories": {"tts_models": list, "general_models": list},
    "popular_tts_models": list,
    "download_recommendations": {"beginners": list, "advanced": list, "fast_setup": list, "highest_quality": list},
}
ENTRY = {
    "name": str,
    "source": str,
    "model_id": str,
    "task": str,
    "description": str,
    "size_mb": float,
    "tags": list,
    "tts_features": {
        "supports_tts": bool,
        "quality": type(None),
        "speed": object,
        "vocoder_required": bool,
        "supports_voice_cloning": bool,
        "supports_emotions": bool,
    },
}
MANAGED = {
    "total_models": int,
    "downloaded_models": [
        {
            "name": str,
            "loaded": bool,
            "device": object,
            "is_tts": bool,
            "optimized": bool,
            "memory_usage": {"allocated_mb": object, "reserved_mb": float},
            "parameters": object,
        }
    ],
    "categories": {
        "tts_models": [{"name": str, "loaded": bool, "is_tts": bool}],
        "other_models": [{"name": str, "loaded": bool, "is_tts": bool}],
    },
    "summary": {"total_loaded": int, "tts_models_count": int, "optimized_count": int, "total_parameters": int},
}
CACHE = {
    "cache_directory": str,
    "total_models": int,
    "total_size_mb": float,
    "models": list,
    "tts_specific": {
        "tts_models_count": int,
        "tts_models": [{"name": str, "size_mb": float, "source": str, "task": str, "tags": list}],
        "tts_total_size_mb": float,
        "tts_percentage": float,
    },
    "cache_optimization": {"cache_hit_rate": object, "optimization_enabled": bool, "auto_cleanup": bool},
}
STATUS = {"download_id": str, "status": str, "progress": int, "eta": object, "message": str}
DONE = {"success": bool, "message": str, "action": str, "model_name": str}
SPEECHT5 = {
    "source": "huggingface",
    "model_id": "microsoft/speecht5_tts",
    "name": "speecht5_tts",
    "task": "text-to-speech",
    "include_vocoder": True,
}
BARK = {"source": "huggingface", "model_id": "suno/bark", "name": "bark_tts", "task": "text-to-speech"}
BART = {
    "source": "huggingface",
    "model_id": "facebook/bart-large",
    "name": "bart_large_tts",
    "task": "text-generation",
    "auto_convert_tts": True,
}


def lacks(found: Any, documented: Any, place: str = "") -> list[str]:
    """Return the places where what is documented is missing, or of another kind."""
    if isinstance(documented, dict):
        if not isinstance(found, dict):
            return [place]
        missing = [f"{place}.{name}" for name in documented if name not in found]
        return missing + [
            line
            for name, kind in documented.items()
            if name in found
            for line in lacks(found[name], kind, f"{place}.{name}")
        ]
    if isinstance(documented, list):
        if not isinstance(found, list):
            return [place]
        return [line for each in found for line in lacks(each, documented[0], f"{place}[]")]
    return [] if isinstance(found, documented) or (documented is float and isinstance(found, int)) else [place]


@pytest.mark.parametrize(
    "body",
    [
        SPEECHT5,
        BARK,
        BART,
        {**SPEECHT5, "auto_convert_tts": True, "vocoder_model": "microsoft/speecht5_hifigan", "experimental": False},
    ],
    ids=["speecht5", "bark", "bart", "speecht5 in full"],
)
def test_a_documented_download_works_and_ends(api: Managed, body: dict[str, Any]) -> None:
    answer = api.client.post("/models/download", json=body)
    assert (answer.status_code, lacks(answer.json(), STARTED)) == (202, [])
    told = answer.json()
    named = {name: told[name] for name in ("model_name", "source", "model_id", "status", "success")}
    assert named == {
        "model_name": body["name"],
        "source": "huggingface",
        "model_id": body["model_id"],
        "status": "downloading",
        "success": True,
    }
    assert told["message"] in {f"Started downloading {kind} '{body['name']}'" for kind in ("TTS model", "model")}
    assert ("TTS" in told["message"]) == (body["name"] != "bart_large_tts")
    info = told["download_info"]
    vocoders = ["microsoft/speecht5_hifigan"] if body["name"] == "speecht5_tts" else []
    assert (info["vocoder_included"], info["vocoder_models"]) == (bool(vocoders), vocoders)
    assert info["model_type"] == ("text-generation" if body["name"] == "bart_large_tts" else "tts")
    assert bool(told["warnings"]) == (body["name"] == "bart_large_tts"), "it cannot be made to speak, and that is said"
    end = api.ended(told["download_id"])
    assert lacks(end, STATUS) == []
    assert (end["status"], end["progress"], end["eta"], end["message"]) == (
        "completed",
        100,
        None,
        "Download completed successfully",
    )
    assert api.client.get(f"/v1/models/{body['name']}").status_code == 200
    again = api.client.post("/models/download", json=body)
    assert (again.status_code, again.json()["status"], again.json()["success"]) == (200, "already_exists", True)
    assert again.json()["message"] == f"Model '{body['name']}' already exists and is ready to use"
    assert again.json()["download_id"] == told["download_id"]


def test_the_lists_have_every_documented_field_and_true_values(api: Managed) -> None:
    api.fetch(model_id="org/voice", name="voice")
    api.fetch()
    assert api.client.post("/models/voice/status").status_code == 400
    models = api.client.get("/models").json()
    assert lacks(models, MODELS) == []
    assert models["total_models"] == len(models["available_models"]) == len(models["data"])
    assert all(lacks(each, SUMMARY) == [] for each in models["models_info"].values())
    assert all(lacks(each, SPEAKER) == [] for each in models["audio_models"]["tts_detailed"].values())
    assert models["models_info"]["voice"]["task"] == "text-to-speech"
    assert models["audio_models"]["tts_detailed"]["voice"]["model_name"] == "org/voice"
    assert "small" in models["specialized_models"]["text_classification"]

    available = api.client.get("/models/available").json()
    assert lacks(available, AVAILABLE) == []
    assert available["total_available"] == len(available["available_models"])
    for name, entry in available["available_models"].items():
        assert lacks(entry, {**ENTRY, "size_mb": object}, name) == []
    here = available["available_models"]["voice"]
    assert lacks(here, ENTRY) == []
    assert (here["downloaded"], available["available_models"]["BAAI/bge-m3"]["size_mb"]) == (True, None)

    managed = api.client.get("/models/managed").json()
    assert lacks(managed, MANAGED) == []
    assert [each["name"] for each in managed["downloaded_models"]] == ["voice", "small"]
    assert [each["parameters"] for each in managed["downloaded_models"]] == [5007, 5007]
    assert managed["summary"] == {
        "total_loaded": 0,
        "tts_models_count": 1,
        "optimized_count": 0,
        "total_parameters": 10_014,
    }

    cache = api.client.get("/models/cache/info").json()
    assert lacks(cache, CACHE) == []
    assert (cache["total_models"], cache["models"], cache["other_repositories"]) == (2, ["voice", "small"], [])
    assert cache["tts_specific"]["tts_models_count"] == 1
    assert 0 < cache["tts_specific"]["tts_percentage"] < 100
    assert cache["cache_optimization"] == {
        "cache_hit_rate": None,
        "optimization_enabled": False,
        "auto_cleanup": False,
    }


def test_the_routes_are_below_api_too(api: Managed) -> None:
    for path in ("/models", "/models/available", "/models/managed", "/models/cache/info"):
        ours, theirs = (api.client.get(f"{prefix}{path}").json() for prefix in ("", "/api"))
        assert ours.keys() == theirs.keys()


def test_what_is_managed_and_removed_answers_as_documented(api: Managed) -> None:
    api.fetch()
    retried = api.client.post("/models/manage?action=retry_download&model_name=small&force_redownload=true")
    assert (retried.status_code, lacks(retried.json(), DONE)) == (202, [])
    assert api.ended(retried.json()["download_id"])["status"] == "completed"
    info = api.client.get("/models/download/small/info").json()
    assert (info["model_name"], info["info"]["downloaded"], info["info"]["parameters"]) == ("small", True, 5007)
    assert api.client.get("/models/download/nobody/info").status_code == 404
    gone = api.client.delete("/models/download/small")
    assert gone.status_code == 200
    assert gone.json()["message"] == "Successfully removed model from cache: small"
    assert (gone.json()["model_name"], gone.json()["unregistered"]) == ("small", True)
    assert gone.json()["bytes_freed"] > 20_000
    assert "small" not in api.served


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        (
            "POST",
            "/models/download",
            {**BARK, "source": "invalid_source"},
            400,
            "Invalid source. Must be one of: [pytorch_hub, torchvision, huggingface, url, tts_auto, local]",
        ),
        ("DELETE", "/models/download/unknown_model", None, 404, "Model not found in cache: unknown_model"),
        (
            "POST",
            "/models/download",
            {**BARK, "model_id": "org/none", "name": "failed_model"},
            404,
            "Failed to download model 'failed_model'",
        ),
        ("POST", "/models/manage?action=dance&model_name=echo", None, 400, "Unknown action: dance"),
    ],
)
def test_a_refusal_has_the_documented_fields_and_an_honest_status(
    api: Managed, method: str, path: str, body: dict[str, Any] | None, status: int, message: str
) -> None:
    answer = api.client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["success"], answer.json()["message"]) == (status, False, message)
    assert lacks(answer.json()["error"], {"message": str, "type": str, "param": object, "code": str}) == []
