"""The one place of a process that calls espeak-ng.

The library keeps its state in globals and aborts the process when two threads are inside. So one thread owns it and
speaks one `Speech` after the other, first come, first served. It never waits for a reader: a reader that stops pulling
leaves its audio in its own queue and the library free, which is why `Speech.text` has to be short (see `pieces`).
"""

import ctypes
import functools
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import NamedTuple

from yapit import BackendError, InvalidInputError, YapitError
from yapit_plugin_espeak import library as native

# Chunks grow from two native buffers (120 ms of audio: from one an mp3 encoder makes nothing) to two seconds: each
# costs 40 µs here and more above.
_FIRST_FLUSH_BYTES = 5_000
_LAST_FLUSH_BYTES = 88_200
# The longest that the native thread stands aside for the reader to take the first chunk. On a busy machine the two
# threads share a core, and the reader would get it only after a time slice: 4 ms to the first sound instead of 0.4.
_STAND_ASIDE_S = 0.001
_MAX_SPEECH_S = 1200
_MAX_SPEECH_BYTES = _MAX_SPEECH_S * native.SAMPLE_RATE * 2


class Speech(NamedTuple):
    """One call of the library: everything that decides how it sounds, so that nothing is left from the call before."""

    text: str
    voice: str
    words_per_minute: int = native.NORMAL_WORDS_PER_MINUTE
    pitch: int = 50
    volume: int = 100
    ssml: bool = False
    end_pause: bool = False


class Mark(NamedTuple):
    """A word begins, or a clause ends, at a character (from 1) and a sample (from 0) of the speech."""

    kind: int
    position: int
    sample: int


class Sound(NamedTuple):
    """16-bit PCM at `SAMPLE_RATE`, and the marks that came with it."""

    pcm: bytes
    marks: list[Mark]


class _Call:
    """A speech on its way through the native thread, and what that thread has made of it so far."""

    def __init__(self, speech: Speech) -> None:
        self.speech = speech
        self.sounds: SimpleQueue[Sound | YapitError | None] = SimpleQueue()
        self.cancelled = False
        self.begun = threading.Lock()  # held until the reader has the first chunk
        self.begun.acquire()
        self.error: YapitError | None = None
        self._pcm: list[bytes] = []
        self._marks: list[Mark] = []
        self._pending_bytes = 0
        self._flushed_bytes = 0
        self._flush_bytes = _FIRST_FLUSH_BYTES

    def hear(self, wave: int | None, samples: int, events: "ctypes._Pointer[native.Event]") -> bool:
        """Take one native buffer, of which a second of speech has 17; return whether more is wanted."""
        if self.cancelled:
            return False
        if wave and samples:
            self._pcm.append(ctypes.string_at(wave, samples * 2))
            self._pending_bytes += samples * 2
        if events[0].type != native.EVENT_LIST_END:
            self._mark(events)
        return self._pending_bytes < self._flush_bytes or self._flush_full()

    def flush(self) -> None:
        """Hand over what is there."""
        if self._pcm or self._marks:
            self.sounds.put(Sound(b"".join(self._pcm), self._marks))
            self._flushed_bytes += self._pending_bytes
            self._pcm, self._marks, self._pending_bytes = [], [], 0

    def _flush_full(self) -> bool:
        first = not self._flushed_bytes
        self._flush_bytes = min(self._pending_bytes * 4, _LAST_FLUSH_BYTES)
        self.flush()
        if first:
            self.begun.acquire(timeout=_STAND_ASIDE_S)
        if self._flushed_bytes > _MAX_SPEECH_BYTES:
            self.error = InvalidInputError(f"One text may take at most {_MAX_SPEECH_S} s to speak.", param="input")
        return self.error is None

    def _mark(self, events: "ctypes._Pointer[native.Event]") -> None:
        # Above 450 words a minute samples are counted before the audio is shortened: up to 5 % too late.
        heard = (self._flushed_bytes + self._pending_bytes) // 2
        index = 0
        while (event := events[index]).type != native.EVENT_LIST_END:
            if event.type in (native.EVENT_WORD, native.EVENT_CLAUSE_END):
                self._marks.append(Mark(event.type, event.text_position, min(event.sample, heard)))
            index += 1


class Engine:
    """The native thread; the constructor starts it, and it lives as long as the process.

    Raises:
        LoadError: the library or its data is missing or unusable.
    """

    def __init__(self) -> None:
        self._library = native.load()
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._call: _Call | None = None
        self._voice: str | None = None
        self._callback = native.SynthCallback(self._hear)
        self._library.espeak_SetSynthCallback(self._callback)
        self._thread = threading.Thread(target=self._serve, name="espeak", daemon=True)
        self._thread.start()

    def speak(self, speech: Speech) -> Iterator[Sound]:
        """Yield the speech as the library makes it; closing the iterator stops the library at its next buffer.

        Raises:
            InvalidInputError: the library has no such voice, or the speech is longer than 20 minutes.
            BackendError: the library refused for a reason of its own.
        """
        call = _Call(speech)
        self._calls.put(call)
        try:
            while (sound := call.sounds.get()) is not None:
                if isinstance(sound, YapitError):
                    raise sound
                if call.begun.locked():
                    call.begun.release()
                yield sound
        finally:
            call.cancelled = True

    def _serve(self) -> None:
        while True:
            call = self._calls.get()
            if call.cancelled:
                continue
            self._call = call
            try:
                self._synthesize(call)
            except YapitError as error:
                call.sounds.put(error)
            except Exception as error:  # noqa: BLE001 - the thread must outlive whatever one call does to it
                call.sounds.put(BackendError(f"espeak-ng could not speak: {error!r}"))
            finally:
                call.sounds.put(None)

    def _synthesize(self, call: _Call) -> None:
        speech = call.speech
        self._set_voice(speech.voice)
        for parameter, value in (
            (native.RATE, speech.words_per_minute),
            (native.VOLUME, speech.volume),
            (native.PITCH, speech.pitch),
            *native.UNUSED_PARAMETERS.items(),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        flags = native.UTF8 | native.SSML * speech.ssml | native.END_PAUSE * speech.end_pause
        text = speech.text.encode()
        status = self._library.espeak_Synth(text, len(text) + 1, 0, 0, 0, flags, None, None)
        if speech.ssml:
            self._voice = None  # markup may have chosen another one
        if call.error is not None:
            raise call.error
        if status:
            raise BackendError(f"espeak-ng could not speak: espeak_Synth returned {status}")
        call.flush()

    def _set_voice(self, voice: str) -> None:
        """Choose the voice unless it is chosen: that takes 75 µs, half of the time to the first sound."""
        if voice == self._voice:
            return
        self._voice = None
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise InvalidInputError(f"espeak-ng has no voice '{voice}'.", param="voice")
        self._voice = voice

    def _hear(self, wave: int | None, samples: int, events: "ctypes._Pointer[native.Event]") -> int:
        """Answer the library, on the native thread and inside `espeak_Synth`: 0 to go on, 1 to stop."""
        return 0 if self._call is not None and self._call.hear(wave, samples, events) else 1


_starting = threading.Lock()


@functools.cache
def _started() -> Engine:
    return Engine()


def shared_engine() -> Engine:
    """Return the process's engine, started by the first who asks.

    Raises:
        LoadError: the library or its data is missing or unusable.
    """
    with _starting:
        return _started()
