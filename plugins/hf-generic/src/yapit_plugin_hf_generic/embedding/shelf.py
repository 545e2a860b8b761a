"""What was found out about a model's runtimes, on disk: it is converted, and compared with torch, once."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import structlog

from yapit_plugin_hf_generic.repositories import Repository

_DECISIVE = {".json", ".safetensors", ".bin", ".py"}  # files that vectors depend on
_log = structlog.get_logger(__name__)


class Shelf:
    """The graphs of one model, and how near each runtime comes to torch in float32.

    What cannot be written is found out again at the next start.

    Args:
        folder: for all models.
        repository: of the model.
        settings: further things that vectors depend on.
    """

    def __init__(self, folder: Path, repository: Repository, *settings: object) -> None:
        self._folder = folder / _key(repository, settings)

    def cosine(self, runtime: str, precision: str) -> float | None:
        """Return how near a runtime came, None if that is not known."""
        return self._cosines().get(f"{runtime} {precision}")

    def note(self, runtime: str, precision: str, cosine: float) -> None:
        """Keep how near a runtime came."""
        known = self._cosines() | {f"{runtime} {precision}": cosine}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(msgspec.json.encode(known))
            os.replace(file.name, self._folder / "cosines.json")  # noqa: PTH105 - whole or not at all
        except OSError as error:
            _log.warning("embedding_runtime_not_noted", reason=str(error))

    def graph(self, precision: str) -> Path | None:
        """Return the file of a graph, None if there is none."""
        path = self._folder / precision / "model.xml"
        return path if path.is_file() else None

    def keep(self, precision: str, write: Callable[[Path], None]) -> Path | None:
        """Let a graph be written; return its file, None if there is no room for it, or no right to write."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=self._folder))
            try:
                write(draft / "model.xml")
                draft.rename(self._folder / precision)
            finally:
                shutil.rmtree(draft, ignore_errors=True)  # somebody else was quicker, or there is no room
        except (OSError, RuntimeError) as error:
            _log.warning("embedding_graph_not_kept", reason=" ".join(str(error).split()))
        return self.graph(precision)

    def drop(self, precision: str) -> None:
        """Remove a graph."""
        shutil.rmtree(self._folder / precision, ignore_errors=True)

    def _cosines(self) -> dict[str, float]:
        try:
            return msgspec.json.decode((self._folder / "cosines.json").read_bytes(), type=dict[str, float])
        except (OSError, msgspec.DecodeError):
            return {}


def _key(repository: Repository, settings: tuple[object, ...]) -> str:
    paths = sorted(path for path in repository.folder.iterdir() if path.suffix in _DECISIVE)
    files = [(path.name, (found := path.stat()).st_size, found.st_mtime_ns) for path in paths if path.is_file()]
    versions = [_version(name) for name in ("openvino", "torch", "transformers")]
    return hashlib.sha256(repr((repository.name, files, versions, settings)).encode()).hexdigest()[:32]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
