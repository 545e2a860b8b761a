"""What a Whisper's own files say about its tokens, its windows and its languages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers
from faster_whisper.tokenizer import _LANGUAGE_CODES
from msgspec import Struct

from yapit import LoadError
from yapit.hub import line
from yapit_plugin_whisper.repositories import CONFIG

_TOKENIZER = "tokenizer.json"
_ENGLISH_END = 50_256  # the end token of OpenAI's English tokenizer; that of the multilingual one is a number higher
_EXTRACTOR = ("preprocessor_config.json", "processor_config.json")
_SOUND = ("feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft")


class Facts(Struct, frozen=True, kw_only=True):
    """What is known before the weights are read.

    Args:
        name: what the catalog calls the source.
        folder: with the files.
        config: what `config.json` says.
        tokenizer: of the model.
        sound: arguments of the feature extractor.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    tokenizer: tokenizers.Tokenizer
    sound: dict[str, int]

    @classmethod
    def of(cls, name: str, folder: Path, tokenizer: Path | None = None) -> "Facts":
        """Read the small files.

        Args:
            name: what the catalog calls the source.
            folder: with the files.
            tokenizer: folder with the tokenizer's files; `folder` when None.

        Raises:
            LoadError: one is missing, or cannot be read.
        """
        return cls(
            name=name,
            folder=folder,
            config=_json(name, folder / CONFIG) or {},
            tokenizer=_tokenizer(name, tokenizer or folder),
            sound=_sound(name, folder),
        )

    @property
    def converted(self) -> bool:
        """Whether the weights are CTranslate2's."""
        return (self.folder / "model.bin").is_file()

    def languages(self) -> dict[str, int]:
        """Return the tokens of the languages; none for a model that knows English alone."""
        found = {code: self.tokenizer.token_to_id(f"<|{code}|>") for code in _LANGUAGE_CODES}
        named = {code: token for code, token in found.items() if token is not None}
        # English-only models have the tokens too, and never learned them.
        return {} if self.token("<|endoftext|>") == _ENGLISH_END else named

    def suppressed(self) -> list[int]:
        """Return the tokens that are never written, as faster-whisper takes them: -1 for its own choice."""
        told = _json(self.name, self.folder / "generation_config.json") or {}
        tokens = told.get("suppress_tokens", self.config.get("suppress_ids"))
        if tokens is None:
            return [-1]
        # It adds the tokens that are no text only to a list that is not empty.
        return [int(token) for token in tokens] or [self.token("<|startoftranscript|>")]

    def token(self, *names: str) -> int:
        """Return the id of the first of these tokens there is.

        Raises:
            LoadError: there is none.
        """
        found = next((token for name in names if (token := self.tokenizer.token_to_id(name)) is not None), None)
        if found is None:
            raise LoadError(f"The tokenizer of '{self.name}' has no token '{names[0]}': is it a Whisper's?")
        return found


class Result(Struct, frozen=True, kw_only=True):
    """What an engine wrote for one window, as CTranslate2 says it.

    Args:
        sequences_ids: the tokens of the best attempts, best first, without the prompt and the end.
        scores: sum of the log-probabilities of each, that of the end counted, by its length to the power asked for.
        no_speech_prob: that nobody speaks.
    """

    sequences_ids: list[list[int]]
    scores: list[float]
    no_speech_prob: float


class Alignment(Struct, frozen=True, kw_only=True):
    """Which token was said when, as CTranslate2 says it.

    Args:
        alignments: pairs of a token's and a frame's number, frames of 20 ms.
        text_token_probs: of the text's tokens.
    """

    alignments: list[tuple[int, int]]
    text_token_probs: list[float]


Features = np.ndarray[Any, np.dtype[np.float32]]


def _tokenizer(name: str, folder: Path) -> tokenizers.Tokenizer:
    path = folder / _TOKENIZER
    try:
        if path.is_file():
            return tokenizers.Tokenizer.from_file(str(path))
        if (folder / "vocab.json").is_file():
            made: tokenizers.Tokenizer = transformers.WhisperTokenizer.from_pretrained(folder).backend_tokenizer
            return made
    except Exception as error:  # tokenizers raises plain ones
        raise LoadError(f"The tokenizer of '{name}' cannot be read: {line(error)}") from error
    raise LoadError(f"The repository '{name}' has no {_TOKENIZER}; the option 'tokenizer' may name one that has.")


def _sound(name: str, folder: Path) -> dict[str, int]:
    for file in _EXTRACTOR:
        found = _json(name, folder / file)
        if found is not None:
            found = found.get("feature_extractor", found)
            if "feature_size" in found:
                return {key: int(found[key]) for key in _SOUND if key in found}
    return {}


def _json(name: str, path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LoadError(f"The file '{path.name}' of '{name}' cannot be read: {line(error)}") from error
    if not isinstance(found, dict):
        raise LoadError(f"The file '{path.name}' of '{name}' cannot be read: it is no JSON object.")
    return found
