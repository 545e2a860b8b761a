"""How English is said: misaki's lexicon, espeak-ng for the words it lacks, and nothing that is downloaded."""

import re
from collections.abc import Callable
from typing import Any

import spacy
import structlog
from misaki import en, espeak
from misaki.token import MToken
from spacy.lang.en import English
from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc
from spacy.util import compile_infix_regex, compile_prefix_regex, compile_suffix_regex
from spacy.vocab import create_vocab

from yapit_plugin_kokoro.markup import Passage
from yapit_plugin_kokoro.sounds import Sounds, Spoken
from yapit_plugin_kokoro.tagging import tags

TAGGER = "en_core_web_sm"
_LONG = 40  # characters of a word
_LETTER = re.compile(r"[a-zäöü]\.")
_log = structlog.get_logger(__name__)


class EnglishReader(en.G2P):  # type: ignore[misc]  # it has no types
    """Reads American or British English.

    misaki's own reader fetches a model of spaCy's from the network when it is made. This one tags the words with that
    model if it is installed, and else by rules.

    Args:
        british: rather than American.
    """

    def __init__(self, *, british: bool) -> None:
        self.version = None
        self.british = british
        self.unk = ""
        self.lexicon = _Lexicon(british)
        self.fallback = _Fallback(british=british)
        self.nlp: Callable[[str], Doc] = _tagger() if spacy.util.is_package(TAGGER) else _Rules()

    def read(self, passage: Passage) -> Sounds:
        """Return the phonemes of a passage and where in them its words are."""
        _, tokens = self(passage.text, preprocess=lambda text: _as_misaki(text, passage))
        phonemes, words, at = "", list[Spoken](), 0
        for token in tokens:
            start, at = _find(passage.text, token.text, at)
            said = token.phonemes or ""
            if not phonemes:
                said = said.lstrip()
            if any(character.isalpha() for character in said):
                words.append(Spoken(len(phonemes), len(phonemes) + len(said), start, at))
            phonemes += said
            if token.whitespace and phonemes and not phonemes.endswith(" "):
                phonemes += " "
        return Sounds(phonemes.rstrip(), tuple(words))

    def say(self, text: str) -> str:
        """Return the phonemes of words inside of another language's text."""
        return self.read(Passage(text, range(len(text)))).phonemes


class _Lexicon(en.Lexicon):  # type: ignore[misc]  # it has no types
    """misaki's, which raises at some numbers; espeak-ng can say those too."""

    def __call__(self, token: Any, context: Any) -> tuple[str | None, int | None]:
        try:
            found: tuple[str | None, int | None] = super().__call__(token, context)
        except Exception as error:  # noqa: BLE001 - whatever it stumbles over
            _log.debug("lexicon_stumbled", error=type(error).__name__)
            return None, None
        return found


class _Fallback(espeak.EspeakFallback):  # type: ignore[misc]  # it has no types
    """espeak-ng for the words that the lexicon lacks; it would skip the end of a long one."""

    def __call__(self, token: Any) -> tuple[str | None, int | None]:
        if len(token.text) <= _LONG:
            found: tuple[str | None, int | None] = super().__call__(token)
            return found
        parts = (token.text[at : at + _LONG] for at in range(0, len(token.text), _LONG))
        said = (super(_Fallback, self).__call__(MToken(text=part, tag="", whitespace=""))[0] for part in parts)
        return " ".join(part for part in said if part), 2


class _Rules:
    """spaCy's tokens of English, tagged by rules."""

    def __init__(self) -> None:
        # No pipeline: to make one, spaCy imports whatever is registered with it.
        defaults = English.Defaults
        exceptions: dict[str, Any] = defaults.tokenizer_exceptions or {}
        self._tokens = Tokenizer(
            create_vocab("en", defaults),
            # "b." is a letter at the end of a sentence; an initial, "B.", is not parted anyway.
            rules={word: rule for word, rule in exceptions.items() if not _LETTER.fullmatch(word)},
            prefix_search=compile_prefix_regex(defaults.prefixes).search,
            suffix_search=compile_suffix_regex(defaults.suffixes).search,
            infix_finditer=compile_infix_regex(defaults.infixes).finditer,
            token_match=defaults.token_match,
            url_match=defaults.url_match,
        )

    def __call__(self, text: str) -> Doc:
        doc = self._tokens(text)
        words = [token.text for token in doc]
        for token, tag in zip(doc, tags(words, [bool(token.whitespace_) for token in doc]), strict=True):
            token.tag_ = tag
        return doc


def _tagger() -> Callable[[str], Doc]:
    tagger: Callable[[str], Doc] = spacy.load(TAGGER, enable=["tok2vec", "tagger"])
    return tagger


def _as_misaki(text: str, passage: Passage) -> tuple[str, list[str], dict[int, str | float]]:
    """Return the text with the words whose phonemes or stress are given, as misaki's own reading of its markup does."""
    tokens, features, at = list[str](), dict[int, str | float](), 0
    for given in passage.given:
        tokens += text[at : given.start].split()
        stress = given.stress
        features[len(tokens)] = f"/{given.phonemes}" if stress is None else int(stress) if stress % 1 == 0 else stress
        tokens.append(text[given.start : given.stop])
        at = given.stop
    return text, tokens + text[at:].split(), features


def _find(text: str, token: str, at: int) -> tuple[int, int]:
    """Return where a token of the text is, at or after `at`; misaki leaves out a character here and there."""
    start = text.find(token, at)
    if 0 <= start <= at + len(token) + 2:
        return start, start + len(token)
    start, stop = -1, at
    for character in token:
        place = text.find(character, stop)
        if place < 0:
            continue
        start, stop = (place if start < 0 else start), place + 1
    return (at, at) if start < 0 else (start, stop)
