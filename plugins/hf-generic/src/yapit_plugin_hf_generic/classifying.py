"""Models that label texts: with their own labels, or with any, if they can tell what follows from a text."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
import transformers
from msgspec import Meta, field
from torch import Tensor
from transformers.models.auto import modeling_auto

from yapit import Classification, Classifier, ClassifyRequest, Context, InvalidInputError, Model
from yapit_plugin_hf_generic.grouping import in_order
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import Options, options_of
from yapit_plugin_hf_generic.scoring import Scorer
from yapit_plugin_hf_generic.vision.architectures import is_bare_model

_TEMPLATE = "This example is {}."


class ClassifyOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model that classifies may be told, besides what every one may.

    Args:
        max_tokens: a text may have; as the repository says when None.
        hypothesis_template: for requests with labels of their own; the sentence in which they are put for `{}`.
        labels: of a state dict's classes, in their order; ImageNet's for a thousand, else numbers, when empty.
        resize: pixels of an image's shorter side for a state dict; as torchvision has it when None.
        crop: pixels of the square that is cut out of it, likewise.
        hub_code: `owner/repository:revision` on GitHub, or a folder, whose `hubconf.py` makes the network.
        hub_arguments: of the function there that has the name of the architecture.
    """

    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    hypothesis_template: str | None = None
    labels: tuple[str, ...] = ()
    resize: Annotated[int, Meta(ge=1, le=4096)] | None = None
    crop: Annotated[int, Meta(ge=1, le=4096)] | None = None
    hub_code: str | None = None
    hub_arguments: dict[str, Any] = field(default_factory=dict)


def classifier(model: Model, context: Context) -> Classifier:
    """Return the adapter of the model's kind: for texts, for images, or for images with any labels.

    Raises:
        LoadError: it cannot be loaded.
        SettingsError: the entry's options are wrong.
    """
    options = options_of(model, ClassifyOptions)
    if is_bare_model(model):
        from yapit_plugin_hf_generic.vision.labelling import state_dict_classifier

        return state_dict_classifier(model, context, options)
    loader = Loader(model, context, options)
    names = [options.architecture] if options.architecture else loader.config.get("architectures") or [""]
    if str(names[0]).endswith("ForImageClassification"):
        from yapit_plugin_hf_generic.seeing import ImageClassifier

        return ImageClassifier.of(loader, context)
    if loader.config.get("model_type") in modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        from yapit_plugin_hf_generic.seeing import AnyLabelImageClassifier

        return AnyLabelImageClassifier(loader, context, options.hypothesis_template)
    return TextClassifier(loader, model, options)


class TextClassifier(Classifier):
    """Labels texts."""

    def __init__(self, loader: Loader, model: Model, options: ClassifyOptions) -> None:
        self._id = model.id
        self._scorer = Scorer(loader, model, transformers.AutoModelForSequenceClassification, options.max_tokens)
        self._template = options.hypothesis_template or _TEMPLATE
        self._entailment = _entailment(self._scorer.model.config)

    def classify(self, request: ClassifyRequest) -> Iterator[Classification]:
        """Yield the labels of each text, in order.

        Raises:
            InvalidInputError: a text is too long, or the model cannot do with the request's labels.
        """
        if request.images:
            raise InvalidInputError(f"The model '{self._id}' labels texts, not images.", param="images")
        found = self._any_labels(request) if request.labels else in_order(self._own_labels(request))
        yield from found

    def close(self) -> None:
        """Let go of the weights."""
        del self._scorer

    def _own_labels(self, request: ClassifyRequest) -> Iterator[tuple[int, Classification]]:
        encoded = self._scorer.encode(request.texts)
        lengths = [len(each["input_ids"]) for each in encoded]
        for place, length in enumerate(lengths):
            self._scorer.check(f"texts[{place}]", length)
        config = self._scorer.model.config
        for place, logits in self._scorer.logits(encoded):
            scores = probabilities(logits, config, multi_label=request.multi_label)
            yield place, Classification(index=place, scores=best_first(own(config), scores), tokens=lengths[place])

    def _any_labels(self, request: ClassifyRequest) -> Iterator[Classification]:
        if self._entailment is None:
            message = f"The model '{self._id}' has labels of its own, and takes no others."
            raise InvalidInputError(message, param="labels")
        hypotheses = in_template(request.labels, request.hypothesis_template or self._template)
        count = len(hypotheses)
        encoded = self._scorer.encode(
            [text for text in request.texts for _ in hypotheses], hypotheses * len(request.texts)
        )
        lengths = [len(each["input_ids"]) for each in encoded]
        for place, length in enumerate(lengths):
            self._scorer.check(f"texts[{place // count}]", length)
        rows: list[Tensor] = []
        for place, logits in enumerate(in_order(self._scorer.logits(encoded))):
            rows.append(logits)
            if len(rows) == count:
                index = place // count
                scores = self._entailed(torch.stack(rows), multi_label=request.multi_label)
                tokens = sum(lengths[index * count : place + 1])
                yield Classification(index=index, scores=best_first(request.labels, scores), tokens=tokens)
                rows = []

    def _entailed(self, logits: Tensor, *, multi_label: bool) -> Tensor:
        """Return the score of each label, as transformers does: against the others, or against its contradiction."""
        if multi_label or len(logits) == 1:
            contradiction = -1 if self._entailment == 0 else 0
            return logits[:, [contradiction, self._entailment]].softmax(1)[:, 1]
        return logits[:, self._entailment].softmax(0)


def probabilities(logits: Tensor, config: Any, *, multi_label: bool) -> Tensor:
    """Return the scores of a model's own labels, as transformers does."""
    if config.problem_type == "regression":
        return logits
    if multi_label or config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(0)


def in_template(labels: Sequence[str], template: str) -> list[str]:
    """Return the template with each label in place of its `{}`.

    Raises:
        InvalidInputError: it has no place for a label.
    """
    if "{}" not in template:
        message = "Invalid 'hypothesis_template': it has no '{}' for a label."
        raise InvalidInputError(message, param="hypothesis_template")
    return [template.replace("{}", label) for label in labels]


def own(config: Any) -> list[str]:
    """Return a model's own labels in the order of its logits, which need not be that of the file."""
    return [config.id2label[number] for number in range(config.num_labels)]


def best_first(labels: Sequence[str], scores: Tensor) -> tuple[tuple[str, float], ...]:
    """Return the labels with their scores."""
    return tuple(sorted(zip(labels, scores.tolist(), strict=True), key=lambda pair: -pair[1]))


def _entailment(config: Any) -> int | None:
    """Return the number of the label that says that something follows, None for a model without one."""
    return next((number for label, number in config.label2id.items() if label.lower().startswith("entail")), None)
