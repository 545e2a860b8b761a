"""Vectors of voices: a file for each, in a folder, in a zip file, or in a data set on the hub."""

import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from yapit import LoadError
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.repositories import Repository
from yapit_plugin_hf_generic.speaking.speaker import SpeakingOptions

_ENDINGS = {".npy", ".pt", ".safetensors"}


class SpeakerEmbeddings:
    """Looks the vectors up by the names of their voices; a file is read when its voice is first heard.

    Args:
        source: what the entry calls them, for messages.
        files: where the vector of each voice is: a file, or a zip file and the name inside.
        width: of a vector.
    """

    def __init__(self, source: str, files: dict[str, tuple[Path, str | None]], width: int) -> None:
        self._source = source
        self._files = files
        self._width = width
        self._read: dict[str, NDArray[np.float32]] = {}
        self.names = [*files]

    @classmethod
    def of(cls, loader: Loader, options: SpeakingOptions, width: int) -> "SpeakerEmbeddings":
        """Return the embeddings that the options name; there are none if they name none.

        Raises:
            LoadError: they are not here and cannot be fetched, or a speaker's file is not among them.
        """
        source = options.speaker_embeddings
        if source is None and not options.speakers:
            return cls(loader.repository.name, {}, width)
        if source is None:
            found = _found(loader.repository.folder)
        else:
            here = Path(source).expanduser()
            if not here.exists():
                here = Repository.at(source, fetch=not options.skip_download, kind="dataset").folder
            found = _found(here)
        name = source or loader.repository.name
        if not found:
            raise LoadError(f"There are no speaker embeddings (.npy, .pt, .safetensors) in '{name}'.")
        if not options.speakers:
            return cls(name, found, width)
        files = {voice: found[_match(str(file), found, name)] for voice, file in options.speakers.items()}
        return cls(name, files, width)

    def __getitem__(self, voice: str) -> NDArray[np.float32]:
        """Return the vector of a voice that is known.

        Raises:
            LoadError: its file cannot be read, or is no vector of the model's width.
        """
        vector = self._read.get(voice)
        if vector is None:
            path, inside = self._files[voice]
            try:
                vector = _vector(path, inside)
            except Exception as error:
                message = f"The speaker embedding of '{voice}' in '{self._source}' cannot be read: {error}"
                raise LoadError(message) from error
            if len(vector) != self._width:
                message = (
                    f"The speaker embedding of '{voice}' in '{self._source}' has {len(vector)} numbers; "
                    f"the model takes {self._width}."
                )
                raise LoadError(message)
            self._read[voice] = vector
        return vector


def _found(source: Path) -> dict[str, tuple[Path, str | None]]:
    """Return the files by their names without endings, in alphabetical order."""
    found: dict[str, tuple[Path, str | None]] = {}
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    for path in paths:
        if path.suffix in _ENDINGS and not path.name.startswith(("model", "pytorch_model")):
            found.setdefault(path.stem, (path, None))
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for inside in sorted(archive.namelist()):
                    if PurePosixPath(inside).suffix in _ENDINGS:
                        found.setdefault(PurePosixPath(inside).stem, (path, inside))
    return dict(sorted(found.items()))


def _match(wanted: str, found: dict[str, tuple[Path, str | None]], source: str) -> str:
    name = PurePosixPath(wanted)
    stem = name.stem if name.suffix in _ENDINGS else name.name
    if stem in found:
        return stem
    begins = next((each for each in found if each.startswith(stem)), None)
    if begins is None:
        raise LoadError(f"There is no speaker embedding '{wanted}' in '{source}'.")
    return begins


def _vector(path: Path, inside: str | None) -> NDArray[np.float32]:
    if inside is None:
        content, ending = path.read_bytes(), path.suffix
    else:
        with zipfile.ZipFile(path) as archive:
            content, ending = archive.read(inside), PurePosixPath(inside).suffix
    if ending == ".npy":
        array = np.load(io.BytesIO(content), allow_pickle=False)
    elif ending == ".pt":
        array = np.asarray(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    else:
        from safetensors.numpy import load

        (array,) = load(content).values()
    return np.asarray(array, dtype=np.float32).reshape(-1)
