"""The adapter: a request's text, passage by passage, to sound and the times of its words."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial

from yapit import AudioChunk, Context, Lane, Model, Synthesizer, SynthesizeRequest, Word
from yapit.blends import Share
from yapit.schemas import WordSource
from yapit_plugin_kokoro import markup
from yapit_plugin_kokoro.cutting import cut
from yapit_plugin_kokoro.hub import Files
from yapit_plugin_kokoro.languages import LANGUAGES, letter_of
from yapit_plugin_kokoro.markup import Passage, Pause
from yapit_plugin_kokoro.model import Voicebox
from yapit_plugin_kokoro.options import Knobs, knobs_of, options_of, settings_of
from yapit_plugin_kokoro.sounds import Readers, Sounds
from yapit_plugin_kokoro.timing import Clock
from yapit_plugin_kokoro.voices import Voices

SAMPLE_RATE = 24_000


class KokoroSynthesizer(Synthesizer):
    """A loaded Kokoro: one model for all languages, what reads a language made when it is first spoken.

    Its calls run one after the other on one thread. What is cut short stops before the model's next layer.

    Args:
        model: the catalog entry; its `source`, or else its id, is a folder or a repository of the hub.
        context: the device, and the plugin's settings.

    Raises:
        LoadError: the files are not here and cannot be fetched, or are no Kokoro's.
        SettingsError: an option is unknown or has a value that is refused.
    """

    def __init__(self, model: Model, context: Context) -> None:
        self._model = model
        self._options = options_of(model)
        self._markup = self._options.markup and settings_of(context).markup
        files = Files.of(model, fetch=not self._options.skip_download)
        self._lane = Lane(f"speak-{model.id}")
        self._voices = Voices(model, files.voices)
        self._voicebox = Voicebox(model, context, self._options, files, self._lane)
        self._readers = Readers(self._voicebox.vocabulary)
        anybody = (Share(next(iter(files.voices)), 1.0),)
        self._voicebox.settle(self._options.dtype, partial(self._voices.style, anybody))

    async def synthesize(self, request: SynthesizeRequest) -> AsyncIterator[AudioChunk]:
        """Yield the speech, at most 510 phonemes at a time, and nothing for a text without words.

        Raises:
            InvalidInputError: the voice, the language or an option is unknown, or what reads the language is missing.
        """
        knobs = knobs_of(self._model, request)
        shares, letter = self._voice_and_language(request, knobs)
        async with aclosing(self._lane.stream(lambda: self._speak(request, knobs, shares, letter))) as chunks:
            async for chunk in chunks:
                yield chunk

    def close(self) -> None:
        """End the thread."""
        self._lane.close()

    def _voice_and_language(self, request: SynthesizeRequest, knobs: Knobs) -> tuple[tuple[Share, ...], str]:
        tag, param = knobs.lang_code, "options.lang_code"
        if request.language is not None:
            tag, param = request.language, "language"
        if tag is None:
            shares = self._voices.shares(request.voice)
            own = shares[0].voice[:1]
            return shares, own if own in LANGUAGES else "a"
        shares = self._voices.shares(request.voice, letter_of(tag, param=param))
        return shares, letter_of(tag, param=param, voice=shares[0].voice[:1])

    def _speak(
        self, request: SynthesizeRequest, knobs: Knobs, shares: tuple[Share, ...], letter: str
    ) -> Iterator[AudioChunk]:
        lexicon = {**self._options.lexicon, **knobs.lexicon}
        elapsed_s = 0.0
        for part in markup.read(request.text, markup=self._markup and knobs.markup, lexicon=lexicon):
            if isinstance(part, Pause):
                chunk = AudioChunk(
                    pcm=bytes(2 * round(part.seconds * SAMPLE_RATE)), sample_rate=SAMPLE_RATE, pause=True
                )
                elapsed_s += part.seconds
                yield chunk
                continue
            sounds = self._readers.read(part, letter)
            for start, stop in cut(sounds.phonemes):
                self._lane.check()
                phonemes = sounds.phonemes[start:stop].rstrip()
                if not any(character.isalpha() for character in phonemes):
                    continue
                style = self._voices.style(shares, len(phonemes))
                made = self._voicebox.make(phonemes, style, request.speed, knobs.seed)
                clock = Clock(phonemes, made.frames, self._voicebox.vocabulary)
                words = _words(request.text, part, sounds, clock, (start, start + len(phonemes)), elapsed_s)
                elapsed_s += len(made.samples) / SAMPLE_RATE
                source: WordSource = "estimated" if sounds.estimated else "native"
                yield AudioChunk.from_samples(made.samples.numpy(), SAMPLE_RATE, tuple(words), source)


def _words(
    text: str, passage: Passage, sounds: Sounds, clock: Clock, piece: tuple[int, int], elapsed_s: float
) -> Iterator[Word]:
    """Yield the words that begin in a piece of the phonemes."""
    start, stop = piece
    for word in sounds.words:
        if start <= word.start < stop and word.first < word.last:
            first, last = passage.places[word.first], passage.places[word.last - 1] + 1
            yield Word(
                text=text[first:last],
                start_s=elapsed_s + clock.start_s(word.start - start),
                end_s=elapsed_s + clock.end_s(min(word.stop, stop) - start),
                offset=first,
            )
