"""Labels of images by a network of which there is a state dict."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from yapit import Context, LoadError, Model
from yapit.computing import device_of
from yapit_plugin_hf_generic.classifying import ClassifyOptions
from yapit_plugin_hf_generic.seeing import ImageClassifier
from yapit_plugin_hf_generic.vision.architectures import Architecture, architectures, imagenet
from yapit_plugin_hf_generic.vision.networks import Network, fill, network_of, network_of_code
from yapit_plugin_hf_generic.vision.tensors import place_of, tensors_of

_KINDS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def state_dict_classifier(model: Model, context: Context, options: ClassifyOptions) -> ImageClassifier:
    """Return the adapter of a network that the options name.

    Raises:
        LoadError: they name none, its weights are not here, or they are another one's.
    """
    name = options.architecture
    if name is None:
        raise LoadError(f"The model '{model.id}' is a state dict: its options must name its 'architecture'.")
    network = Network(_network(model, context, options, name)).eval()
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    network.to(device_of(context.device), dtype)
    known = architectures().get(name, Architecture(file=""))
    prepare = Preparing(options.resize or known.resize, options.crop or known.crop, known)
    network.config = _config(model, options, _count(network, prepare))
    return ImageClassifier(model.id, prepare, network, context)


def _network(model: Model, context: Context, options: ClassifyOptions, name: str) -> torch.nn.Module:
    if options.hub_code is None:
        return network_of(name, tensors_of(model, place_of(model, context)))
    network = network_of_code(model, context, name, options.hub_code, options.hub_arguments)
    if model.source is not None:
        fill(name, network, tensors_of(model, place_of(model, context)))
    return network


def _count(network: Network, prepare: "Preparing") -> int:
    blank = prepare(images=[Image.new("RGB", (8, 8))], return_tensors="pt").to(network.device, network.dtype)
    with torch.inference_mode():
        return int(network(**blank).logits.shape[-1])


def _config(model: Model, options: ClassifyOptions, count: int) -> Any:
    labels = options.labels or (imagenet() if count == len(imagenet()) else tuple(map(str, range(count))))
    if len(labels) != count:
        raise LoadError(f"The model '{model.id}' has {count} classes; its options have {len(labels)} labels.")
    return transformers.PretrainedConfig(num_labels=count, id2label=dict(enumerate(labels)))


class Preparing:
    """Makes images into what a network of torchvision reads.

    Args:
        resize: pixels of the shorter side.
        crop: pixels of the square that is cut out of the middle.
        known: how they are resized, and the colours' mean and deviation.
    """

    def __init__(self, resize: int, crop: int, known: Architecture) -> None:
        self._resize, self._crop = max(resize, crop), crop
        self._kind = _KINDS[known.interpolation]
        self._mean, self._std = np.array(known.mean, np.float32), np.array(known.std, np.float32)

    def __call__(self, images: Sequence[Image.Image], return_tensors: str) -> transformers.BatchFeature:
        """Return the images' pixels: images by colours by height by width."""
        pixels = np.stack([self._pixels(image) for image in images])
        return transformers.BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def _pixels(self, image: Image.Image) -> Any:
        width, height = image.size
        scale = self._resize / min(width, height)
        # As torchvision rounds: down.
        size = (max(self._resize, int(width * scale)), max(self._resize, int(height * scale)))
        resized = image.resize(size, self._kind)
        left, top = (round((side - self._crop) / 2) for side in size)
        cut = resized.crop((left, top, left + self._crop, top + self._crop))
        scaled = (np.asarray(cut, dtype=np.float32) / np.float32(255) - self._mean) / self._std
        return scaled.transpose(2, 0, 1)
