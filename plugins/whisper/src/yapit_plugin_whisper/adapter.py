"""The adapter: a request is checked, and its recording is written down chapter by chapter."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

from yapit import Context, InvalidInputError, Lane, Model, Segment, Transcriber, TranscribeRequest
from yapit_plugin_whisper.algorithm import Algorithm
from yapit_plugin_whisper.chapters import Reader, Wanted
from yapit_plugin_whisper.engines.opening import Opener
from yapit_plugin_whisper.languages import code_of
from yapit_plugin_whisper.options import Knobs, knobs_of, options_of
from yapit_plugin_whisper.spelling import Speller

_LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_HOTTEST = 2.0
_LEARNED_ENGLISH_ONLY = ("distil-", "turbo")  # parts of names of models that were not taught to translate


class WhisperTranscriber(Transcriber):
    """Writes down speech with a Whisper: each segment as soon as its window is decoded.

    Its calls run one after the other on one thread. What nobody waits for any more stops before the next window, with
    transformers before the next layer.

    Raises:
        LoadError: the model cannot be loaded.
        SettingsError: the entry has an unknown option.
    """

    def __init__(self, model: Model, context: Context) -> None:
        self.model = model
        self._options = options_of(model)
        self._lane = Lane(f"listen-{model.id}")
        try:
            opener = Opener(model, context, self._options, self._lane.check)
            self.engine = opener.open()
            self.algorithm = Algorithm(opener.facts, self.engine)
        except BaseException:
            self._lane.close()
            raise
        self._speller = Speller(opener.facts.tokenizer)
        self._languages = list(self.engine.languages) or ["en"]

    async def transcribe(self, request: TranscribeRequest) -> AsyncIterator[Segment]:
        """Yield the segments; none where nobody speaks.

        Raises:
            InvalidInputError: a language, an option or the temperature is refused, or the model cannot translate.
        """
        wanted = self._wanted(request)
        async with aclosing(self._lane.stream(lambda: self._segments(request, wanted))) as segments:
            async for segment in segments:
                yield segment

    def close(self) -> None:
        """End the thread."""
        self._lane.close()

    def _segments(self, request: TranscribeRequest, wanted: Wanted) -> Iterator[Segment]:
        reader = Reader(self.algorithm, self._speller, self._options.chapter_s)
        return reader.read(request, wanted, self._lane.check)

    def _wanted(self, request: TranscribeRequest) -> Wanted:
        knobs = knobs_of(self.model, request.options)
        if request.logprobs and knobs.batched:
            message = "The log-probabilities of tokens are not known where stretches are decoded together."
            raise InvalidInputError(message, param="include")
        language, languages = self._chosen(request)
        return Wanted(
            language=language,
            languages=languages,
            task=self._task(request),
            temperatures=_temperatures(request.temperature),
            prompt=(request.prompt or "").strip(),
            keywords=", ".join(keyword.strip() for keyword in request.keywords if keyword.strip()),
            word_times=request.word_times,
            logprobs=request.logprobs,
            voice_activity=request.voice_activity,
            knobs=self._consistent(knobs, request),
        )

    def _chosen(self, request: TranscribeRequest) -> tuple[str | None, tuple[str, ...]]:
        """Return the language that is spoken, None if it is to be found, and those that it may be."""
        if request.language is not None:
            return code_of(request.language, self._languages), ()
        among = tuple(dict.fromkeys(self._known(name) for name in request.languages))
        if not among:
            # What a model was taught says its entry; a model of one language would name another one by mistake.
            taught = (name for name in self.model.languages if name)
            among = tuple(dict.fromkeys(code_of(name, self._languages) for name in taught))
        return (among[0] if len(among) == 1 else self._only()), among

    def _known(self, name: str) -> str:
        try:
            return code_of(name, self._languages)
        except InvalidInputError as error:
            raise InvalidInputError(error.message, param="languages") from error

    def _only(self) -> str | None:
        return None if self.engine.is_multilingual else "en"

    def _task(self, request: TranscribeRequest) -> str:
        if not request.translate:
            return "transcribe"
        if self._translates():
            return "translate"
        message = f"The model '{self.model.id}' does not translate; it writes down what it hears."
        raise InvalidInputError(message, param="translate")

    def _translates(self) -> bool:
        if not self.engine.is_multilingual or self._options.translates is not None:
            return self.engine.is_multilingual and bool(self._options.translates)
        name = (self.model.source or self.model.id).casefold()
        return not any(part in name for part in _LEARNED_ENGLISH_ONLY)

    def _consistent(self, knobs: Knobs, request: TranscribeRequest) -> Knobs:
        if knobs.hallucination_silence_threshold is not None and not (request.word_times and not knobs.batched):
            message = "hallucination_silence_threshold needs word times, and windows that are not batched."
            raise InvalidInputError(message, param="options.hallucination_silence_threshold")
        return knobs


def _temperatures(asked: float | None) -> tuple[float, ...]:
    """Return the temperatures that are tried one after the other; 0 is the first of several, as OpenAI has it."""
    if not asked:
        return _LADDER
    if not 0 < asked <= _HOTTEST:
        raise InvalidInputError(f"The temperature must be between 0 and {_HOTTEST:g}.", param="temperature")
    return (asked,)
