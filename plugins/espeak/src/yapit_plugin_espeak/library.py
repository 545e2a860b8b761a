"""espeak-ng as ctypes sees it: the functions, structures and constants of speak_lib.h that this plugin uses."""

import ctypes
import os

import espeakng_loader

from yapit import LoadError

SAMPLE_RATE = 22050
NORMAL_WORDS_PER_MINUTE = 175

EVENT_LIST_END = 0
EVENT_WORD = 1
EVENT_CLAUSE_END = 5

RATE, VOLUME, PITCH = 1, 2, 3
# Range, punctuation, capitals, word gap: nothing here sets them, but markup may and then leaves them set.
UNUSED_PARAMETERS = {4: 50, 5: 0, 6: 0, 7: 0}

UTF8 = 0x1
SSML = 0x10
END_PAUSE = 0x1000

_SYNCHRONOUS = 2
_BUFFER_MS = 60  # the library's own least; a longer one only delays the first sound
_DONT_EXIT = 0x8000


class Event(ctypes.Structure):
    """`espeak_EVENT`: positions count characters from 1, samples from the start of the call."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Event))
_UriCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)


# Says that `<audio src>` is not to be played: without this the library reads any file of the machine.
_never_play = _UriCallback(lambda _kind, _uri, _base: 1)


def load(library_path: str | None = None, data_path: str | None = None) -> ctypes.CDLL:
    """Return the library, initialised; its state is the whole process's, and no two threads may be inside.

    Raises:
        LoadError: the library or its data is missing or unusable.
    """
    try:
        library = ctypes.CDLL(library_path or espeakng_loader.get_library_path())
        data = data_path or espeakng_loader.get_data_path()
    except (OSError, RuntimeError) as error:
        raise LoadError(f"espeak-ng cannot be loaded: {error}") from error
    library.espeak_Synth.argtypes = (
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    )
    sample_rate = library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, os.fsencode(data), _DONT_EXIT)
    if sample_rate != SAMPLE_RATE:
        raise LoadError(f"espeak-ng cannot use its data in {data}: espeak_Initialize returned {sample_rate}")
    library.espeak_SetUriCallback(_never_play)
    return library
