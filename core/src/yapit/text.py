r"""Cuts text that will be spoken into sentences, in any script, without losing or moving a character.

    text ─ window ─ _sentence_ends ─ _gather (≤ max_chars) ─ piece
                          └ none fits ─ _pause (clause mark, else space) ─ _cut_anywhere (between grapheme clusters)

A window of `max_chars` and a little more is all that is looked at per piece, so the first piece of a book costs what
the first piece of a line costs. A mark ends a sentence by the properties of its script, not by a language: marks of
their own (。؟।።) always do; those shared with abbreviations and quotations (. ! ? …) do when white space follows and
what comes next does not read on. A missed end costs a breath, a wrong one is heard: abbreviations win a doubt.

Newlines: a blank line ends a piece. One newline does before a heading or list item, after one that is not continued by
an indented line, after a mark, and after a short line followed by a capital; otherwise it is a soft wrap.

Markup, for models that read it, is looked at as one cluster, so nothing cuts it.

The sentencex library was tried (1.0.32: MIT, wheels for 3.11 to 3.13, 70 MB/s) and is not used: it builds the list for
the whole text before the first sentence, wants the language, raises on lone surrogates and cuts inside CR LF.
"""

# ruff: noqa: RUF001 - Cyrillic and Greek abbreviations, and the quotes of many languages, are meant

import re
import unicodedata
from collections.abc import Iterator

_MIN_CHARS = 16  # room for a family emoji and a mark
_AHEAD = 64  # characters read past the bound: enough for closing marks and the word that follows
_SHORT = 20  # a sentence shorter than this joins the next one ...
_JOINED = 80  # ... up to this length: models stumble over one word alone
_HEADING_CHARS = 40  # a wrapped line is longer, a title seldom is

# Unicode 16, Sentence_Terminal (PropList.txt), less the shared marks below, with the two Tibetan shads.
_OWN_BMP = (
    r"\u037E\u0589\u061D-\u061F\u06D4\u0700-\u0702\u07F9\u0837\u0839\u083D\u083E\u0964\u0965\u0F0D\u0F0E\u104A\u104B"
    r"\u1362\u1367\u1368\u166E\u1735\u1736\u17D4\u17D5\u1803\u1809\u1944\u1945\u1AA8-\u1AAB\u1B4E\u1B4F\u1B5A\u1B5B"
    r"\u1B5E\u1B5F\u1B7D-\u1B7F\u1C3B\u1C3C\u1C7E\u1C7F\u203C\u203D\u2047-\u2049\u2CF9-\u2CFB\u2E2E\u2E3C\u2E53\u2E54"
    r"\u3002\uA4FF\uA60E\uA60F\uA6F3\uA6F7\uA876\uA877\uA8CE\uA8CF\uA92F\uA9C8\uA9C9\uAA5D-\uAA5F\uAAF0\uAAF1\uABEB"
    r"\uFE12\uFE15\uFE16\uFE56\uFE57\uFF01\uFF1F\uFF61"
)
_OWN = _OWN_BMP + (
    r"\U00010A56\U00010A57\U00010F55-\U00010F59\U00010F86-\U00010F89"
    r"\U00011047\U00011048\U000110BE-\U000110C1\U00011141-\U00011143\U000111C5\U000111C6\U000111CD\U000111DE\U000111DF"
    r"\U00011238\U00011239\U0001123B\U0001123C\U000112A9\U000113D4\U000113D5\U0001144B\U0001144C\U000115C2\U000115C3"
    r"\U000115C9-\U000115D7\U00011641\U00011642\U0001173C-\U0001173E\U00011944\U00011946\U00011A42\U00011A43\U00011A9B"
    r"\U00011A9C\U00011C41\U00011C42\U00011EF7\U00011EF8\U00011F43\U00011F44\U00016A6E\U00016A6F\U00016AF5\U00016B37"
    r"\U00016B38\U00016B44\U00016D6E\U00016D6F\U00016E98\U0001BC9F\U0001DA88"
)
_SHARED = r".!?\u2024\u2026\uFE52\uFF0E"  # with the ellipsis, which is no terminal to Unicode
_MARKS = _OWN + _SHARED
_CLAUSE_MARKS = (  # those that need no white space after them
    r"\u2014\u060C\u061B\u055D\u1363-\u1366\u17D6\u1802\u1808\u3001\uFE10\uFE11\uFE13\uFE14\uFE50\uFE51\uFE54"
    r"\uFE55\uFF0C\uFF1A\uFF1B\uFF64"
)
_EMOJI = r"\u2600-\u27BF\U0001F000-\U0001FAFF\U000E0020-\U000E007F\u200D\uFE0F"
_QUOTES = r"\"'\u00AB\u00BB\u2018-\u201F\u2039\u203A\uFF02\uFF07*_"
_MAY_CLOSE = r"\u00AB\u2018\u201B\u201C\u201F\u2039"  # open in one language, close in another: a word after them tells
_CLOSERS = (
    rf"\"'\u00BB\u2019\u201D\u203A\uFF02\uFF07*_)\]}}\u3009\u300B\u300D\u300F\u3011\u3015\u3017\u3019\u301B\u301E\u301F\uFE42\uFE44\uFF09\uFF3D\uFF5D"
    rf"\uFF63\u200E\u200F\u202C\u2069{_EMOJI}"
)
_OPENERS = "\"'*_([{¿¡«»‹›‘’‚‛“”„‟〈《「『【〔（–—- \xa0\u202f"  # what may stand before the first word of a sentence
_NEWLINE = r"\n\r\v\f\x85\u2028\u2029"
_GLUE = r"\xA0\u202F\u2007"  # spaces that hold a mark or a unit to its word

_BREAK = re.compile(  # starts with one small class: 5 ns a character; a branch or the astral ranges would make it 95
    rf"""[{_OWN_BMP}{_SHARED};{_NEWLINE}\U00010A00-\U0001DAFF]
         (?: (?<=[{_NEWLINE}])
           | (?: (?<=[{_MARKS}]) | (?<=[\u0370-\u03FF\u1F00-\u1FFF];) )  # a semicolon after Greek asks
             (?P<more> (?: [{_MARKS}{_CLOSERS}] | [{_MAY_CLOSE}](?!\w) )*+
                       (?:\[\d{{1,3}}\])? (?:[ {_GLUE}]?\u00BB(?=\s|\Z))? ) )
         (?P<space>\s*+)""",
    re.VERBOSE,
)
_CLAUSE = re.compile(
    rf"""( (?: [,;:!?\u00B7\u0387\u2026] | (?<=\w{{4}})\. | (?<=\s)[\-\u2013] ) [{_CLOSERS}]*+ (?=\s)
         | [{_CLAUSE_MARKS}] [{_CLOSERS}]*+ )
         \s*+ (?![{_MARKS},;:)\]}}\u2014])""",
    re.VERBOSE,
)
_SPACE = re.compile(rf"(?<![\s\u200B])([^\S{_GLUE}]|\u200B)[\s\u200B]*+(?![{_MARKS},;:)\]}}\u00BB\u2014])")
_BLANK_LINE = re.compile(rf"(?>\r\n|[{_NEWLINE}])[^\S{_NEWLINE}]*+[{_NEWLINE}]")
_LINE_END = re.compile(rf"[{_NEWLINE}]")
_ITEM = re.compile(r"\s{0,8}+(?:[-*+\u2022\u2023\u25E6\u2013\u2014]|\#{1,6}|\d{1,3}[.)]|\w\))\s")
_MARK = re.compile(f"[{_MARKS}]")
_OWN_MARK = re.compile(f"[{_OWN}]")
_SPEECH = re.compile(r"[^\W_]")  # a piece without a letter or digit has nothing to say
_BETWEEN_WORDS = re.compile(rf"[\s{_QUOTES}(\[{{/\u2013\u2014\-]+")
_AFTER_WORD = re.compile(r"\W")
_ORDINAL = re.compile(r"\d{1,2}")
_NUMERAL = re.compile(r"\d{1,3}|[IVXLC]+")
_DOTTED = re.compile(r"[^\W\d_]{1,2}(?:\.[^\W\d_]{1,3})+")  # U.S  z.B  e.g  v.Chr
_WIDE = re.compile(r"[\u2E80-\uA4CF\uF900-\uFAFF\uFF00-\uFFEF\U00020000-\U0003FFFF]")
_QUOTED_ON = re.compile(r"[\u3068\u3063\u306A]")  # hiragana that continue a quotation: to, tte, nado
_VIRAMA = 9  # canonical combining class of the sign that ties two consonants
_EXTENDS = re.compile(  # besides the categories M*: joiners, Thai and Lao am, kana voicing, skin tones, tags, jamo
    r"[\u200C\u200D\u0E33\u0EB3\uFF9E\uFF9F\U0001F3FB-\U0001F3FF\U000E0020-\U000E007F\u1160-\u11FF\uD7B0-\uD7FF]"
)
_PREPENDS = re.compile(
    r"[\u200D\u0600-\u0605\u06DD\u070F\u0890\u0891\u08E2\u0D4E\U000110BD\U000110CD\U000111C2\U000111C3\U000113D1"
    r"\U0001193F\U00011941\U00011A84-\U00011A89\U00011D46\U00011F02]"
)
_FLAG = re.compile(r"[\U0001F1E6-\U0001F1FF]")
_FLAGS = re.compile(_FLAG.pattern + "++")
_MARKUP = re.compile(
    r"""\[ [^\[\]]+ \] \( (?: /[^/()]*/ | [+-]?[\d.]+ ) \)  # [word](/phonemes/)  [word](-1)
      | \[pause: [^\[\]]* \]""",
    re.VERBOSE | re.IGNORECASE,
)
_WORD = re.compile(  # or one character of the scripts that put no spaces between words
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+(?:['\u2019.-][^\W_]+)*"
)
_PAIR = re.compile(  # leading jamo with a syllable; the halves of a character that came as two surrogates
    r"[\u1100-\u115F\uA960-\uA97C][\u1100-\u115F\uA960-\uA97C\uAC00-\uD7A3]|[\uD800-\uDBFF][\uDC00-\uDFFF]"
)


def _words(line: str) -> frozenset[str]:
    return frozenset(line.split())


_ABBREVIATIONS = _words(
    "mr mrs ms dr prof st ste mt messrs jr sr inc ltd co corp bros vs viz cf al etc approx dept govt univ ave blvd "
    "ph.d b.sc m.sc v.chr n.chr "
    "bzw usw ca ggf evtl vgl inkl exkl zzgl bspw sog str hr fr dipl ing geb gest jh jhd mio mrd std abs "
    "mme mlle mgr sra srta ud uds dra avda pág sig dott ecc avv dhr mevr mw bijv enz np tzw itd itp ul inż św tzv "
    "т.е т.д т.п др им гр ул пр руб тыс млн млрд см напр проф акад κα κος π.χ "
    "डॉ श्री प्रो أ د"
)
_TITLES = _words("Rev Hon Gen Col Lt Sgt Capt Cmdr Maj Gov Sen Rep Pres Supt")  # words when in lower case
_COUNTED = _words(
    "no nos nr p pp vol fig figs ch sec art eq ex abb kap tab pag pág núm стр рис гл op jan feb aug sept oct nov dec"
)
_MAY_END = _words("jr sr inc ltd co corp bros al etc usw a.m p.m ecc enz itd itp т.д т.п др руб")
_STARTERS = _words(
    "The This That These Those There It He She We They You I In On At But And So If When Then What Why How Who After "
    "Der Die Das Er Sie Es Wir Le La Les Il Elle Nous El Los Las Ella Он Она Они Это Но"
)
_BEFORE_ORDINAL = _words("der die das dem den des im vom zum beim ins")
_MONTHS = _words("Januar Jänner Februar März April Mai Juni Juli August September Oktober November Dezember")


# A short text of words, commas and one mark at its end, as most requests are, needs no search.
_ONE_SENTENCE = re.compile(r"[^\W\d_][\w ,'-]*[.!?]? ?")


def split(text: str, *, first_chars: int = 80, max_chars: int = 300, markup: bool = False) -> Iterator[str]:
    """Yield pieces of `text` that read as sentences; joining them gives `text` back exactly.

    Nothing past the piece asked for is read, but for a window of `max_chars` and 64 characters, with markup of twice
    `max_chars`. White space and closing quotes stay with the sentence before them. A piece without a letter or digit
    comes only where no neighbour has room.

    Args:
        text: any string; lone surrogates and control characters pass through.
        first_chars: characters (code points) the first piece should have at most, so that speech starts early; a
            longer first sentence is cut at a clause mark or space, or stays whole where it has none.
        max_chars: characters no piece exceeds; at least 16. Clusters longer than this are the only ones ever cut.
        markup: `[word](/phonemes/)`, `[word](-1)` and `[pause:1s]` are clusters too.

    Raises:
        ValueError: `first_chars` is below 1 or `max_chars` below 16.
    """
    if first_chars < 1:
        raise ValueError(f"first_chars must be at least 1, not {first_chars}")
    if max_chars < _MIN_CHARS:
        raise ValueError(f"max_chars must be at least {_MIN_CHARS}, not {max_chars}")
    if len(text) <= min(first_chars, max_chars) and _ONE_SENTENCE.fullmatch(text):
        return iter((text,))
    return _pieces(text, min(first_chars, max_chars), max_chars, markup=markup)


def words(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the words of `text` are, for estimates of when they are heard."""
    return (match.span() for match in _WORD.finditer(text))


def _pieces(text: str, first_chars: int, max_chars: int, *, markup: bool) -> Iterator[str]:
    start, fresh = 0, True
    while start < len(text):
        window = text[start : start + max_chars + _AHEAD]
        final = start + len(window) == len(text)
        plain = window
        if markup:
            window = _masked(text, start, max_chars)[: len(window)]
        ends = _sentence_ends(window, fresh=fresh, final=final)
        stop = _gather(window, ends, max_chars, join=start > 0)
        if start == 0:
            stop = _shorten(window, stop, first_chars, max_chars)
        stop = stop or _cut(window, max_chars, final=final)
        yield plain[:stop]
        fresh = _LINE_END.match(window[:stop].rstrip(" \t")[-1:]) is not None
        start += stop


def _masked(text: str, start: int, max_chars: int) -> str:
    """Return the text from `start` on with a letter and its accents for each markup, as long as that is."""
    # What begins before the bound of a piece and fits into one ends in here.
    shown = text[start : start + 2 * max_chars + _AHEAD]
    return _MARKUP.sub(lambda markup: _cluster(markup[0]) if len(markup[0]) <= max_chars else markup[0], shown)


def _cluster(markup: str) -> str:
    """Return a grapheme cluster of the same length; its letter says whether a sentence reads on with the word."""
    return ("x" if markup[1].islower() and not markup.endswith("]") else "X") + "\u0301" * (len(markup) - 1)


def _sentence_ends(window: str, *, fresh: bool, final: bool) -> Iterator[tuple[int, bool]]:
    """Yield where sentences end, and whether a line ends there for good; `fresh`: the window begins a line."""
    line: int | None = 0 if fresh else None
    for match in _BREAK.finditer(window):
        start, stop = match.span()
        marks_end = start if match["more"] is None else match.end("more")
        newline = _LINE_END.search(window, marks_end, stop) is not None
        parts = newline and _parts_lines(window, line, start, marks_end, stop)
        ends = parts or (marks_end > start and _ends_sentence(window, line, start, marks_end, stop))
        if ends and not _joins(window, stop):
            yield stop, parts
        if newline:
            line = stop if ends else None  # below a soft wrap a short line is no heading
    if final:
        yield len(window), True


def _gather(window: str, ends: Iterator[tuple[int, bool]], max_chars: int, *, join: bool) -> int:
    """Return the end of the first sentence with what clings to it: silent neighbours, the next if it is short.

    0 if no sentence that says something ends within `max_chars`.
    """
    voiced = _voiced(window)
    end, parts = 0, False
    for stop, stop_parts in ends:
        if stop > max_chars:
            break
        short = join and not parts and end < _SHORT and stop <= _JOINED
        if end >= voiced and not short and _SPEECH.search(window, end, stop):
            return end
        end, parts = stop, stop_parts
        if end >= voiced and window[end : end + 1].isalnum() and (parts or end >= _SHORT or not join):
            return end  # nothing silent follows: no need to look for the next end, which is half of all the work
    return end if end >= voiced else 0


def _shorten(window: str, stop: int, first_chars: int, max_chars: int) -> int:
    """Return an earlier end for the first piece if it is longer than `first_chars`, else `stop`; 0 as `_gather`."""
    few = first_chars // 5  # about three words; less is not worth a piece
    last = _last_speech(window[:stop]) + 1 if stop else max_chars
    if stop and last <= first_chars:
        return stop
    early = _pause(window, few, min(first_chars, last - few)) or _first_pause(window, first_chars, last - few)
    if early or stop:
        return early or stop
    cut = _cut_anywhere(window, first_chars)
    return cut if cut >= _voiced(window) else 0


def _cut(window: str, limit: int, *, final: bool) -> int:
    """Return where to cut a sentence that is longer than `limit`: at a pause, else between two clusters."""
    last = _last_speech(window)
    if final and limit // 2 < last < limit and window[limit:].strip():
        limit = last  # a word stays with the marks after it, which would else be a piece of their own
    return _pause(window, limit // 4, limit) or _pause(window, 1, limit) or _cut_anywhere(window, limit) or limit


def _pause(window: str, low: int, limit: int) -> int:
    """Return the last clause mark's end in `low` … `limit`, else the last space's, else 0."""
    low = max(low, _voiced(window))
    for pattern in (_CLAUSE, _SPACE):
        cuts = [min(match.end(), limit) for match in pattern.finditer(window) if match.end(1) <= limit]
        for cut in reversed(cuts):
            if cut >= low and not _joins(window, cut):
                return cut
    return 0


def _first_pause(window: str, low: int, limit: int) -> int:
    """Return the end of the first clause mark or space in `low` … `limit`, else 0."""
    cuts = (match.end() for pattern in (_CLAUSE, _SPACE) for match in pattern.finditer(window, low))
    voiced = _voiced(window)
    return min((cut for cut in cuts if voiced <= cut <= limit and not _joins(window, cut)), default=0)


def _cut_anywhere(window: str, limit: int) -> int:
    """Return the last cluster boundary up to `limit`, before a letter if one is near; 0 if one cluster fills it all."""
    for cut in range(limit, max(limit // 4, _voiced(window) - 1), -1):
        if window[cut].isalnum() and not _joins(window, cut):
            return cut
    return next((cut for cut in range(limit, 0, -1) if not _joins(window, cut)), 0)


def _ends_sentence(window: str, line: int | None, start: int, marks_end: int, stop: int) -> bool:
    """Tell whether the marks and closing quotes at `start` end a sentence; `stop` is after the white space."""
    run, space = window[start:marks_end], window[marks_end:stop]
    closed = not _MARK.match(run[-1])
    before, after = window[start - 1 : start], window[stop : stop + 1]
    if _OWN_MARK.search(run):
        return not (closed and _QUOTED_ON.match(after))
    dots = ".." in run or "\u2026" in run
    if after and not space:  # a file name, a number, an address; or Chinese and Japanese with shared marks
        return not (dots or after.isdecimal()) and bool(_WIDE.match(before) and _WIDE.match(after))
    reads_on = _reads_on(window, stop) and not _LINE_END.search(space)
    if run[0] == ";" or "!" in run or "?" in run:
        return not (reads_on and (closed or after in "-\u2013\u2014"))  # "Really?" she asked.
    return not reads_on and (dots or closed or not _is_abbreviation(window, line, start, stop))


def _is_abbreviation(window: str, line: int | None, dot: int, following: int) -> bool:
    """Tell whether the word before the full stop at `dot` has it as its own: an abbreviation, initial or ordinal."""
    word = _BETWEEN_WORDS.split(window[max(0, dot - 24) : dot])[-1]
    fold, begin = word.casefold(), dot - len(word)
    after = _AFTER_WORD.split(window[following : following + 16].lstrip(_OPENERS), maxsplit=1)[0]
    if line is not None and _NUMERAL.fullmatch(word) and not window[line:begin].strip():
        return True  # the number of a list item or chapter
    if _ORDINAL.fullmatch(word):
        previous = window[max(0, begin - 12) : begin].casefold().split()[-1:]
        return after in _MONTHS or not _BEFORE_ORDINAL.isdisjoint(previous)
    initial = len(word) == 1 and word.lower() != word.upper()
    dotted = _DOTTED.fullmatch(word) is not None
    if (initial or (dotted and word.isupper()) or fold in _MAY_END) and after in _STARTERS:
        return "." in window[max(0, begin - 2) : begin]  # z. B. Die Zeit, but: Plan B. The next
    return (
        initial or dotted or fold in _ABBREVIATIONS or word in _TITLES or (fold in _COUNTED and after[:1].isdecimal())
    )


def _parts_lines(window: str, line: int | None, start: int, marks_end: int, stop: int) -> bool:
    """Tell whether the newline between `marks_end` and `stop` parts blocks: paragraphs, headings, list items."""
    if _BLANK_LINE.search(window, marks_end, stop) or _ITEM.match(window, stop):
        return True
    if line is None:
        return False
    if _ITEM.match(window, line):
        return _LINE_END.match(window, stop - 1) is not None
    head = window[line:start].strip()
    titled = bool(head) and len(head) <= _HEADING_CHARS and head[-1] not in ",;-\u2013\u2014"
    return titled and marks_end == start and not _reads_on(window, stop)


def _reads_on(window: str, at: int) -> bool:
    """Tell whether the text goes on in lower case; Georgian letters are all lower case and say nothing."""
    first = window[at : at + 8].lstrip(_OPENERS)[:1]
    return first.islower() and not "\u10d0" <= first <= "\u10ff"


def _voiced(window: str) -> int:
    """Return the place after the first letter or digit; a cut before it would leave a silent piece."""
    match = _SPEECH.search(window)
    return match.end() if match else len(window)


def _last_speech(window: str) -> int:
    """Return the place of the last letter or digit, -1 if there is none."""
    match = _SPEECH.search(window[::-1])
    return len(window) - match.end() if match else -1


def _joins(text: str, at: int) -> bool:
    """Tell whether a cut at `at` would go through a grapheme cluster (UAX 29, a little stricter), CR LF or conjunct."""
    before, after = text[at - 1 : at], text[at : at + 1]
    if before < "\u0300" and after < "\u0300":
        return before == "\r" and after == "\n"
    if not after or unicodedata.category(after).startswith("M") or _EXTENDS.match(after) or _PREPENDS.match(before):
        return bool(after)
    if _FLAG.match(before) and _FLAG.match(after):
        run = _FLAGS.match(text[at - 1 :: -1])
        return run is not None and run.end() % 2 == 1
    return _PAIR.match(before + after) is not None or (unicodedata.combining(before) == _VIRAMA and after.isalpha())
