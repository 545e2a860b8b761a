"""From what a person says of a model's source to its catalog entry; nobody is asked over the network."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from yapit.catalog import Entry, Model, check_slug
from yapit.errors import InvalidInputError, did_you_mean
from yapit.tasks import TASKS
from yapit.weights import FILE_SUFFIXES, check_file_url

KINDS = ("huggingface", "url", "pytorch_hub", "torchvision", "tts_auto", "local")
# What others call our tasks.
_WORDS = {
    "text-to-speech": "synthesize",
    "text-to-audio": "synthesize",
    "tts": "synthesize",
    "automatic-speech-recognition": "transcribe",
    "speech-to-text": "transcribe",
    "speech-recognition": "transcribe",
    "stt": "transcribe",
    "text-generation": "generate",
    "text2text-generation": "generate",
    "summarization": "generate",
    "translation": "generate",
    "conversational": "generate",
    "image-text-to-text": "generate",
    "text-classification": "classify",
    "image-classification": "classify",
    "zero-shot-classification": "classify",
    "zero-shot-image-classification": "classify",
    "sentiment-analysis": "classify",
    "feature-extraction": "embed",
    "sentence-similarity": "embed",
    "embedding": "embed",
    "embeddings": "embed",
    "text-ranking": "rerank",
    "reranking": "rerank",
}
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_NAME = re.compile(r"\w[\w.-]*")
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+:[\w./-]+):(\w+)")


class Wish(Struct, frozen=True, kw_only=True):
    """What a person says of a model; all that is None is found out, or the default.

    Args:
        model_id: repository, URL, architecture, `owner/repository:revision:function` or folder, as the source has it.
        task: one of ours, or a word that others have for it.
        revision: of a repository.
        vocoder: of a model that speaks.
        architecture: of a file of weights.
        sha256: of a file.
        backend: that shall run it.
        options: further ones of the backend.
        data_dir: where yapit keeps what it has; nothing in it is a source.
    """

    model_id: str
    task: str | None = None
    revision: str | None = None
    vocoder: str | None = None
    architecture: str | None = None
    sha256: str | None = None
    backend: str | None = None
    options: Mapping[str, Any] = {}
    data_dir: Path = Path("data")


def entry_of(kind: str, model_id: str, name: str, **wishes: Any) -> Entry:
    """Return the entry of a model, not yet complete: plugins say what it leaves out.

    Args:
        kind: of the source, one of `KINDS`.
        model_id: what the source calls it.
        name: what clients will call it.
        wishes: further fields of `Wish`.

    Raises:
        InvalidInputError: a field cannot be used; `param` names it.
    """
    check_slug(name)
    if kind not in KINDS:
        message = f"Invalid source: {kind}. Must be one of: {', '.join(KINDS)}."
        raise InvalidInputError(message, param="source")
    if not model_id.strip():
        raise InvalidInputError("The id of the model in its source is missing.", param="model_id")
    wish = Wish(model_id=model_id.strip(), **wishes)
    if wish.revision is not None and kind not in ("huggingface", "tts_auto"):
        raise InvalidInputError(f"A source of the kind '{kind}' has no revisions.", param="revision")
    entry: Entry = {"id": name, **_OF[kind](wish)}
    options = {**entry.pop("options", {}), **wish.options}
    if wish.vocoder is not None:
        options["vocoder"] = wish.vocoder
    chosen: Entry = {"backend": wish.backend, "revision": wish.revision, "options": options}
    if wish.task is not None:
        chosen["tasks"] = [task_of(wish.task)]
    return {**entry, **{field: value for field, value in chosen.items() if value}}


def task_of(word: str) -> str:
    """Return the task that a word stands for.

    Raises:
        InvalidInputError: nobody calls a task so.
    """
    plain = word.strip().casefold().replace("_", "-")
    task = plain if plain in TASKS else _WORDS.get(plain)
    if task is None:
        known = [*TASKS, *_WORDS]
        raise InvalidInputError(f"There is no task '{word}'. {did_you_mean(word, known)}".rstrip(), param="task")
    return task


def check_complete(kind: str, model: Model) -> None:
    """Raise `InvalidInputError` if a plugin found out that the model is not what its source was said to be."""
    if not model.tasks:
        message = f"What '{model.source or model.id}' does cannot be found out: name its task."
        raise InvalidInputError(message, param="task")
    if kind == "tts_auto" and "synthesize" not in model.tasks:
        message = f"The model '{model.source}' does not speak, as far as its files tell."
        raise InvalidInputError(message, param="model_id")


def _repository(wish: Wish) -> Entry:
    from yapit.hub import is_repo_id  # brings huggingface_hub

    if not is_repo_id(wish.model_id):
        message = f"The id of a repository is 'name' or 'owner/name'; got '{wish.model_id[:100]}'."
        raise InvalidInputError(message, param="model_id")
    return {"source": wish.model_id}


def _speech(wish: Wish) -> Entry:
    if wish.task is not None and task_of(wish.task) != "synthesize":
        raise InvalidInputError("A source of the kind 'tts_auto' speaks: leave out the task.", param="task")
    return _repository(wish)


def _url(wish: Wish) -> Entry:
    check_file_url(wish.model_id, param="model_id")
    if wish.sha256 is not None and not _SHA256.fullmatch(wish.sha256):
        raise InvalidInputError("A sha256 has 64 hexadecimal digits.", param="sha256")
    options = _tensors(wish)
    return {"source": wish.model_id, "options": options | ({"sha256": wish.sha256} if wish.sha256 else {})}


def _torchvision(wish: Wish) -> Entry:
    if not _NAME.fullmatch(wish.model_id):
        message = f"A model of torchvision is an architecture such as 'resnet50'; got '{wish.model_id[:100]}'."
        raise InvalidInputError(message, param="model_id")
    return {"options": {"architecture": wish.model_id}}


def _pytorch_hub(wish: Wish) -> Entry:
    if "/" not in wish.model_id:
        return _torchvision(wish)
    match = _HUB_NAME.fullmatch(wish.model_id)
    if match is None:
        message = (
            "A model of PyTorch's hub is 'owner/repository:revision:function', such as "
            f"'pytorch/vision:v0.28.0:resnet50', or an architecture of torchvision; got '{wish.model_id[:100]}'."
        )
        raise InvalidInputError(message, param="model_id")
    code, function = match.groups()
    return {"backend": "hf-generic", "tasks": ["classify"], "options": {"hub_code": code, "architecture": function}}


def _local(wish: Wish) -> Entry:
    path = Path(wish.model_id)
    if not path.is_absolute():
        raise InvalidInputError("The path of a model on this machine is absolute.", param="model_id")
    place = path.resolve()
    if _is_ours(place, wish.data_dir):
        message = "What yapit and the hub's cache keep is no source: name the repository, or copy the folder elsewhere."
        raise InvalidInputError(message, param="model_id")
    if place.is_file() and place.name.endswith(FILE_SUFFIXES):
        return {"source": str(path), "options": _tensors(wish)}
    if not place.is_dir():
        raise InvalidInputError(f"There is no folder '{wish.model_id}' on this machine.", param="model_id")
    return {"source": str(path), **({"options": _tensors(wish)} if wish.architecture else {})}


def _tensors(wish: Wish) -> dict[str, Any]:
    """Return the options of a file of weights."""
    if wish.architecture is None and wish.backend is None and "architecture" not in wish.options:
        message = "A file of weights does not say what its tensors are for: name the 'architecture'."
        raise InvalidInputError(message, param="architecture")
    return {"architecture": wish.architecture} if wish.architecture else {}


def _is_ours(path: Path, data_dir: Path) -> bool:
    from huggingface_hub import constants

    return any(path.is_relative_to(Path(ours).resolve()) for ours in (data_dir, constants.HF_HUB_CACHE))


_OF: dict[str, Callable[[Wish], Entry]] = {
    "huggingface": _repository,
    "url": _url,
    "pytorch_hub": _pytorch_hub,
    "torchvision": _torchvision,
    "tts_auto": _speech,
    "local": _local,
}
