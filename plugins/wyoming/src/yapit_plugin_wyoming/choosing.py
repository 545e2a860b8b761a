"""Which model and which voice a client means, and what it is told that there are."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from msgspec import Struct
from wyoming.info import AsrModel, AsrProgram, Attribution, Info, TtsProgram, TtsVoice

from yapit import InvalidInputError, Model, SettingsError, YapitError, __version__
from yapit.errors import UnsupportedTaskError
from yapit_plugin_wyoming.options import Service, WyomingSettings

if TYPE_CHECKING:
    from yapit.server.services import Services

_HOME = Attribution(name="yapit", url="https://pypi.org/project/yapit/")
_SPEAK, _LISTEN = "synthesize", "transcribe"
_USUAL = {_SPEAK: "tts-1", _LISTEN: "whisper-1"}  # what these names stand for is the default of HTTP, too


class VoiceWish(Struct, frozen=True, kw_only=True):
    """A voice as a client names it."""

    name: str | None = None
    language: str | None = None
    speaker: str | None = None


class Speaker(Struct, frozen=True, kw_only=True):
    """A model and its voice; without one, it takes a voice of the language."""

    model: Model
    voice: str | None
    language: str | None = None


class Choices:
    """The models that can be chosen.

    Args:
        parts: of the server.
        chosen: the defaults.

    Raises:
        SettingsError: a default names what is not there.
    """

    def __init__(self, parts: "Services", chosen: WyomingSettings) -> None:
        self._parts = parts
        self._catalog = parts.engine.catalog
        self._chosen = chosen
        for setting, task in (("speech_model", _SPEAK), ("transcription_model", _LISTEN)):
            name = getattr(chosen, setting)
            try:
                if name is not None:
                    self._able(name, task)
                if setting == "speech_model" and chosen.voice is not None:
                    self.speaker(None)
            except YapitError as error:
                wrong = setting if error.param == "model" else "voice"
                raise SettingsError(f"plugin_settings.wyoming.{wrong}: {error.message}") from error

    def speaker(self, wish: VoiceWish | None) -> Speaker:
        """Return who speaks: the voice `model/voice`, a model, a voice of the default model, or who has the language.

        Raises:
            InvalidInputError: there is no such voice; the message names near ones.
        """
        wish = wish or VoiceWish()
        if not wish.name and wish.language:
            model = self._for_language(_SPEAK, wish.language)
            return Speaker(
                model=model, voice=self._parts.voices.resolve(model, None, wish.language), language=wish.language
            )
        model, voice = self._named(wish.name) if wish.name else (self._default(_SPEAK), self._chosen.voice)
        voice = self._parts.voices.resolve(model, voice)
        if wish.speaker:
            if not model.voice_variants:
                message = f"The voices of the model '{model.id}' have no speakers."
                raise InvalidInputError(message, param="speaker")
            voice = model.voice(f"{voice}+{wish.speaker}")
        return Speaker(model=model, voice=voice)

    def listener(self, name: str | None, language: str | None) -> Model:
        """Return the model that listens: the one of that name, or else one for the language.

        Raises:
            ModelNotFoundError: there is none of that name.
            UnsupportedTaskError: it does not listen.
        """
        if name:
            return self._able(name, _LISTEN)
        return self._for_language(_LISTEN, language) if language else self._default(_LISTEN)

    def info(self, services: Iterable[Service]) -> Info:
        """Return what a client may choose.

        Home Assistant looks at the first program only: all models are in one.
        """
        asr, tts = [], []
        if "transcription" in services:
            models = [self._listed(model) for model in self._catalog.with_task(_LISTEN)]
            asr = [
                AsrProgram(
                    name="yapit",
                    attribution=_HOME,
                    installed=True,
                    description="yapit",
                    version=__version__,
                    models=models,
                    supports_transcript_streaming=True,
                )
            ]
        if "speech" in services:
            voices = list(chain.from_iterable(map(self._voices, self._catalog.with_task(_SPEAK))))
            tts = [
                TtsProgram(
                    name="yapit",
                    attribution=_HOME,
                    installed=True,
                    description="yapit",
                    version=__version__,
                    voices=voices,
                    supports_synthesize_streaming=True,
                )
            ]
        return Info(asr=asr, tts=tts)

    def _named(self, name: str) -> tuple[Model, str | None]:
        """Return the model of a name, and the voice that it names, if it does."""
        head, tail = name, ""
        while head:
            model = self._find(head)
            if model is not None:
                return model, tail or None
            head, _, end = head.rpartition("/")
            tail = f"{end}/{tail}" if tail else end
        return self._default(_SPEAK), name

    def _find(self, name: str) -> Model | None:
        try:
            return self._able(name, _SPEAK)
        except YapitError:
            return None

    def _able(self, name: str, task: str) -> Model:
        model = self._catalog[name]
        if task not in model.tasks:
            raise UnsupportedTaskError(f"The model '{model.id}' does not {task}.", param="model")
        return model

    def _default(self, task: str) -> Model:
        if not self._catalog.with_task(task):
            raise UnsupportedTaskError(f"No model here can {task}.", param="model")
        name = self._chosen.speech_model if task == _SPEAK else self._chosen.transcription_model
        return self._able(name or _USUAL[task], task)

    def _for_language(self, task: str, language: str) -> Model:
        """Return the default model, unless only others say that they have the language."""
        default = self._default(task)
        able = [
            default,
            *(model for model in self._catalog.with_task(task) if self._parts.engine.plugins.serves(model)),
        ]
        wanted = _primary(language)
        knowing = (model for model in able if wanted in {_primary(tag) for tag in _languages(model)})
        return next(knowing, default)

    def _voices(self, model: Model) -> Iterator[TtsVoice]:
        facts = self._listed(model)
        if not model.voices:
            yield TtsVoice(**{**vars(facts), "languages": list(_languages(model))})
        for voice in model.voices:
            yield TtsVoice(
                name=f"{model.id}/{voice.id}",
                attribution=facts.attribution,
                installed=facts.installed,
                # What Home Assistant shows in its list.
                description=f"{voice.name or voice.id} ({model.id})",
                version=facts.version,
                languages=list(voice.languages or model.languages),
            )

    def _listed(self, model: Model) -> AsrModel:
        plugins = self._parts.engine.plugins
        source = model.source or ""
        owner, slash, rest = source.partition("/")
        repository = bool(slash and owner and rest) and "/" not in rest and owner.strip(".") != ""
        return AsrModel(
            name=model.id,
            attribution=Attribution(name=owner, url=f"https://huggingface.co/{source}") if repository else _HOME,
            installed=plugins.serves(model),
            description=model.description or model.id,
            version=model.revision or plugins.version(plugins.owner(model)),
            languages=list(model.languages),
        )


def _languages(model: Model) -> list[str]:
    """Return the languages of a model and of its voices, each once."""
    return [*dict.fromkeys(chain(model.languages, *(voice.languages for voice in model.voices)))]


def _primary(tag: str) -> str:
    return tag.replace("_", "-").casefold().partition("-")[0]
