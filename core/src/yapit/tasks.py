"""The table of tasks. A further task is one row here, one ABC, one hookspec, two structs and one route module."""

from msgspec import Struct

from yapit import adapters, schemas


class Task(Struct, frozen=True):
    """What the core knows of a task; its name is also the hook's and the adapter method's."""

    name: str
    request: type[schemas.Request]
    chunk: type[schemas.Chunk]
    adapter: type[adapters.Adapter]


SYNTHESIZE = Task("synthesize", schemas.SynthesizeRequest, schemas.AudioChunk, adapters.Synthesizer)
TRANSCRIBE = Task("transcribe", schemas.TranscribeRequest, schemas.Segment, adapters.Transcriber)
EMBED = Task("embed", schemas.EmbedRequest, schemas.Embedding, adapters.Embedder)
GENERATE = Task("generate", schemas.GenerateRequest, schemas.TextChunk, adapters.TextGenerator)
RERANK = Task("rerank", schemas.RerankRequest, schemas.Score, adapters.Reranker)
CLASSIFY = Task("classify", schemas.ClassifyRequest, schemas.Classification, adapters.Classifier)
PROVISION = Task("provision", schemas.ProvisionRequest, schemas.ProvisionState, adapters.Provisioner)

TASKS: dict[str, Task] = {
    task.name: task for task in (SYNTHESIZE, TRANSCRIBE, EMBED, GENERATE, RERANK, CLASSIFY, PROVISION)
}
