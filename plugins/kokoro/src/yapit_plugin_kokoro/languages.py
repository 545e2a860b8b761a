"""The languages that Kokoro speaks: its letters for them, and the language tags that mean them."""

from typing import NamedTuple

from yapit import InvalidInputError


class Language(NamedTuple):
    """A language: its letter, which the names of its voices begin with, its tag, and espeak-ng's name if that reads it.

    `extra` is the extra of this package that reads it, where one is needed.
    """

    letter: str
    tag: str
    espeak: str | None = None
    extra: str | None = None


LANGUAGES = {
    language.letter: language
    for language in (
        Language("a", "en-US"),
        Language("b", "en-GB"),
        Language("e", "es", "es"),
        Language("f", "fr-FR", "fr-fr"),
        Language("h", "hi", "hi"),
        Language("i", "it", "it"),
        Language("p", "pt-BR", "pt-br"),
        Language("j", "ja", extra="ja"),
        Language("z", "zh", extra="zh"),
    )
}
_PRIMARY = {"es": "e", "fr": "f", "hi": "h", "it": "i", "pt": "p", "ja": "j", "zh": "z", "cmn": "z"}
_BRITISH = {"gb", "uk", "ie", "au", "nz", "za", "in"}
_SPOKEN = ", ".join(f"{language.tag} ({letter})" for letter, language in LANGUAGES.items())


def letter_of(tag: str, *, param: str, voice: str = "a") -> str:
    """Return the letter of a language that is given by letter or tag, in any case.

    Args:
        tag: `a`, `en`, `en-GB`, `pt_BR`, …
        param: the field of the request that has it.
        voice: the first letter of the voice; for English without a country, and for languages the voice is of.

    Raises:
        InvalidInputError: Kokoro does not speak it.
    """
    folded = tag.strip().casefold().replace("_", "-")
    if folded in LANGUAGES:
        return folded
    primary, _, rest = folded.partition("-")
    if primary == "en":
        if not rest:
            return voice if voice in "ab" else "a"
        return "b" if _BRITISH.intersection(rest.split("-")) else "a"
    if primary not in _PRIMARY:
        raise InvalidInputError(f"Kokoro does not speak '{tag[:40]}'. It speaks {_SPOKEN}.", param=param)
    return _PRIMARY[primary]
