"""From texts, and lists of token ids, to arrays that a model reads."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from yapit import InvalidInputError
from yapit_plugin_hf_generic.limits import too_long

Ids = Sequence[int]
Array = NDArray[np.int64]


class Read(Struct, frozen=True):
    """Inputs as token ids, and how many of each are its prompt's."""

    ids: list[Ids]
    prompted: list[int]


class Reader:
    """Reads texts as a model's tokenizer does.

    Args:
        tokenizer: of the model.
        limit: tokens an input may have.
        vocabulary: how many tokens the model knows.
        lower_case: texts are read in lower case.
    """

    def __init__(self, tokenizer: Any, limit: int, vocabulary: int, *, lower_case: bool = False) -> None:
        self._tokenizer = tokenizer
        self.limit = limit
        self.vocabulary = vocabulary
        self._lower_case = lower_case
        self._left = tokenizer.padding_side == "left"
        # Of those that no text can show: most models of generation have no padding of their own.
        self._padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._special = set(tokenizer.all_special_ids)

    def read(self, inputs: Sequence[str | Ids], prompt: str = "", *, truncate: bool = False) -> Read:
        """Return the tokens of all inputs; the prompt goes before texts, not before token ids.

        Raises:
            InvalidInputError: an input is empty, too long, or holds an id of no token.
        """
        texts = iter(self.tokens([prompt + text for text in inputs if isinstance(text, str)]))
        prompted = self._prompt_length(prompt)
        ids = [next(texts) if isinstance(each, str) else self._checked(each, n) for n, each in enumerate(inputs)]
        for place, each in enumerate(ids):
            if len(each) > self.limit:
                if not truncate:
                    raise too_long(f"inputs[{place}]", len(each), self.limit)
                given = inputs[place]
                ids[place] = self._cut(prompt + given if isinstance(given, str) else given)
            elif not each:
                raise InvalidInputError(f"Invalid 'inputs[{place}]': it is empty.", param=f"inputs[{place}]")
        return Read(ids, [prompted if isinstance(each, str) else 0 for each in inputs])

    def tokens(self, texts: list[str]) -> list[Ids]:
        """Return the ids of each text, with the special tokens that the model's tokenizer puts around it."""
        if not texts:
            return []
        if self._lower_case:
            texts = [text.lower() for text in texts]
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            found: list[Ids] = self._tokenizer(texts)["input_ids"]
            return found
        # The tokenizer's own call does this too, and then makes dictionaries that nobody reads: half of its time.
        backend.no_truncation()
        backend.no_padding()
        return [encoding.ids for encoding in backend.encode_batch_fast(texts)]

    def padded(self, ids: Sequence[Ids]) -> tuple[Array, Array]:
        """Return the ids as an array, and the mask: 1 where there is a token, 0 where there is padding."""
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        width = int(lengths.max())
        places = np.arange(width)
        mask = places >= width - lengths[:, None] if self._left else places < lengths[:, None]
        found = np.full(mask.shape, self._padding, np.int64)
        found[mask] = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
        return found, mask.astype(np.int64)

    def _checked(self, ids: Ids, place: int) -> Ids:
        if ids and not 0 <= min(ids) <= max(ids) < self.vocabulary:
            message = f"Invalid 'inputs[{place}]': the model's tokens have the ids 0 to {self.vocabulary - 1}."
            raise InvalidInputError(message, param=f"inputs[{place}]")
        return ids

    def _cut(self, given: str | Ids) -> Ids:
        """Return an input at the limit, its special tokens kept."""
        if isinstance(given, str):
            text = given.lower() if self._lower_case else given
            found: Ids = self._tokenizer(text, truncation=True, max_length=self.limit)["input_ids"]
            return found
        if given[-1] in self._special:
            return [*given[: self.limit - 1], given[-1]]
        return given[: self.limit]

    def _prompt_length(self, prompt: str) -> int:
        if not prompt:
            return 0
        (ids,) = self.tokens([prompt])
        return len(ids) - (ids[-1] in self._special)
