"""Models that score documents against queries: cross-encoders, and chat models that are asked for a yes or a no."""

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
import transformers
from msgspec import Meta

from yapit import Context, InvalidInputError, LoadError, Model, Reranker, RerankRequest, Score, SettingsError
from yapit_plugin_hf_generic.grouping import in_order
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import Options, options_of
from yapit_plugin_hf_generic.scoring import Encoded, Scorer

# As on the model card of Qwen3-Reranker.
_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_TEMPLATE = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_DOCUMENT = "{document}"


class RankOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model that ranks may be told, besides what every one may; all but the first two are for chat models.

    Args:
        max_tokens: a query and a document may have together; as the repository says when None.
        activation: what makes a relevance of a logit; as the repository says when None, else `sigmoid`.
        yes_token: the token that says a document is relevant.
        no_token: the one that says it is not.
        instruction: what makes a document relevant, for requests that do not say it.
        prefix: what goes before the question.
        template: the question; a document that is too long is cut, so that it must come last.
        suffix: what goes after it.
    """

    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    activation: Literal["sigmoid", "identity"] | None = None
    yes_token: str = "yes"  # noqa: S105 - no password
    no_token: str = "no"  # noqa: S105 - no password
    instruction: str = _INSTRUCTION
    prefix: str = _PREFIX
    template: str = _TEMPLATE
    suffix: str = _SUFFIX

    def __post_init__(self) -> None:
        if not self.template.endswith(_DOCUMENT) or "{query}" not in self.template:
            raise ValueError("the template must have a {query}, and end with the {document}")


def reranker(model: Model, context: Context) -> Reranker:
    """Return the adapter of the model's kind: a model that writes is asked, any other one scores pairs.

    Raises:
        LoadError: it cannot be loaded, or gives no score.
        SettingsError: the entry's options are wrong.
    """
    options = options_of(model, RankOptions)
    loader = Loader(model, context, options)
    names = [options.architecture] if options.architecture else loader.config.get("architectures") or [""]
    if str(names[0]).endswith(("ForCausalLM", "LMHeadModel")):
        return Judge(loader, model, options)
    return CrossEncoder(loader, model, options)


class CrossEncoder(Reranker):
    """Reads a query and a document at once, and has one label for how well they fit, or two for no and yes."""

    def __init__(self, loader: Loader, model: Model, options: RankOptions) -> None:
        self._scorer = Scorer(loader, model, transformers.AutoModelForSequenceClassification, options.max_tokens)
        labels = self._scorer.model.config.num_labels
        if labels not in (1, 2):
            raise LoadError(f"The model '{model.id}' cannot rank: it has {labels} labels, not one.")
        self._sigmoid = (options.activation or _activation(loader)) == "sigmoid"

    def rerank(self, request: RerankRequest) -> Iterator[Score]:
        """Yield one score for each pair, in order; documents that are too long are cut.

        Raises:
            InvalidInputError: a query leaves no room for a document.
        """
        encoded = self._encode(request)
        yield from in_order(self._scores(encoded, sigmoid=self._sigmoid and not request.raw_scores))

    def close(self) -> None:
        """Let go of the weights."""
        del self._scorer

    def _encode(self, request: RerankRequest) -> list[Encoded]:
        scorer = self._scorer
        special = scorer.tokenizer.num_special_tokens_to_add(pair=True)
        lengths = {query: scorer.count(query) for query in dict.fromkeys(query for query, _ in request.pairs)}
        for place, (query, _) in enumerate(request.pairs):
            # One token at least is the document's.
            scorer.check(f"pairs[{place}]", lengths[query], scorer.limit - special - 1)
        return scorer.encode(
            [query for query, _ in request.pairs],
            _documents(scorer, request),
            truncation="only_second",
            max_length=scorer.limit,
        )

    def _scores(self, encoded: list[Encoded], *, sigmoid: bool) -> Iterator[tuple[int, Score]]:
        for place, logits in self._scorer.logits(encoded):
            logit = logits[-1] - logits[0] if len(logits) > 1 else logits[0]
            relevance = float(torch.sigmoid(logit) if sigmoid else logit)
            yield place, Score(index=place, relevance=relevance, tokens=len(encoded[place]["input_ids"]))


class Judge(Reranker):
    """Asks a chat model, and compares the logits of its yes and its no."""

    def __init__(self, loader: Loader, model: Model, options: RankOptions) -> None:
        self._scorer = Scorer(loader, model, transformers.AutoModelForCausalLM, options.max_tokens)
        self._options = options
        self._answers = [self._token(options.no_token), self._token(options.yes_token)]
        self._prefix = self._ids(options.prefix)
        self._suffix = self._ids(options.suffix)
        # Only the last token is asked for, if the model can leave out the others: each has a logit for all tokens.
        takes = inspect.signature(self._scorer.model.forward).parameters
        self._settings = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        if "use_cache" in takes:
            self._settings["use_cache"] = False

    def rerank(self, request: RerankRequest) -> Iterator[Score]:
        """Yield one score for each pair, in order; documents that are too long are cut.

        Raises:
            InvalidInputError: a query leaves no room for a document.
        """
        yield from in_order(self._scores(self._encode(request), raw=request.raw_scores))

    def close(self) -> None:
        """Let go of the weights."""
        del self._scorer

    def _encode(self, request: RerankRequest) -> list[Encoded]:
        scorer = self._scorer
        room = scorer.limit - len(self._prefix) - len(self._suffix)
        instruction = self._options.instruction if request.instruction is None else request.instruction
        asked = self._options.template.removesuffix(_DOCUMENT).replace("{instruction}", instruction)
        heads = {query: asked.replace("{query}", query) for query in dict.fromkeys(query for query, _ in request.pairs)}
        lengths = {query: scorer.count(head) for query, head in heads.items()}
        for place, (query, _) in enumerate(request.pairs):
            scorer.check(f"pairs[{place}]", lengths[query], room - 1)
        documents = _documents(scorer, request)
        bodies = [heads[query] + document for (query, _), document in zip(request.pairs, documents, strict=True)]
        return [
            {"input_ids": [*self._prefix, *each["input_ids"][:room], *self._suffix]}
            for each in scorer.encode(bodies, add_special_tokens=False)
        ]

    def _scores(self, encoded: list[Encoded], *, raw: bool) -> Iterator[tuple[int, Score]]:
        for place, logits in self._scorer.logits(encoded, side="left", **self._settings):
            no, yes = logits[-1, self._answers]
            relevance = float(yes - no if raw else torch.sigmoid(yes - no))
            yield place, Score(index=place, relevance=relevance, tokens=len(encoded[place]["input_ids"]))

    def _token(self, text: str) -> int:
        ids = self._ids(text)
        if len(ids) != 1:
            raise SettingsError(f"options: '{text}' is not one token of this model, but {len(ids)}.")
        return ids[0]

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._scorer.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found


def _documents(scorer: Scorer, request: RerankRequest) -> list[str]:
    """Return the documents, cut if the request says so."""
    documents = [document for _, document in request.pairs]
    most = request.max_document_tokens
    if most is None:
        return documents
    if most < 1:
        message = "Invalid 'max_document_tokens': at least one token of a document must be read."
        raise InvalidInputError(message, param="max_document_tokens")
    return scorer.cut(documents, most)


def _activation(loader: Loader) -> str:
    """Return what the repository says; sentence-transformers has written it to three places so far."""
    config: dict[str, Any] = loader.config
    said = (
        (config.get("sentence_transformers") or {}).get("activation_fn")
        or config.get("sbert_ce_default_activation_function")
        or (loader.repository.json("config_sentence_transformers.json") or {}).get("activation_fn")
    )
    return "identity" if str(said).rpartition(".")[2] == "Identity" else "sigmoid"
