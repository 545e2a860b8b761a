"""`/v1/audio/transcriptions` and `/v1/audio/translations`: a recording in; JSON, text, subtitles or events out."""

import binascii
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, BinaryIO, Generic

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from msgspec import UNSET, Struct, UnsetType

from yapit.catalog import Model
from yapit.errors import InvalidInputError, YapitError
from yapit.schemas import TranscribeRequest
from yapit.server.listening.bodies import (
    BodyT,
    InputAudio,
    TranscriptionBody,
    TranslationBody,
    form_of,
    from_form,
    from_json,
    granularities_of,
    request_of,
)
from yapit.server.listening.documented import TranscriptionOperation, TranslationOperation
from yapit.server.problems import PROBLEMS, envelope, spelled
from yapit.server.requests import keep_loaded
from yapit.server.responses import ChunkedResponse, sse
from yapit.server.services import Services, services
from yapit.server.uploads import Body, Limit, off_loop, read_bytes, read_form, refuse
from yapit.tasks import TRANSCRIBE
from yapit.tickets import current
from yapit.transcription import Transcription, recording
from yapit.transcription.shapes import (
    Form,
    Granularity,
    Logprob,
    PlainTranscript,
    Tokens,
    VerboseTranscript,
    logprobs,
    token_usage,
    written,
)

_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_MEDIA: dict[Form, str] = {"json": _JSON, "verbose_json": _JSON, "text": _TEXT, "srt": _TEXT, "vtt": _TEXT}
_STREAMED_FORMS: set[Form] = {
    "json",
    "text",
}  # the others come whole whatever `stream` says, as OpenAI's whisper-1 does
_STREAMED = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
_SETTING = "transcription.max_upload_bytes"
_NAMES = {"pcm": "file", "path": "file"}
_encode = msgspec.json.Encoder().encode


class TextDelta(Struct, frozen=True, kw_only=True, tag="transcript.text.delta"):
    """An event: how the text goes on."""

    delta: str
    logprobs: list[Logprob] | UnsetType = UNSET


class TextDone(Struct, frozen=True, kw_only=True, tag="transcript.text.done"):
    """The last event: the whole text."""

    text: str
    logprobs: list[Logprob] | UnsetType = UNSET
    usage: Tokens


class _Wanted(Struct, frozen=True, kw_only=True):
    """A request that has been understood."""

    model: Model
    request: TranscribeRequest
    form: Form
    granularities: list[Granularity]
    stream: bool
    source: BinaryIO | bytes
    param: str  # what the client calls the recording


class _Listening(Generic[BodyT]):
    """Reads the upload and answers it, all of it in the request's own task: what is opened here is closed here."""

    def __init__(self, parts: Services, kind: type[BodyT]) -> None:
        self._parts = parts
        self._kind = kind

    async def __call__(self, scope: Scope | HTTPScope, receive: Receive, send: Send) -> None:
        body = Body(scope, receive)
        async with AsyncExitStack() as stack:
            try:
                wanted = await self._read(body, stack)
            except YapitError as error:
                if body.ended:
                    raise
                await refuse(error, body, scope, receive, send)
                return
            await self._respond(wanted)(scope, receive, send)

    async def _read(self, body: Body, stack: AsyncExitStack) -> _Wanted:
        """Return what is wanted; the file lasts as long as `stack`."""
        limit = Limit(max_bytes=self._parts.settings.transcription.max_upload_bytes, setting=_SETTING)
        if body.content_type == "multipart/form-data":
            form = await stack.enter_async_context(read_form(body, limit, check=self._check))
            asked, source, param = from_form(form.fields, self._kind), form.file, "file"
        else:
            data = await read_bytes(body, limit, "input_audio")
            asked, param = from_json(data, self._kind), "input_audio"
            source = None if asked.input_audio is None else await off_loop(_decoded, asked.input_audio)
            if isinstance(source, bytes):
                limit.check(len(source), param)
        if source is None:
            message = f"Missing required parameter: '{param}'."
            raise InvalidInputError(message, param=param, code="missing_required_parameter")
        return self._understood(asked, source, param)

    def _check(self, name: str, value: str) -> None:
        if name == "model" and value:
            self._model(value)

    def _model(self, name: str) -> Model:
        model = self._parts.engine.catalog[name]
        self._parts.engine.check(TRANSCRIBE, model)
        return model

    def _understood(self, asked: TranslationBody, source: BinaryIO | bytes, param: str) -> _Wanted:
        wanted = _Wanted(
            model=self._model(asked.model),
            form=form_of(asked),
            granularities=granularities_of(asked),
            request=request_of(asked),
            stream=isinstance(asked, TranscriptionBody) and bool(asked.stream),
            source=source,
            param=param,
        )
        keep_loaded(asked.keep_alive)
        return wanted

    def _respond(self, wanted: _Wanted) -> ASGIApp:
        if wanted.stream and wanted.form in _STREAMED_FORMS:
            return ChunkedResponse(self._events(wanted), _same, "text/event-stream", _STREAMED, on_error=_error_event)
        return ChunkedResponse(self._whole(wanted), _same, _MEDIA[wanted.form], whole=True)

    async def _whole(self, wanted: _Wanted) -> AsyncGenerator[bytes, None]:
        async with self._transcribing(wanted) as transcription:
            yield written(await transcription.complete(), wanted.form, wanted.granularities)

    async def _events(self, wanted: _Wanted) -> AsyncGenerator[bytes, None]:
        tell = wanted.request.logprobs
        async with self._transcribing(wanted) as transcription:
            flow = _Flow()
            async with aclosing(transcription.segments()) as segments:
                async for segment in segments:
                    if delta := flow.more(segment.text):
                        tokens = logprobs(segment.token_logprobs) if tell else UNSET
                        yield sse(_encode(TextDelta(delta=delta, logprobs=tokens)))
            found = transcription.transcript
            tokens = logprobs(found.logprobs) if tell else UNSET
            yield sse(_encode(TextDone(text=found.text, logprobs=tokens, usage=token_usage(found))))

    @asynccontextmanager
    async def _transcribing(self, wanted: _Wanted) -> AsyncIterator[Transcription]:
        """Decode the recording, and give it the time that it may take."""
        chosen = self._parts.settings.transcription
        ticket = current()

        def tell(duration_s: float) -> None:
            if (timeout_s := chosen.timeout_s(duration_s)) is not None:
                ticket.within(timeout_s)

        subject = f"Invalid '{wanted.param}'"
        async with recording(
            wanted.source, max_audio_s=chosen.max_audio_s, param=wanted.param, subject=subject, tell=tell
        ) as heard:
            with spelled(_NAMES):
                yield Transcription(self._parts.engine, wanted.model, wanted.request, heard)


class _Flow:
    """Makes pieces that together are the text without the white space around it."""

    def __init__(self) -> None:
        self._begun = False
        self._held = ""  # white space that may be the last

    def more(self, text: str) -> str:
        """Return how the text goes on; it may be that nothing is known of it yet."""
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        piece = text.rstrip()
        self._held = text[len(piece) :]
        self._begun = self._begun or bool(piece)
        return piece


def _decoded(audio: InputAudio) -> bytes:
    """Return the file that base64 or a data URL holds."""
    data = audio.data
    if data[:5].casefold() == "data:":
        data = data.partition(",")[2]
    try:
        return b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("Invalid 'input_audio.data': it is not base64.", param="input_audio.data") from error


def _same(body: bytes) -> bytes:
    return body


def _error_event(error: YapitError) -> bytes:
    return sse(_encode(envelope(error)))


_ANSWERS = {
    200: ResponseSpec(PlainTranscript | VerboseTranscript, description="JSON, text, subtitles or events."),  # type: ignore[arg-type]  # Litestar takes unions
    **PROBLEMS,
}


@post(
    ["/v1/audio/transcriptions", "/audio/transcriptions"],
    status_code=200,
    responses=_ANSWERS,
    operation_class=TranscriptionOperation,
    tags=["audio"],
)
async def create_transcription(request: Request[Any, Any, Any]) -> ASGIApp:
    """Write down what is said in a recording."""
    return _Listening(services(request), TranscriptionBody)


@post(
    ["/v1/audio/translations", "/audio/translations"],
    status_code=200,
    responses=_ANSWERS,
    operation_class=TranslationOperation,
    tags=["audio"],
)
async def create_translation(request: Request[Any, Any, Any]) -> ASGIApp:
    """Write down in English what is said in a recording."""
    return _Listening(services(request), TranslationBody)


ROUTES: list[HTTPRouteHandler] = [create_transcription, create_translation]
