"""How a text is said in each language: phonemes, made by what reads the language."""

# ruff: noqa: RUF001 - phonemes are meant

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from yapit import InvalidInputError
from yapit.text import words
from yapit_plugin_kokoro.languages import LANGUAGES, Language
from yapit_plugin_kokoro.markup import Passage

# Words in Latin letters inside of Chinese and Japanese.
_LATIN = re.compile(r"[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ'’ -]*[A-Za-zÀ-ɏ]|[A-Za-zÀ-ɏ]")
# Sounds that the model was not taught, and the nearest that it knows.
_NEAREST = str.maketrans({
    "g": "ɡ", "ɫ": "l", "ɬ": "l", "ɭ": "l", "ʟ": "l", "ɮ": "l", "ʀ": "ʁ", "ɱ": "m", "ɦ": "h", "ħ": "h", "ʜ": "h",
    "ʉ": "u", "ʏ": "y", "ɘ": "ə", "ɵ": "ə", "ɞ": "ɜ", "ɶ": "œ", "ɓ": "b", "ɗ": "d", "ɠ": "ɡ", "ɢ": "ɡ", "ʛ": "ɡ",
    "ʐ": "ʒ", "ʑ": "ʒ", "ʍ": "w", "ʕ": "ʔ", "ʘ": "p", "ǀ": "t", "ǃ": "k", "ˑ": "ː", "ẽ": "e", "ã": "a", "ĩ": "i",
})  # fmt: skip


class Spoken(NamedTuple):
    """A word: from `start` to before `stop` in the phonemes, from `first` to before `last` in the passage."""

    start: int
    stop: int
    first: int
    last: int


class Sounds(NamedTuple):
    """The phonemes of a passage, where in them its words are, and whether that is only estimated."""

    phonemes: str
    words: tuple[Spoken, ...] = ()
    estimated: bool = False


def estimated(phonemes: str, passage: Passage) -> Sounds:
    """Return the phonemes, and the passage's words at the same share of them as they have of its characters."""
    phonemes = phonemes.strip()
    if not phonemes:
        return Sounds("")
    spoken, rate = list[Spoken](), len(phonemes) / len(passage.text)
    for first, last in words(passage.text):
        start = int(first * rate)
        while phonemes[start] == " ":  # the last character is none
            start += 1
        spoken.append(Spoken(start, max(start, int(last * rate)), first, last))
    return Sounds(phonemes, tuple(spoken), estimated=True)


class Reader(Protocol):
    """Reads a language."""

    def read(self, passage: Passage) -> Sounds:
        """Return the phonemes of a passage."""


class Readers:
    """The languages that were asked for, each made when it is.

    Args:
        vocabulary: the phonemes that the model knows.
    """

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self._vocabulary = vocabulary
        self._made: dict[str, Reader] = {}

    def read(self, passage: Passage, letter: str) -> Sounds:
        """Return the phonemes of a passage in a language.

        Raises:
            InvalidInputError: what reads the language is not installed; the message names the extra.
        """
        sounds = self._reader(letter).read(passage)
        # One character for one: the words keep their places. What is then unknown has no sound, and the model drops it.
        fitting = (
            character if character in self._vocabulary else character.translate(_NEAREST) or character
            for character in sounds.phonemes
        )
        return sounds._replace(phonemes="".join(fitting))

    def _reader(self, letter: str) -> Reader:
        if letter not in self._made:
            logging.getLogger("phonemizer").setLevel(logging.ERROR)  # it warns of words that it reads as two
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what misaki imports
                self._made[letter] = self._make(LANGUAGES[letter])
        return self._made[letter]

    def _make(self, language: Language) -> Reader:
        if language.espeak is not None:
            return EspeakReader(language.espeak)
        if language.extra is None:
            from yapit_plugin_kokoro.english import EnglishReader

            english: Reader = EnglishReader(british=language.letter == "b")
            return english
        try:
            speak = _japanese() if language.letter == "j" else _chinese("1.1" if "ㄅ" in self._vocabulary else None)
        except ImportError as error:
            raise _not_installed(language) from error
        return MixedReader(speak, partial(self._english))

    def _english(self, text: str) -> str:
        return self._reader("a").read(Passage(text, range(len(text)))).phonemes


class EspeakReader:
    """Reads a language with espeak-ng.

    Args:
        language: as espeak-ng calls it.
    """

    def __init__(self, language: str) -> None:
        from misaki.espeak import EspeakG2P

        self._speak = EspeakG2P(language=language)

    def read(self, passage: Passage) -> Sounds:
        """Return the phonemes of a passage."""
        phonemes = ""
        for text, given in _runs(passage):
            said = text if given else self._speak(text)[0].strip()
            # Each run but the first says by its first character whether a space was before it.
            phonemes += (" " if phonemes and text.startswith(" ") else "") + said.strip()
        return estimated(phonemes, passage)


class MixedReader:
    """Reads Chinese or Japanese, and the English words in it as English.

    Args:
        speak: returns the phonemes of the language.
        english: returns the phonemes of English words.
    """

    def __init__(self, speak: Callable[[str], str], english: Callable[[str], str]) -> None:
        self._speak = speak
        self._english = english

    def read(self, passage: Passage) -> Sounds:
        """Return the phonemes of a passage."""
        parts = list[str]()
        for text, given in _runs(passage):
            parts += [text] if given else self._mixed(text)
        return estimated(" ".join(part.strip() for part in parts if part.strip()), passage)

    def _mixed(self, text: str) -> Iterator[str]:
        at = 0
        for match in _LATIN.finditer(text):
            yield self._own(text[at : match.start()])
            yield self._english(match[0].strip())
            at = match.end()
        yield self._own(text[at:])

    def _own(self, text: str) -> str:
        return self._speak(text) if text.strip() else ""


def _runs(passage: Passage) -> Iterator[tuple[str, bool]]:
    """Yield the text between words whose phonemes are given, and those phonemes; and whether it is those.

    The space between two of them is at the beginning of the second.
    """
    text, at = passage.text, 0
    for given in passage.given:
        if given.stress is not None:
            continue
        start = given.start
        while start > at and text[start - 1] == " ":
            start -= 1
        if start > at:
            yield text[at:start], False
        yield text[start : given.start] + given.phonemes.strip(), True
        at = given.stop
    if text[at:].strip():
        yield text[at:], False


def _chinese(version: str | None) -> Callable[[str], str]:
    logging.getLogger("jieba").setLevel(logging.WARNING)
    zh: Any = import_module("misaki.zh")
    import_module("jieba").setLogLevel(logging.WARNING)
    # It wants something for English words, which never come here.
    reader = zh.ZHG2P(version=version, unk="", en_callable=lambda text: text)
    return lambda text: str(reader(text)[0])


def _japanese() -> Callable[[str], str]:
    """Return what reads Japanese; the dictionary is never downloaded.

    Raises:
        ImportError: a package or the dictionary is not installed.
    """
    unidic: Any = import_module("unidic")
    if not os.path.isdir(unidic.DICDIR):  # noqa: PTH112 - as it says it
        unidic.DICDIR = import_module("unidic_lite").DICDIR
    ja: Any = import_module("misaki.ja")
    reader = ja.JAG2P(unk="")
    return lambda text: str(reader(text)[0])


def _not_installed(language: Language) -> InvalidInputError:
    return InvalidInputError(
        f"What reads the language '{language.tag}' is not installed on the server; "
        f"try: pip install 'yapit-plugin-kokoro[{language.extra}]'",
        param="voice",
        code="language_not_installed",
    )
