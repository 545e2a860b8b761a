"""Ask for repositories in a process of its own: the hub's client reads its settings only once.

Arguments: a list of calls, each the name of a function and its keywords; how long the hub may take for an answer; and
the file for what became of the calls.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from yapit import LoadError
from yapit.hub import planning
from yapit_plugin_hf_generic.repositories import Repository, describe

SLEPT: list[float] = []


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if name == "describe":
        return {"entry": describe(arguments["source"], arguments.get("revision"))}
    try:
        repository = Repository.at(**arguments)
    except LoadError as error:
        return {"error": str(error)}
    folder = repository.folder
    return {"files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())} | {
        "folder": str(folder)
    }


def main() -> None:
    calls, planning.ANSWER_S = json.loads(sys.argv[1]), float(sys.argv[2])
    time.sleep = SLEPT.append  # type: ignore[assignment]  # who sleeps tries again
    answers = [call(name, arguments) for name, arguments in calls]
    modules = [name for name in ("torch", "transformers") if name in sys.modules]
    Path(sys.argv[3]).write_text(json.dumps({"answers": answers, "slept": SLEPT, "heavy": modules}), encoding="utf-8")


if __name__ == "__main__":
    main()
