"""The table of tasks. A further task is one row here, one ABC, one hookspec, two structs and one route module."""

from msgspec import Struct

from yapit import adapters, schemas


class Task(Struct, frozen=True):
    """What the core knows of a task; its name is also the hook's and the adapter method's.

    `items` are the request's fields of which each item is answered by one chunk, which has its `index`: requests of
    several clients may be joined by them. `warm_up` is a small request that a model can be tried with.
    """

    name: str
    request: type[schemas.Request]
    chunk: type[schemas.Chunk]
    adapter: type[adapters.Adapter]
    items: tuple[str, ...] = ()
    warm_up: schemas.Request | None = None


SYNTHESIZE = Task(
    "synthesize",
    schemas.SynthesizeRequest,
    schemas.AudioChunk,
    adapters.Synthesizer,
    warm_up=schemas.SynthesizeRequest(text="Ready."),
)
TRANSCRIBE = Task(
    "transcribe",
    schemas.TranscribeRequest,
    schemas.Segment,
    adapters.Transcriber,
    warm_up=schemas.TranscribeRequest(pcm=bytes(32_000), sample_rate=16_000),
)
EMBED = Task(
    "embed",
    schemas.EmbedRequest,
    schemas.Embedding,
    adapters.Embedder,
    items=("inputs",),
    warm_up=schemas.EmbedRequest(inputs=("ready",)),
)
GENERATE = Task(
    "generate",
    schemas.GenerateRequest,
    schemas.TextChunk,
    adapters.TextGenerator,
    warm_up=schemas.GenerateRequest(messages=({"role": "user", "content": "Ready?"},), max_tokens=1, temperature=0.0),
)
RERANK = Task(
    "rerank",
    schemas.RerankRequest,
    schemas.Score,
    adapters.Reranker,
    items=("pairs",),
    warm_up=schemas.RerankRequest(pairs=(("ready", "ready"),)),
)
CLASSIFY = Task(
    "classify", schemas.ClassifyRequest, schemas.Classification, adapters.Classifier, items=("texts", "images")
)
PROVISION = Task("provision", schemas.ProvisionRequest, schemas.ProvisionState, adapters.Provisioner)

TASKS: dict[str, Task] = {
    task.name: task for task in (SYNTHESIZE, TRANSCRIBE, EMBED, GENERATE, RERANK, CLASSIFY, PROVISION)
}
