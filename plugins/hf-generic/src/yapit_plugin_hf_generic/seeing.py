"""Models that label images: with their own labels, or with any that are put into words."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor

from yapit import Classification, Classifier, ClassifyRequest, Context, InvalidInputError
from yapit_plugin_hf_generic.classifying import best_first, in_template, own, probabilities
from yapit_plugin_hf_generic.loading import Loader
from yapit_plugin_hf_generic.options import settings_of
from yapit_plugin_hf_generic.pictures import opened

_AT_ONCE = 8  # images; more of them gain nothing on a CPU, and each takes megabytes
_TEMPLATE = "This is a photo of {}."
_SIGLIP_TOKENS = 64  # it was trained with texts padded to this


class _Watcher(Classifier):
    """Labels images, a few at a time."""

    def __init__(self, name: str, processor: Any, model: Any, context: Context) -> None:
        self.id = name
        self._processor = processor
        self.model = model
        self._max_bytes = settings_of(context).max_image_bytes

    def classify(self, request: ClassifyRequest) -> Iterator[Classification]:
        """Yield the labels of each image, in order.

        Raises:
            InvalidInputError: an image is refused, or the model cannot do with the request's labels.
        """
        if request.texts:
            raise InvalidInputError(f"The model '{self.id}' labels images, not texts.", param="texts")
        settings = self.prepared(request)
        for first in range(0, len(request.images), _AT_ONCE):
            files = request.images[first : first + _AT_ONCE]
            images = [opened(data, f"images[{first + n}]", self._max_bytes) for n, data in enumerate(files)]
            pixels = self._processor(images=images, return_tensors="pt").to(self.model.device, self.model.dtype)
            with torch.inference_mode():
                rows = self.scores(self.model(**pixels, **settings), multi_label=request.multi_label).cpu()
            for place, row in enumerate(rows, first):
                yield Classification(index=place, scores=best_first(request.labels or own(self.model.config), row))

    def close(self) -> None:
        """Let go of the weights."""
        del self.model

    @abstractmethod
    def prepared(self, request: ClassifyRequest) -> dict[str, Any]:
        """Return what else the model reads; raise `InvalidInputError` if it cannot do with the request's labels."""

    @abstractmethod
    def scores(self, output: Any, *, multi_label: bool) -> Tensor:
        """Return the scores of the labels, a row for each image."""


class ImageClassifier(_Watcher):
    """Labels images with the model's own labels."""

    @classmethod
    def of(cls, loader: Loader, context: Context) -> "ImageClassifier":
        """Return the adapter of a repository's model."""
        model = loader.weights(transformers.AutoModelForImageClassification)
        return cls(loader.model.id, _processor(loader), model, context)

    def prepared(self, request: ClassifyRequest) -> dict[str, Any]:
        """Return nothing; raise `InvalidInputError` if the request has labels."""
        if request.labels:
            message = f"The model '{self.id}' has labels of its own, and takes no others."
            raise InvalidInputError(message, param="labels")
        return {}

    def scores(self, output: Any, *, multi_label: bool) -> Tensor:
        """Return the scores of the labels."""
        rows = output.logits.float()
        return torch.stack([probabilities(row, self.model.config, multi_label=multi_label) for row in rows])


class AnyLabelImageClassifier(_Watcher):
    """Labels images with the request's labels."""

    def __init__(self, loader: Loader, context: Context, template: str | None) -> None:
        model = loader.weights(transformers.AutoModelForZeroShotImageClassification)
        super().__init__(loader.model.id, _processor(loader), model, context)
        self._tokenizer: Any = loader.part(transformers.AutoTokenizer)
        self._template = template or _TEMPLATE
        self._siglip = "siglip" in self.model.config.model_type

    def prepared(self, request: ClassifyRequest) -> dict[str, Any]:
        """Return the labels as tokens; raise `InvalidInputError` if there are none."""
        if not request.labels:
            message = f"The model '{self.id}' has no labels of its own: the request must bring them."
            raise InvalidInputError(message, param="labels")
        sentences = in_template(request.labels, request.hypothesis_template or self._template)
        how: dict[str, Any] = {"padding": True, "truncation": True, "max_length": self._room()}
        if self._siglip:
            how |= {"padding": "max_length", "max_length": _SIGLIP_TOKENS}
        return {**self._tokenizer(sentences, return_tensors="pt", **how).to(self.model.device)}

    def scores(self, output: Any, *, multi_label: bool) -> Tensor:  # noqa: ARG002 - that is in how it was trained
        """Return the scores of the labels: each by itself where the model was trained so, else together 1."""
        rows: Tensor = output.logits_per_image.float()
        return rows.sigmoid() if self._siglip else rows.softmax(1)

    def _room(self) -> int:
        return int(self.model.config.get_text_config().max_position_embeddings)


def _processor(loader: Loader) -> Any:
    # The other backend needs torchvision, and differs from the one that models were trained with.
    return loader.part(transformers.AutoImageProcessor, backend="pil")
