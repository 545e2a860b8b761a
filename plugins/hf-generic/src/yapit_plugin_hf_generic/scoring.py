"""A model that gives texts, or pairs of texts, scores: from what a tokenizer makes of them to logits."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers

from yapit import Model
from yapit_plugin_hf_generic.grouping import groups, piece
from yapit_plugin_hf_generic.limits import token_limit, too_long
from yapit_plugin_hf_generic.loading import Loader

Encoded = Mapping[str, Sequence[int]]  # what the tokenizer makes of one text: its ids, and what goes with them


class Scorer:
    """A model and its tokenizer.

    Args:
        loader: of the model.
        model: the catalog entry.
        auto: the class of transformers that loads it.
        max_tokens: a text may have; as the repository says when None.

    Raises:
        LoadError: it cannot be loaded.
    """

    def __init__(self, loader: Loader, model: Model, auto: Any, max_tokens: int | None = None) -> None:
        self.tokenizer: Any = loader.part(transformers.AutoTokenizer)
        self.model: Any = loader.weights(auto)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if self.model.config.get_text_config().pad_token_id is None:
            # By it, models that read from left to right find a text's last token.
            self.model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        self.limit = token_limit(loader.config, self.tokenizer, max_tokens)
        self._piece = piece(model.batch_tokens, loader.device)

    def encode(self, texts: Sequence[str], others: Sequence[str] | None = None, **settings: Any) -> list[Encoded]:
        """Return what the tokenizer makes of each text, or of each pair of them; settings are its own."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), None if others is None else list(others), padding=False, **settings)
        return [{name: values[place] for name, values in found.items()} for place in range(len(texts))]

    def logits(self, encoded: Sequence[Encoded], *, side: str | None = None, **settings: Any) -> Iterator[Any]:
        """Yield the place of each text and its logits in float32, the shortest first.

        Args:
            encoded: the texts.
            side: on which they are padded; on the tokenizer's when None.
            settings: for the model.
        """
        device = self.model.device
        for group in groups([len(each["input_ids"]) for each in encoded], self._piece):
            padded = self.tokenizer.pad([encoded[n] for n in group], padding_side=side, return_tensors="pt")
            with torch.inference_mode():
                rows = self.model(**padded.to(device), **settings).logits.float().cpu()
            yield from zip(group, rows, strict=True)

    def count(self, text: str) -> int:
        """Return how many tokens a text has by itself, without special ones."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def cut(self, texts: Sequence[str], tokens: int) -> list[str]:
        """Return the beginnings of texts that have as many tokens."""
        found = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        return [
            text[: places[tokens - 1][1]] if len(places) > tokens else text
            for text, places in zip(texts, found["offset_mapping"], strict=True)
        ]

    def check(self, name: str, count: int, limit: int | None = None) -> None:
        """Raise `InvalidInputError` if the field `name` has more tokens than are read."""
        most = self.limit if limit is None else limit
        if count > most:
            raise too_long(name, count, most)
