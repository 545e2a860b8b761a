"""espeak-ng behind the one method of a synthesizer."""

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from yapit import AudioChunk, InvalidInputError, Model, Synthesizer, SynthesizeRequest
from yapit_plugin_espeak.engine import Speech, shared_engine
from yapit_plugin_espeak.library import NORMAL_WORDS_PER_MINUTE, SAMPLE_RATE
from yapit_plugin_espeak.pieces import Piece, cut, speakable, speakable_markup, without_tags
from yapit_plugin_espeak.words import WordTracker

# What the library would take beyond this is a path into its data folder, or out of it.
_VOICE = re.compile(r"[\w -]+(\+[\w -]+)?")
_FALLBACK_VOICE = "en-us"
# Sentences come out longer than asked for, 3 % at twice the speed and 7 % at four times: this much more is asked for.
_CATCH_UP = 0.035


class Options(Struct, frozen=True, kw_only=True):
    """What a request's `options`, or the catalog entry's, may set.

    Args:
        pitch: 0 to 99, 50 as the voice has it.
        volume: percent, 0 to 200.
        ssml: read the text as SSML. Refused unless the catalog entry's options say `allow_ssml: true`, which no
            request can say: the library's reader of markup is not safe from strangers, and a crash ends the process.
    """

    pitch: Annotated[int, Meta(ge=0, le=99)] = 50
    volume: Annotated[int, Meta(ge=0, le=200)] = 100
    ssml: bool = False


class EspeakSynthesizer(Synthesizer):
    """Speaks with espeak-ng; all adapters of a process share one engine, which takes their pieces of text in turn.

    Speeds are held to the entry's `speed_range`, and the rest is left to whoever calls. Below 80 words a minute the
    library does not go at all; above that, sentences are within 6 % of the length asked for, and pauses between them
    shrink faster than the speech.

    Raises:
        LoadError: the library or its data is missing or unusable.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._default_voice = model.voice(None) or _FALLBACK_VOICE
        self._engine = shared_engine()

    def synthesize(self, request: SynthesizeRequest) -> Iterator[AudioChunk]:
        """Yield the speech, the first 120 ms at once, then chunks of up to two seconds, with the words they complete.

        Raises:
            InvalidInputError: the voice is unknown or an option has a value that is refused.
        """
        options = self._options(request)
        voice = self._voice(request)
        if not request.text.strip():
            return
        words_per_minute = self._words_per_minute(request.speed)
        # Markup cannot be cut: an element may span all of it.
        pieces = [Piece(request.text, 0, end_pause=False)] if options.ssml else cut(request.text)
        samples = 0
        for piece in pieces:
            text = speakable_markup(piece.text) if options.ssml else speakable(piece.text)
            words = WordTracker(without_tags(text) if options.ssml else text, piece.offset, samples)
            speech = Speech(
                text=text,
                voice=voice,
                words_per_minute=words_per_minute,
                pitch=options.pitch,
                volume=options.volume,
                ssml=options.ssml,
                end_pause=piece.end_pause,
            )
            for sound in self._engine.speak(speech):
                samples += len(sound.pcm) // 2
                yield AudioChunk(pcm=sound.pcm, sample_rate=SAMPLE_RATE, words=words.hear(sound.marks))

    def _words_per_minute(self, speed: float) -> int:
        low, high = self._model.speed_range
        held = min(max(speed, low), high)
        return round(NORMAL_WORDS_PER_MINUTE * held * (1 + _CATCH_UP * (held - 1)))

    def _options(self, request: SynthesizeRequest) -> Options:
        try:
            options = msgspec.convert({**self._model.options, **request.options}, Options)
        except msgspec.ValidationError as error:
            _, _, param = str(error).rpartition("$.")
            raise InvalidInputError(str(error), param=param.rstrip("`")) from error
        if options.ssml and self._model.options.get("allow_ssml") is not True:
            message = f"The model '{self._model.id}' takes no SSML: its entry's options do not say `allow_ssml: true`."
            raise InvalidInputError(message, param="ssml")
        return options

    def _voice(self, request: SynthesizeRequest) -> str:
        voice = request.voice or self._voice_of_language(request.language)
        if not _VOICE.fullmatch(voice):
            raise InvalidInputError(f"espeak-ng has no voice '{voice}'.", param="voice")
        return voice

    def _voice_of_language(self, language: str | None) -> str:
        """Return the voice of a BCP 47 tag, or of what is left when subtags are dropped from its end; else the default.

        The default voice goes before others of its language.
        """
        tag = (language or "").casefold()
        while tag:
            fitting = [voice.id for voice in self._model.voices if tag in map(str.casefold, voice.languages)]
            if fitting:
                return self._default_voice if self._default_voice in fitting else fitting[0]
            tag = tag.rpartition("-")[0]
        return self._default_voice
