"""Languages as people and clients name them, and as Whisper does."""

from collections.abc import Collection

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from yapit import InvalidInputError
from yapit.errors import did_you_mean

# Codes that others use, and codes that have been replaced; what is left is Whisper's own.
_CODES = {"jv": "jw", "nb": "no", "iw": "he", "in": "id", "ji": "yi", "fil": "tl", "cmn": "zh", "zho": "zh"}
_TAGS = {"jw": "jv"}


def code_of(name: str, known: Collection[str]) -> str:
    """Return Whisper's code of a language named by a BCP 47 tag, an English name, or another name it goes by.

    Args:
        name: such as `en`, `en-US`, `English` or `castilian`.
        known: codes of the model.

    Raises:
        InvalidInputError: there is no such language, or the model does not know it.
    """
    folded = name.strip().casefold()
    primary = folded.replace("_", "-").partition("-")[0]
    for candidate in (folded, primary):
        code = TO_LANGUAGE_CODE.get(candidate) or _CODES.get(candidate, candidate)
        if candidate == "zh" and folded.endswith("-hk") and "yue" in known:
            code = "yue"
        if code in known:
            return code
    names = [*known, *(LANGUAGES[code] for code in known if code in LANGUAGES)]
    # Somebody else's language: the codes near it would be of no use.
    hint = f"It knows only {english(next(iter(known)))}." if len(known) == 1 else did_you_mean(name, names)
    raise InvalidInputError(f"The model does not know the language '{name}'. {hint}".rstrip(), param="language")


def tag_of(code: str) -> str:
    """Return the BCP 47 tag of Whisper's code."""
    return _TAGS.get(code, code)


def english(code: str) -> str:
    """Return the English name of a language."""
    name: str = LANGUAGES.get(code, code)
    return name.title()
