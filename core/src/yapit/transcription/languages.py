"""Languages as clients write them, codes, tags and English names, and as transcripts name them."""

import re

from yapit.errors import InvalidInputError, did_you_mean

_NAMES = {
    "en": "english",
    "zh": "chinese",
    "de": "german",
    "es": "spanish",
    "ru": "russian",
    "ko": "korean",
    "fr": "french",
    "ja": "japanese",
    "pt": "portuguese",
    "tr": "turkish",
    "pl": "polish",
    "ca": "catalan",
    "nl": "dutch",
    "ar": "arabic",
    "sv": "swedish",
    "it": "italian",
    "id": "indonesian",
    "hi": "hindi",
    "fi": "finnish",
    "vi": "vietnamese",
    "he": "hebrew",
    "uk": "ukrainian",
    "el": "greek",
    "ms": "malay",
    "cs": "czech",
    "ro": "romanian",
    "da": "danish",
    "hu": "hungarian",
    "ta": "tamil",
    "no": "norwegian",
    "th": "thai",
    "ur": "urdu",
    "hr": "croatian",
    "bg": "bulgarian",
    "lt": "lithuanian",
    "la": "latin",
    "mi": "maori",
    "ml": "malayalam",
    "cy": "welsh",
    "sk": "slovak",
    "te": "telugu",
    "fa": "persian",
    "lv": "latvian",
    "bn": "bengali",
    "sr": "serbian",
    "az": "azerbaijani",
    "sl": "slovenian",
    "kn": "kannada",
    "et": "estonian",
    "mk": "macedonian",
    "br": "breton",
    "eu": "basque",
    "is": "icelandic",
    "hy": "armenian",
    "ne": "nepali",
    "mn": "mongolian",
    "bs": "bosnian",
    "kk": "kazakh",
    "sq": "albanian",
    "sw": "swahili",
    "gl": "galician",
    "mr": "marathi",
    "pa": "punjabi",
    "si": "sinhala",
    "km": "khmer",
    "sn": "shona",
    "yo": "yoruba",
    "so": "somali",
    "af": "afrikaans",
    "oc": "occitan",
    "ka": "georgian",
    "be": "belarusian",
    "tg": "tajik",
    "sd": "sindhi",
    "gu": "gujarati",
    "am": "amharic",
    "yi": "yiddish",
    "lo": "lao",
    "uz": "uzbek",
    "fo": "faroese",
    "ht": "haitian creole",
    "ps": "pashto",
    "tk": "turkmen",
    "nn": "nynorsk",
    "mt": "maltese",
    "sa": "sanskrit",
    "lb": "luxembourgish",
    "my": "myanmar",
    "bo": "tibetan",
    "tl": "tagalog",
    "mg": "malagasy",
    "as": "assamese",
    "tt": "tatar",
    "haw": "hawaiian",
    "ln": "lingala",
    "ha": "hausa",
    "ba": "bashkir",
    "jw": "javanese",
    "su": "sundanese",
    "yue": "cantonese",
}
# Further names and older or other codes of the same languages.
_ALIASES = {
    "burmese": "my",
    "valencian": "ca",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "pushto": "ps",
    "panjabi": "pa",
    "moldavian": "ro",
    "moldovan": "ro",
    "sinhalese": "si",
    "castilian": "es",
    "mandarin": "zh",
    "iw": "he",
    "jv": "jw",
    "nb": "no",
}
_CODES = {name: code for code, name in _NAMES.items()} | _ALIASES
_TAG = re.compile(r"([a-z]{2,3})(-[a-z0-9]{1,8})*")


def language_code(wanted: str | None, param: str = "language") -> str | None:
    """Return the code of a language that is given as a code, a tag (`en-US`) or its English name, in any case.

    A code that is not known here is returned as it is: a model may know it. None and `auto` are None.

    Raises:
        InvalidInputError: it is none of these.
    """
    if wanted is None or not (folded := wanted.strip().casefold().replace("_", "-")) or folded == "auto":
        return None
    tag = _TAG.fullmatch(folded)
    code = folded if folded in _NAMES else _CODES.get(folded) or _CODES.get(folded.replace("-", " "))
    if code is None and tag is not None:
        code = _CODES.get(tag[1], tag[1])
    if code is None:
        hint = did_you_mean(folded, [*_CODES, *_NAMES])
        message = f"Invalid '{param}': '{wanted}' is no language; expected a code such as 'en', or a name. {hint}"
        raise InvalidInputError(message.rstrip(), param=param)
    return code


def language_name(tag: str | None) -> str:
    """Return the English name of a language; of one that has none here, its tag."""
    if not tag:
        return "unknown"
    primary = tag.casefold().partition("-")[0]
    return _NAMES.get(_ALIASES.get(primary, primary), tag)
