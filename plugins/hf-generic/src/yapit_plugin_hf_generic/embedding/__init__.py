"""Any transformer of the hub behind the one method of an embedder."""

import gc
from collections.abc import Iterator
from threading import Lock
from typing import Any

import torch
import transformers

from yapit import Context, Embedder, Embedding, EmbedRequest, InvalidInputError, Model
from yapit.computing import fast_bfloat16
from yapit_plugin_hf_generic.embedding.choosing import Choice
from yapit_plugin_hf_generic.embedding.layout import EmbedOptions, Layout, layout_of
from yapit_plugin_hf_generic.embedding.pooling import Finish
from yapit_plugin_hf_generic.embedding.prompts import prompt_for
from yapit_plugin_hf_generic.embedding.reading import Read, Reader
from yapit_plugin_hf_generic.embedding.shelf import Shelf
from yapit_plugin_hf_generic.grouping import groups, in_order, piece
from yapit_plugin_hf_generic.limits import token_limit
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import options_of
from yapit_plugin_hf_generic.repositories import Repository


class HFEmbedder(Embedder):
    """Embeds with a transformer, as sentence-transformers does where the repository has its files.

    One batch is computed at a time; a second one is read meanwhile, and begins when the first is done.

    Raises:
        LoadError: the repository is not here, or has parts that are not supported.
        SettingsError: the entry's options are wrong.
    """

    max_concurrency = 2

    def __init__(self, model: Model, context: Context) -> None:
        self._turn = Lock()
        options = options_of(model, EmbedOptions)
        loader = Loader(model, context, options)
        self._layout = layout_of(loader.repository, options)
        repository = loader.repository
        if self._layout.folder:
            loader.repository = Repository(repository.name, repository.folder / self._layout.folder)
        self._reader = _reader(loader, self._layout, options)
        self._finish = Finish(repository, self._layout, loader.device)
        shelf = _shelf(loader, self._layout, context)
        self._runtime = Choice(loader, options, self._reader, self._finish, shelf).best()
        gc.collect()  # a model that was traced refers to itself: its float32 would be kept beside what it became
        self._piece = piece(model.batch_tokens, loader.device)
        (vector,) = self._vectors(self._reader.read(("a",), truncate=True), [0], None)
        self._dimensions = len(vector) // 4

    def embed(self, request: EmbedRequest) -> Iterator[Embedding]:
        """Yield one embedding for each input, in order; the shortest inputs are computed first.

        Raises:
            InvalidInputError: an input is too long or empty, or the model has no such `dimensions` or `input_type`.
        """
        dimensions = self._cut(request.dimensions)
        prompt = prompt_for(request.input_type, self._layout.prompts, self._layout.default_prompt)
        read = self._reader.read(request.inputs, prompt, truncate=request.truncate)
        yield from in_order(self._embeddings(read, dimensions))

    def close(self) -> None:
        """Let go of the weights."""
        del self._runtime, self._finish

    def _embeddings(self, read: Read, dimensions: int | None) -> Iterator[tuple[int, Embedding]]:
        for group in groups([len(ids) for ids in read.ids], self._piece):
            for place, vector in zip(group, self._vectors(read, group, dimensions), strict=True):
                yield place, Embedding(index=place, vector=vector, tokens=len(read.ids[place]))

    def _vectors(self, read: Read, group: list[int], dimensions: int | None) -> list[bytes]:
        ids, mask = self._reader.padded([read.ids[place] for place in group])
        skip = None if self._layout.include_prompt else [read.prompted[place] for place in group]
        with self._turn, torch.inference_mode():
            hidden = self._runtime.hidden(ids, mask)
            found = self._finish(hidden, torch.from_numpy(mask), dimensions, skip)
        rows = found.cpu().numpy().astype("<f4", copy=False)
        return [row.tobytes() for row in rows]

    def _cut(self, wanted: int | None) -> int | None:
        """Return the length of the vectors, None if they are not cut."""
        full, allowed = self._dimensions, self._layout.matryoshka
        if wanted is None or wanted == full:
            return self._layout.cut if wanted is None else None
        if 0 < wanted < full and (allowed is True or (allowed and wanted in allowed)):
            return wanted
        lengths = f"up to {full}" if allowed is True else ", ".join(map(str, sorted({*(allowed or ()), full})))
        message = f"Invalid 'dimensions': the model cannot make vectors of {wanted} dimensions, only of {lengths}."
        raise InvalidInputError(message, param="dimensions")


def _reader(loader: Loader, layout: Layout, options: EmbedOptions) -> Reader:
    tokenizer: Any = loader.part(transformers.AutoTokenizer)
    limit = token_limit(loader.config, tokenizer, options.max_tokens or layout.max_tokens)
    text = loader.config.get("text_config") or loader.config
    vocabulary = min(len(tokenizer), text.get("vocab_size") or len(tokenizer))
    return Reader(tokenizer, limit, vocabulary, lower_case=layout.lower_case)


def _shelf(loader: Loader, layout: Layout, context: Context) -> Shelf:
    options = loader.options
    settings = (layout, options.architecture, options.attn_implementation, fast_bfloat16())
    return Shelf(context.data_dir / "hf-generic" / "embedding", loader.repository, *settings)
