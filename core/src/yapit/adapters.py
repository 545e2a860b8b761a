"""What a plugin returns from a task hook: a loaded model behind one method, of either colour.

Write `def` with `yield` if the adapter computes, `async def` with `yield` if it waits. Closing the iterator cancels:
`GeneratorExit` (or `CancelledError`) reaches the adapter's `finally`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from yapit.errors import SettingsError
from yapit.schemas import (
    AudioChunk,
    Classification,
    ClassifyRequest,
    Embedding,
    EmbedRequest,
    GenerateRequest,
    ProvisionRequest,
    ProvisionState,
    RerankRequest,
    Score,
    Segment,
    SynthesizeRequest,
    TextChunk,
    TranscribeRequest,
)

SettingsT = TypeVar("SettingsT")


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Where an adapter finds itself: its device, a folder it may write to, and its plugin's settings."""

    device: str = "auto"
    data_dir: Path = Path("data")
    plugin_settings: Mapping[str, Mapping[str, Any]] = {}

    def settings(self, plugin: str, kind: type[SettingsT]) -> SettingsT:
        """Return the section `plugin_settings.<plugin>` of yapit.yaml decoded as `kind`, a msgspec struct.

        Raises:
            SettingsError: a key is unknown or a value does not fit, with its path.
        """
        try:
            return msgspec.convert(self.plugin_settings.get(plugin, {}), kind)
        except msgspec.ValidationError as error:
            raise SettingsError(f"plugin_settings.{plugin}: {error}") from error


class Adapter(ABC):
    """A loaded model. The constructor loads, `close` frees.

    `max_concurrency` says how many calls may run at once; with 1 every call comes on the same thread.
    """

    task: ClassVar[str]
    max_concurrency: int = 1

    def close(self) -> None:  # noqa: B027 - most adapters have nothing to free
        """Give back what the constructor took; called once, when no call runs."""


class Synthesizer(Adapter):
    """Speaks."""

    task = "synthesize"

    @abstractmethod
    def synthesize(self, request: SynthesizeRequest) -> Iterator[AudioChunk] | AsyncIterator[AudioChunk]:
        """Yield the speech of `request.text`, each chunk as soon as it is there."""


class Transcriber(Adapter):
    """Listens."""

    task = "transcribe"

    @abstractmethod
    def transcribe(self, request: TranscribeRequest) -> Iterator[Segment] | AsyncIterator[Segment]:
        """Yield the segments of the transcript in order of time."""


class Embedder(Adapter):
    """Turns texts into vectors."""

    task = "embed"

    @abstractmethod
    def embed(self, request: EmbedRequest) -> Iterator[Embedding] | AsyncIterator[Embedding]:
        """Yield one embedding for each input, in order."""


class TextGenerator(Adapter):
    """Writes."""

    task = "generate"

    @abstractmethod
    def generate(self, request: GenerateRequest) -> Iterator[TextChunk] | AsyncIterator[TextChunk]:
        """Yield the text as it is decoded; the last chunk has the finish reason and the usage."""


class Reranker(Adapter):
    """Scores documents against queries."""

    task = "rerank"

    @abstractmethod
    def rerank(self, request: RerankRequest) -> Iterator[Score] | AsyncIterator[Score]:
        """Yield one score for each pair, in order."""


class Classifier(Adapter):
    """Labels texts or images."""

    task = "classify"

    @abstractmethod
    def classify(self, request: ClassifyRequest) -> Iterator[Classification] | AsyncIterator[Classification]:
        """Yield the labels of each text, or of each image, in order."""


class Provisioner(Adapter):
    """Brings a model to a wanted state somewhere: weights on this machine, an endpoint in a cloud."""

    task = "provision"

    @abstractmethod
    def provision(self, request: ProvisionRequest) -> Iterator[ProvisionState] | AsyncIterator[ProvisionState]:
        """Yield each state passed through; applying twice changes nothing the second time."""
