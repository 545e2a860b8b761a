"""What clients may ask of a recording, in a form or in JSON."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from yapit.errors import InvalidInputError
from yapit.schemas import TranscribeRequest, VoiceActivity
from yapit.transcription import SAMPLE_RATE, asked_languages, language_code
from yapit.transcription.shapes import Form, Granularity

Temperature = Annotated[float, Meta(ge=0, le=1)]
Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]
_LISTS = {
    "languages",
    "keywords",
    "include",
    "timestamp_granularities",
    "known_speaker_names",
    "known_speaker_references",
}
_NESTED = re.compile(r"(?P<base>\w+)\[(?P<key>\w*)\]")
_PLACE = re.compile(r"(.+?)(?: - at `\$\.?(.*)`)?")


class InputAudio(Struct, frozen=True, kw_only=True):
    """A file in base64, or as a data URL, as Open WebUI sends it; what it is its bytes say."""

    data: str
    format: str | None = None


class ServerVad(Struct, frozen=True, kw_only=True):
    """What counts as speech: from which probability on, and the milliseconds around it."""

    type: Literal["server_vad"]
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    prefix_padding_ms: Milliseconds = 300
    silence_duration_ms: Milliseconds = 200


class TranslationBody(Struct, frozen=True, kw_only=True):
    """What to listen to and what to answer; a null or an empty field counts as absent, an unknown one is ignored.

    Args:
        model: id or alias of a model that listens.
        input_audio: the recording, in JSON; a form has it as `file`.
        language: that is spoken.
        prompt: what was said before, or text in the style that is wanted.
        response_format: json when absent.
        temperature: 0 leaves it to the model.
        chunking_strategy: what counts as speech; everything is listened to when absent.
        options: the model's own parameters.
        keep_alive: how long the model stays loaded after this, when idle: seconds, or `10m`.
    """

    model: str
    input_audio: InputAudio | None = None
    language: str | None = None
    prompt: str | None = None
    response_format: Form | Literal["diarized_json"] | None = None
    temperature: Temperature | None = None
    chunking_strategy: ServerVad | Literal["auto"] | None = None
    options: dict[str, Any] | None = None
    keep_alive: str | float | None = None


class TranscriptionBody(TranslationBody, frozen=True, kw_only=True):
    """The same, and what is no use for a translation.

    Args:
        languages: that may be spoken.
        keywords: words that are likely.
        include: `logprobs`, with json.
        timestamp_granularities: what has times, with verbose_json.
        stream: answer with events, with json or text.
        known_speaker_names: refused: no model tells speakers apart.
        known_speaker_references: likewise.
    """

    languages: list[str] | None = None
    keywords: list[str] | None = None
    include: list[Literal["logprobs"]] | None = None
    timestamp_granularities: list[Granularity] | None = None
    stream: bool | None = None
    known_speaker_names: list[str] | None = None
    known_speaker_references: list[str] | None = None


BodyT = TypeVar("BodyT", bound=TranslationBody)


def form_of(body: TranslationBody) -> Form:
    """Return the form of the answer.

    Raises:
        InvalidInputError: only a model that tells speakers apart could give it.
    """
    if body.response_format == "diarized_json":
        message = "Invalid 'response_format': no model here tells speakers apart; 'diarized_json' is not supported."
        raise InvalidInputError(message, param="response_format", code="unsupported_value")
    return body.response_format or "json"


def granularities_of(body: TranslationBody) -> list[Granularity]:
    """Return what shall have times.

    Raises:
        InvalidInputError: the form of the answer has no place for it.
    """
    asked = (isinstance(body, TranscriptionBody) and body.timestamp_granularities) or []
    if "word" in asked and body.response_format != "verbose_json":
        message = "Invalid 'timestamp_granularities': words have times in 'verbose_json' only."
        raise InvalidInputError(message, param="timestamp_granularities")
    return asked


def request_of(body: TranslationBody) -> TranscribeRequest:
    """Return what the model is asked, without the recording.

    Raises:
        InvalidInputError: a field has a value that is refused, or does not go with another one.
    """
    own: dict[str, Any] = {"translate": True}
    if isinstance(body, TranscriptionBody):
        own = _own(body)
    strategy = body.chunking_strategy
    activity = VoiceActivity() if strategy == "auto" else None
    if isinstance(strategy, ServerVad):
        activity = VoiceActivity(**{name: getattr(strategy, name) for name in VoiceActivity.__struct_fields__})
    return TranscribeRequest(
        sample_rate=SAMPLE_RATE,
        language=language_code(body.language),
        prompt=body.prompt or None,
        # 0 is what OpenAI calls automatic: the model begins with the likeliest token and tries others where that fails.
        temperature=body.temperature or None,
        voice_activity=activity,
        options=body.options or {},
        **own,
    )


def _own(body: TranscriptionBody) -> dict[str, Any]:
    """Return what only a transcription has."""
    for name in ("known_speaker_names", "known_speaker_references"):
        if getattr(body, name):
            message = f"Invalid '{name}': no model here tells speakers apart."
            raise InvalidInputError(message, param=name, code="unsupported_value")
    if body.include and form_of(body) != "json":
        message = "Invalid 'include': 'logprobs' comes with 'response_format' 'json' only."
        raise InvalidInputError(message, param="include")
    return {
        "languages": asked_languages(body.languages or ()),
        "keywords": tuple(body.keywords or ()),
        "word_times": "word" in granularities_of(body),
        "logprobs": bool(body.include),
    }


def from_form(fields: Iterable[tuple[str, str]], kind: type[BodyT]) -> BodyT:
    """Return the body that a form says.

    A list is repeated as `name[]` or `name`, or is JSON; an object is JSON, or flattened as `name[key]`.

    Raises:
        InvalidInputError: a field has a value that is refused.
    """
    found: dict[str, Any] = {}
    for name, value in fields:
        if not value:
            continue
        match = _NESTED.fullmatch(name)
        base = match["base"] if match else name
        key = match["key"] if match else ""
        if base in _LISTS:
            found.setdefault(base, []).append(value)
        elif key:
            known = found.get(base)
            found[base] = {**(known if isinstance(known, dict) else {}), key: value}
        else:
            found[base] = value
    for name in _LISTS & found.keys():
        (first, *more) = found[name]
        if not more and first.lstrip().startswith("["):
            found[name] = _json(name, first)
    for name in ("options", "chunking_strategy"):
        text = found.get(name)
        if isinstance(text, str) and (name == "options" or text.lstrip().startswith(("{", '"'))):
            found[name] = _json(name, text)
    return converted(found, kind, strict=False)


def from_json(data: bytes, kind: type[BodyT]) -> BodyT:
    """Return the body that a JSON object says.

    Raises:
        InvalidInputError: it is no JSON, no object, or a field has a value that is refused.
    """
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"The body is neither a form (multipart/form-data) nor valid JSON: {error}."
        raise InvalidInputError(message, code="invalid_json") from error
    return converted(found, kind, strict=True)


def converted(found: object, kind: type[BodyT], *, strict: bool) -> BodyT:
    """Return the struct, or say in the client's words what is wrong."""
    if not isinstance(found, dict):
        raise InvalidInputError("The body is not the object that is expected here.", code="invalid_body")
    try:
        body = msgspec.convert(found, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise _refused(str(error), kind) from error
    for name in ("temperature", "keep_alive"):
        value = getattr(body, name)
        if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN alone is not itself
            raise InvalidInputError(f"Invalid '{name}': expected a finite number.", param=name)
    return body


def _refused(message: str, kind: type[Struct]) -> InvalidInputError:
    missing = re.search(r"missing required field `(\w+)`", message)
    match = _PLACE.fullmatch(message)
    what = str(match[1]) if match else message
    place = str((match and match[2]) or "")
    if missing:
        name = f"{place}.{missing[1]}".lstrip(".")
        return InvalidInputError(
            f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
        )
    place = re.sub(r"\[(\d+|\.\.\.)\]$", "", place)
    field = next((item for item in msgspec.structs.fields(kind) if item.name == place), None)
    allowed = _allowed(field.type) if field is not None else []
    if what.startswith("Invalid enum value") and allowed:
        what = f"{what}. Supported values are: {', '.join(map(repr, allowed))}"
    return InvalidInputError(f"{what} - at `{place}`", param=place)


def _allowed(kind: Any) -> list[str]:
    """Return the values of a type that takes a few."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [value for inner in get_args(kind) for value in _allowed(inner)]


def _json(name: str, value: str) -> Any:
    try:
        return msgspec.json.decode(value.encode())
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInputError(f"Invalid '{name}': it is not JSON: {error}.", param=name) from error
