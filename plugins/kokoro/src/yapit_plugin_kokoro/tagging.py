"""Parts of speech by rule, for English: what the lexicon asks to tell `a record` from `to record`."""

# ruff: noqa: RUF001 - the quotes and dashes of print are meant

from collections.abc import Iterable, Sequence


def _each(tag: str, words: str) -> dict[str, str]:
    return dict.fromkeys(words.split(), tag)


_CLOSED = {
    **_each("DT", "the a an this these those each every no some any another either neither both all"),
    **_each("PRP$", "my your his its our their whose"),
    **_each(
        "PRP", "i you he she it we they me him us them myself yourself himself herself itself ourselves themselves"
    ),
    **_each("MD", "will would can could shall should may might must 'll 'd ’ll ’d wo ca"),
    **_each("IN", "in of at on by for with from into about as than that if because while although though through over"),
    **_each("IN", "under between among against during before after since until upon toward towards within without vs"),
    **_each("CC", "and or but nor yet so"),
    **_each("RB", "not n't n’t never always often also very too just only still even now then here again soon almost"),
    **_each("VBZ", "is has does"),
    **_each("VBP", "am are have do 'm 're 've ’m ’re ’ve"),
    **_each("VBD", "was were had did"),
    **_each("VB", "be"),
    **_each("VBN", "been"),
    **_each("WP", "who whom what"),
    **_each("WRB", "when where why how"),
    **_each("WDT", "which"),
    **_each("EX", "there"),
    "to": "TO",
    "her": "PRP$",
}
_BE = {"is", "am", "are", "was", "were", "be", "been", "being", "'m", "'re", "’m", "’re"}
_HAVE = {"have", "has", "had", "having", "'ve", "’ve"}
_DO = {"do", "does", "did"}
_MANY = {"i", "you", "we", "they", "who"}
_MARKS = {
    **dict.fromkeys(".!?", "."),
    ",": ",",
    **dict.fromkeys((";", ":", "—", "–", "…", "...", "--", "---"), ":"),
    **dict.fromkeys("([{", "-LRB-"),
    **dict.fromkeys(")]}", "-RRB-"),
    **dict.fromkeys(("“", "‘", "«", "„"), "``"),
    **dict.fromkeys(("”", "»"), "''"),
    **dict.fromkeys("$£€", "$"),
    **dict.fromkeys(("*", "**", "_", "__", "#", "##", "###", "`", "```", "•", "·"), "NFP"),
}


def tags(words: Sequence[str], spaced: Iterable[bool]) -> list[str]:
    """Return a tag of the Penn Treebank for each token.

    Args:
        words: tokens of one text.
        spaced: whether white space follows each.
    """
    found, gaps = list[str](), list(spaced)
    for index, word in enumerate(words):
        before = index == 0 or gaps[index - 1]
        found.append(_mark(word, before=before, after=gaps[index]) or _tag(words, found, index))
    return found


def _mark(word: str, *, before: bool, after: bool) -> str | None:
    if word == '"':
        return "``" if before else "''"
    if word == "-":
        # Between words it is a pause, inside of one it is not heard.
        return ":" if before and after else "HYPH"
    if word in _MARKS:
        return _MARKS[word]
    if word[0].isdigit() and all(character.isdigit() or character in ".,:" for character in word):
        return "CD"
    return None


def _tag(words: Sequence[str], found: list[str], index: int) -> str:  # noqa: PLR0911 - a rule a line
    word, fold = words[index], words[index].casefold()
    following = words[index + 1] if index + 1 < len(words) else ""
    inside = index > 0 and found[-1] not in (".", "``", ":")
    if fold == "a" and (not following[:1].isalnum() or (word == "A" and inside and not _shouted(words, index))):
        return "NN"  # the letter
    if fold == "am" and index and found[-1] == "CD":
        return "NN"  # the hour
    if fold == "used" and following.casefold() == "to":
        return "VBD"
    if fold == "that" and index and found[-1].startswith("V"):
        return "IN"
    if fold == "to" or (fold in _CLOSED and not (len(word) > 1 and word.isupper() and not _shouted(words, index))):
        return _CLOSED[fold]
    if inside and word[:1].isupper() and not _shouted(words, index):
        return "NNP"
    return _open(fold, *_before(words, found, index))


def _shouted(words: Sequence[str], index: int) -> bool:
    """Tell whether a word is one of several in capitals, which then say nothing of it."""
    near = (*words[max(0, index - 2) : index], *words[index + 1 : index + 3])
    return words[index].isupper() and any(len(word) > 1 and word.isupper() for word in near)


def _before(words: Sequence[str], found: list[str], index: int) -> tuple[str, str]:
    """Return the word before, adverbs left out, and its tag."""
    at = index - 1
    while at >= 0 and found[at] == "RB":
        at -= 1
    return (words[at].casefold(), found[at]) if at >= 0 else ("", "")


def _open(fold: str, previous: str, tag: str) -> str:  # noqa: PLR0911 - a rule a line
    """Return the tag of a word of an open class by its ending and the word before it."""
    if tag in ("TO", "MD") or previous in _DO:
        return "VB"
    if previous in _HAVE:
        return "VBN"
    if tag in ("DT", "PRP$", "JJ", "CD", "IN"):
        return "VBN" if fold.endswith("ed") and tag != "IN" else "NNS" if _plural(fold) else "NN"
    if fold.endswith("ly"):
        return "RB"
    if fold.endswith("ing"):
        return "VBG"
    if previous in _BE:
        return "VBN" if fold.endswith("ed") else "JJ"
    if fold.endswith("ed"):
        return "VBD"
    if previous in _MANY:
        return "VBP"
    if tag == "PRP":
        return "VBZ" if _plural(fold) else "VBD"
    return "NNS" if _plural(fold) else "NN"


def _plural(fold: str) -> bool:
    return len(fold) > 2 and fold.endswith("s") and not fold.endswith("ss")  # noqa: PLR2004 - `is`, `us`
