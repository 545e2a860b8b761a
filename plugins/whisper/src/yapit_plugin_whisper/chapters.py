"""A recording of any length, of which ten minutes are in memory at once."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline
from faster_whisper.transcribe import restore_speech_timestamps
from faster_whisper.vad import SpeechTimestampsMap, VadOptions, collect_chunks, get_speech_timestamps
from msgspec import Struct

from yapit import Segment, TranscribeRequest, VoiceActivity
from yapit_plugin_whisper.algorithm import Algorithm
from yapit_plugin_whisper.languages import tag_of
from yapit_plugin_whisper.options import Knobs
from yapit_plugin_whisper.sound import RATE, Samples, anybody_speaks, pause_before_end, resampled, silent
from yapit_plugin_whisper.spelling import Place, Speller, words_in

_SHORTEST_S = 0.1  # of sound in which something may be said
_FIRST_WINDOWS = 4  # of the first chapter, so that its text does not wait for a look at ten minutes
_RESET = 0.5  # a window decoded hotter than this is no prompt for the next one


class Wanted(Struct, frozen=True, kw_only=True):
    """What a request asks for, checked.

    Args:
        language: Whisper's code; found out when None.
        languages: that it may be; any when empty.
        task: `transcribe` or `translate`.
        temperatures: that are tried one after the other.
        prompt: text before the first window.
        keywords: text before every window.
        word_times: tell when each word was said.
        logprobs: tell how likely each token was.
        voice_activity: what counts as speech.
        knobs: of the algorithm.
    """

    language: str | None
    languages: tuple[str, ...]
    task: str
    temperatures: tuple[float, ...]
    prompt: str
    keywords: str
    word_times: bool
    logprobs: bool
    voice_activity: VoiceActivity | None
    knobs: Knobs

    @property
    def filtered(self) -> bool:
        """Whether only speech is listened to."""
        return self.voice_activity is not None or self.knobs.vad is True

    def speech(self) -> dict[str, Any]:
        """Return what counts as speech, as faster-whisper names it."""
        if self.voice_activity is None:
            return {}
        return {
            "threshold": self.voice_activity.threshold,
            "speech_pad_ms": self.voice_activity.prefix_padding_ms,
            "min_silence_duration_ms": self.voice_activity.silence_duration_ms,
        }


class Reader:
    """Writes down one recording.

    Without a look at what is speech, a chapter ends before the first window that is not whole, and the next one begins
    with that window: what is written is the same as of the recording in one piece. Otherwise it ends in a pause.

    Args:
        algorithm: with the model.
        speller: of its tokens.
        chapter_s: length of a chapter.
    """

    def __init__(self, algorithm: Algorithm, speller: Speller, chapter_s: float) -> None:
        self._algorithm = algorithm
        self._speller = speller
        self._chapter_s = max(chapter_s, 2 * algorithm.window_s)
        self._language: str | None = None
        self._before: list[int] = []  # tokens
        self._hot = False

    def read(self, request: TranscribeRequest, wanted: Wanted, check: Callable[[], object]) -> Iterator[Segment]:
        """Yield the segments.

        Args:
            request: whose recording is read, as far as it has been decoded.
            wanted: what is asked for.
            check: raises when nobody waits any more.
        """
        self._language = wanted.language
        if wanted.prompt:
            self._before = self._algorithm.hf_tokenizer.encode(f" {wanted.prompt}", add_special_tokens=False).ids
        self._algorithm.allow(wanted.languages)
        self._algorithm.note_tokens(wanted=wanted.logprobs)
        rate, start = request.sample_rate, 0
        length = round(min(self._chapter_s, _FIRST_WINDOWS * self._algorithm.window_s) * rate)
        try:
            while len(samples := request.stretch(start, start + length + 1, check)) >= _SHORTEST_S * rate:
                part = resampled(samples[:length], rate)
                done_s = yield from self._chapter(part, start / rate, wanted, last=len(samples) <= length)
                start += max(1, round(done_s * rate))
                length = round(self._chapter_s * rate)
        finally:
            self._algorithm.forget()

    def _chapter(
        self, sound: Samples, shift_s: float, wanted: Wanted, *, last: bool
    ) -> Generator[Segment, None, float]:
        """Yield a chapter's segments and return how many seconds of it are done."""
        length_s = len(sound) / RATE
        if silent(sound) or (wanted.knobs.vad is None and not wanted.filtered and not anybody_speaks(sound)):
            return length_s if last else length_s - self._algorithm.window_s / 2
        if wanted.filtered or wanted.knobs.batched:
            end = len(sound) if last else pause_before_end(sound)
            place = Place(shift_s, shift_s + end / RATE)
            yield from self._heard(self._filtered(sound[:end], wanted), place, wanted)
            return end / RATE
        segments, place = self._sequential(sound, wanted), Place(shift_s, shift_s + length_s)
        if last:
            yield from self._heard(((each, self._begin_s(each)) for each in segments), place, wanted)
            return length_s
        return (yield from self._whole_windows(segments, length_s, place, wanted))

    def _begin_s(self, segment: Any) -> float:
        begin_s: float = segment.seek / self._algorithm.frames_per_second
        return begin_s

    def _whole_windows(
        self, segments: Iterator[Any], length_s: float, place: Place, wanted: Wanted
    ) -> Generator[Segment, None, float]:
        """Yield the segments of whole windows and return where the first other window begins."""
        done_s = length_s - self._algorithm.window_s

        def whole() -> Iterator[tuple[Any, float]]:
            nonlocal done_s
            for segment in segments:
                window_s = self._begin_s(segment)
                if window_s + self._algorithm.window_s > length_s:
                    done_s = window_s
                    return
                done_s = max(done_s, segment.end)
                yield segment, window_s

        yield from self._heard(whole(), place, wanted)
        return done_s

    def _sequential(self, sound: Samples, wanted: Wanted) -> Iterator[Any]:
        knobs = wanted.knobs
        found, about = self._algorithm.transcribe(
            sound,
            **self._common(wanted),
            best_of=knobs.best_of,
            temperature=list(wanted.temperatures),
            compression_ratio_threshold=knobs.compression_ratio_threshold,
            log_prob_threshold=knobs.log_prob_threshold,
            no_speech_threshold=knobs.no_speech_threshold,
            hallucination_silence_threshold=knobs.hallucination_silence_threshold,
            condition_on_previous_text=knobs.condition_on_previous_text,
            initial_prompt=self._before or None,
        )
        self._language = about.language
        return iter(found)

    def _filtered(self, sound: Samples, wanted: Wanted) -> Iterator[tuple[Any, float]]:
        """Yield the segments of what is speech, and where their windows begin."""
        if wanted.knobs.batched:
            yield from self._batched(sound, wanted)
            return
        speech = get_speech_timestamps(sound, VadOptions(**wanted.speech()))
        if not speech:
            return
        parts, _ = collect_chunks(sound, speech)
        places = SpeechTimestampsMap(speech, RATE)
        for segment in restore_speech_timestamps(self._sequential(np.concatenate(parts), wanted), speech, RATE):
            yield segment, places.get_original_time(self._begin_s(segment))

    def _batched(self, sound: Samples, wanted: Wanted) -> Iterator[tuple[Any, float]]:
        speech = {"min_silence_duration_ms": 160} | wanted.speech()
        found, about = BatchedInferencePipeline(self._algorithm).transcribe(
            sound,
            **self._common(wanted),
            temperature=wanted.temperatures[0],
            vad_filter=True,
            vad_parameters=speech,
            batch_size=wanted.knobs.batch_size,
            without_timestamps=False,
            initial_prompt=f" {wanted.prompt}" if wanted.prompt else None,
        )
        if about.duration_after_vad:
            self._language = about.language
        begins: dict[int, float] = {}
        for segment in found:
            yield segment, begins.setdefault(segment.seek, segment.start)

    def _common(self, wanted: Wanted) -> dict[str, Any]:
        knobs = wanted.knobs
        return {
            "language": self._language,
            "task": wanted.task,
            "beam_size": knobs.beam_size,
            "patience": knobs.patience,
            "length_penalty": knobs.length_penalty,
            "repetition_penalty": knobs.repetition_penalty,
            "no_repeat_ngram_size": knobs.no_repeat_ngram_size,
            "word_timestamps": wanted.word_times,
            "suppress_tokens": list(self._algorithm.suppressed),
            "hotwords": wanted.keywords or None,
        }

    def _heard(self, segments: Iterator[tuple[Any, float]], place: Place, wanted: Wanted) -> Iterator[Segment]:
        """Yield the segments as they are told, and remember them for the next chapter."""
        window_s = -1.0
        for segment, begin_s in segments:
            if begin_s != window_s:
                self._forget_if_hot()
                window_s = begin_s
            self._before = [*self._before, *segment.tokens][-self._algorithm.max_length :]
            self._hot = (segment.temperature or 0.0) > _RESET
            likely = self._algorithm.likelihoods(segment.tokens) if wanted.logprobs else []
            yield Segment(
                text=segment.text,
                start_s=place.time_s(segment.start),
                end_s=place.time_s(segment.end),
                words=words_in(segment.text, segment.words or (), place),
                language=tag_of(self._language or "en"),
                tokens=tuple(segment.tokens),
                token_logprobs=self._speller.likely(likely),
                window_start_s=place.time_s(begin_s),
                temperature=segment.temperature,
                average_logprob=segment.avg_logprob,
                compression_ratio=segment.compression_ratio,
                no_speech_probability=segment.no_speech_prob,
            )
        self._forget_if_hot()
        if not wanted.knobs.condition_on_previous_text or wanted.knobs.batched:
            self._before = []

    def _forget_if_hot(self) -> None:
        if self._hot:
            self._before, self._hot = [], False
