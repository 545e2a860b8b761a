"""Weights that were converted for CTranslate2, on disk: once for each model."""

import hashlib
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from ctranslate2.converters import TransformersConverter

from yapit_plugin_whisper.engines.facts import Facts

_DECISIVE = {".json", ".safetensors", ".bin", ".txt"}  # files that the converted weights depend on


class Shelf:
    """The converted weights of one model.

    Args:
        folder: for all models.
        facts: about this one.
    """

    def __init__(self, folder: Path, facts: Facts) -> None:
        self._facts = facts
        self._folder = folder / _key(facts)

    def folder(self) -> Path:
        """Return the folder with the converted weights, converted now if they are not there.

        Raises:
            OSError: there is no room, or no right to write.
            Exception: of the converter, which knows not every model.
        """
        if not (self._folder / "model.bin").is_file():
            self._convert()
        return self._folder

    def drop(self) -> None:
        """Remove them."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _convert(self) -> None:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=self._folder.parent))
        try:
            made = draft / "made"
            TransformersConverter(str(self._facts.folder)).convert(str(made))
            self._tell_languages(made / "vocabulary.json")
            self._put(made)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _tell_languages(self, path: Path) -> None:
        """Let CTranslate2 know that the model tells languages apart.

        It takes a vocabulary for a multilingual one if it has an empty entry, as OpenAI's has before its end token.
        Its entries are names only: tokens go in and out as numbers.
        """
        names: list[str] = json.loads(path.read_bytes())
        if self._facts.languages() and "" not in names:
            names[self._facts.token("<|endoftext|>") - 1] = ""
            path.write_text(json.dumps(names), "utf-8")

    def _put(self, made: Path) -> None:
        try:
            made.rename(self._folder)
        except OSError:
            if not (self._folder / "model.bin").is_file():  # else somebody was quicker
                raise


def _key(facts: Facts) -> str:
    paths = sorted(path for path in facts.folder.iterdir() if path.suffix in _DECISIVE)
    files = [(path.name, (found := path.stat()).st_size, found.st_mtime_ns) for path in paths if path.is_file()]
    versions = [version(name) for name in ("ctranslate2", "transformers")]
    return hashlib.sha256(repr((facts.name, files, versions)).encode()).hexdigest()[:32]
