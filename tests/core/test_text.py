# ruff: noqa: RUF001 - the examples are in many scripts, with the quotes and full-width marks that belong to them
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yapit.text import split, words

BOUND = 300
AHEAD = 64  # how far past the bound a piece may look, as the docstring of `split` promises


def sentences(text: str) -> list[str]:
    """Split so that nothing is joined or shortened: the first piece of what is left, again and again."""
    found = []
    while text:
        found.append(next(split(text, first_chars=BOUND, max_chars=BOUND)))
        text = text[len(found[-1]) :]
    return found


def cuts(pieces: list[str]) -> list[int]:
    return list(accumulate(map(len, pieces)))


def silent(piece: str) -> bool:
    return not any(character.isalnum() for character in piece)


# "|" stands where a sentence ends.
BY_LANGUAGE = [
    ("en", "The rain went on. |Nobody came! |Was it five o'clock? |Yes."),
    ("en quotes", 'He said "Stop." |She did. |(So they say.) |“Fine!” |Good.'),
    ("en speech tag", '"Really?" she asked. |"No!" he said. |They left.'),
    ("en reference", "It is so.[12] |Others disagree.[3] |Both are old."),
    ("en markdown", "**Read this.** |_Then stop._ |Go."),
    ("de", "Das ist gut. |„Komm!“, rief er. |»Nein.« |Er ging… |Dann kam sie."),
    ("de ordinals", "Es war am 3. Oktober 1990. |Der 2. Weltkrieg war vorbei. |Im 19. Jahrhundert auch."),
    ("fr", "« Bonjour ! » dit-il. |Comment allez-vous ? |« Bien. » |M. Dupont est là."),
    ("es", "¿Qué tal? |¡Hola! |El Sr. López vive aquí. |Ud. sabe."),
    ("pt", "O Sr. Silva chegou. |Tudo bem? |Sim!"),
    ("it", "Il dott. Rossi è qui. |Va bene ecc. ecc. e così via. |Ciao!"),
    ("nl", "Dhr. de Vries komt. |Neem bijv. Amsterdam. |Goed?"),
    ("pl", "Ul. Długa jest np. Tutaj. |Czy to tak? |Nie."),
    ("ru", "— Привет! — сказал он. |А. С. Пушкин жил здесь, т. е. Там. |Что? |Да."),
    ("uk", "Як справи? |Добре. |Є питання!"),
    ("el", "Τι κάνεις; |Καλά. |Ο κ. Παπαδόπουλος ήρθε. |Ναι· αλλά όχι."),
    ("el own question mark", "Τι είναι\u037e |Τίποτα."),
    ("ar", "هل أنت بخير؟ |نعم. |د. محمد هنا، وهو بخير."),
    ("ur", "یہ کتاب ہے۔ |کیا یہ اچھی ہے؟ |جی ہاں۔"),
    ("he", "מה שלומך? |טוב. |תודה!"),
    ("hi", "नमस्ते। |आप कैसे हैं? |डॉ. शर्मा आए॥ |ठीक है।"),
    ("bn", "আমি ভালো আছি। |তুমি কেমন আছো?"),
    ("my", "မင်္ဂလာပါ။ |နေကောင်းလား။"),
    ("km", "សួស្តី។ |អ្នកសុខសប្បាយទេ? |បាទ៕"),
    ("bo", "བཀྲ་ཤིས་བདེ་ལེགས།། |ཐུགས་རྗེ་ཆེ།"),
    ("am", "ሰላም። |እንዴት ነህ፧ |ደህና፣ አመሰግናለሁ።"),
    ("hy", "Բարև։ |Ինչպես ես։ |Լավ։"),
    ("ka, which has no capitals", "გამარჯობა. |როგორ ხარ? |კარგად."),
    ("th, which has no marks", "สวัสดีครับ ผมชื่อสมชาย วันนี้อากาศดีมาก"),
    ("zh", "你好。|世界！|“是吗？”|他问。|我……不知道。"),
    ("zh with shared marks", "你好.|是吗?!|好的。|要3.5版的core.py文件。"),
    ("ja", "今日は。|「行く。」と言った。|「本当？！」|そうだ。"),
    ("ja full width", "今日は．|明日は３．５度です．|雨だ。"),
    ("ko", "안녕하세요. |네. |반갑습니다! |좋아요?"),
    ("mixed", "He said 你好。|Then Привет! |¿Sí? |はい。"),
    ("Chakma, past the BMP", "𑄃𑄟𑄢𑅁|𑄃𑄟𑄢𑅁"),
]


@pytest.mark.parametrize("example", [pytest.param(text, id=name) for name, text in BY_LANGUAGE])
def test_sentences_end_where_a_reader_of_the_language_ends_them(example: str) -> None:
    assert sentences(example.replace("|", "")) == example.split("|")


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith, Mr. Brown and Mrs. Green met Prof. White.",
        "Use marks, e.g. Commas or i.e. Breaths, etc. and so on.",
        "She lives in the U.S. Virgin Islands with John Smith Jr. and a cat.",
        "See No. 5, p. 55, pp. 10 to 12, Fig. 3 and vol. 2 of it.",
        "Books by J. R. R. Tolkien and George R. R. Martin.",
        "Sen. Warren met Gen. Lee and Capt. Kirk.",
        "Das ist z.B. Wasser, d.h. Eis, bzw. Dampf.",
        "Das ist z. B. Die Zeit.",
        "Rund 1.000.000 Menschen zahlten 3,50 Euro, also ca. 4 Mio. Euro.",
        "Pi is 3.14 and version 1.2.3 came at 12.30 or 12:30.",
        "It costs $1,000.50 at 5 p.m. Monday.",
        "Open https://example.com/a.b?c=d.e!f and http://x.org/?q=1 now.",
        "Write to first.last@example.co.uk or call.",
        "Run core.py, then setup.cfg; node.js and .NET too.",
        "Wait... what is it",
        "Well… maybe",
        "1. Introduction",
        "IV. The Return",
        "т. е. Москва и т.д. и т.п. и др. города",
    ],
)
def test_what_has_a_full_stop_of_its_own_is_not_cut(text: str) -> None:
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    "example",
    [
        "No. |Five came.",
        "So do I. |The end.",
        "Plan B. |The next step.",
        "He works at Acme Inc. |The company is old.",
        "They met at 5 p.m. |They left soon.",
        "I have 3. |You have 4.",
        "It was 1999. |5 people came.",
        "This is art. |We love it.",
        "Stop?! |What?!? |No!!! |Hm... |Well.",
        "Is it true?? |It is!",
        "Great!🎉 |Next one. |Good 👍🏽! |Bye.",
        "A sentence. \t\n |Another.",
    ],
)
def test_a_doubtful_mark_is_judged_by_the_words_around_it(example: str) -> None:
    assert sentences(example.replace("|", "")) == example.split("|")


@pytest.mark.parametrize(
    "example",
    [
        pytest.param("no mark at all\n\n|and lower case", id="blank line"),
        pytest.param("no mark at all\r\n \t\r\n|and lower case", id="blank line of CR LF and spaces"),
        pytest.param("a line that is\nsoftly wrapped\r\nover three", id="soft wrap"),
        pytest.param(
            "a sentence wrapped by an editor after the word\nNew York goes on", id="long line, then a capital"
        ),
        pytest.param("some words that are softly\nwrapped in New\nYork", id="short line below a wrapped one"),
        pytest.param("Chapter One\n|It was dark.", id="heading"),
        pytest.param("# A title in markdown that is rather long for one line\n|text below", id="markdown heading"),
        pytest.param("You need:\n|- flour\n|- two eggs\n  from a hen\n|* salt\n|and patience", id="list"),
        pytest.param("1. First\n|2. Second\n|3) third\n|a) fourth\n|done", id="numbered list"),
        pytest.param("It ends here.\n|and a line in lower case follows.", id="mark before newline"),
        pytest.param("They met Dr.\nSmith.", id="abbreviation before newline"),
        pytest.param("roses are red\u2028\u2029|violets", id="Unicode separators"),
    ],
)
def test_newlines_end_blocks_and_not_wrapped_lines(example: str) -> None:
    assert sentences(example.replace("|", "")) == example.split("|")


def test_white_space_stays_with_the_sentence_before_it_and_at_the_start_with_the_first() -> None:
    assert list(split("  \n\tThe first sentence is here.  \r\n\r\n  The second sentence is here.\n")) == [
        "  \n\tThe first sentence is here.  \r\n\r\n  ",
        "The second sentence is here.\n",
    ]


def test_the_short_rest_of_a_line_after_a_sentence_is_no_heading() -> None:
    assert list(split("One sentence ends in this line. In New\nYork it rains.")) == [
        "One sentence ends in this line. ",
        "In New\nYork it rains.",
    ]


def test_short_sentences_join_the_next_one_but_the_first_piece_is_not_held_back() -> None:
    assert list(split("Yes. No. OK. Then we went home and slept. He did not like that.")) == [
        "Yes. ",
        "No. OK. Then we went home and slept. ",
        "He did not like that.",
    ]


def test_short_sentences_do_not_join_over_a_blank_line() -> None:
    assert list(split("One.\n\nTwo.\n\n“Three.”")) == ["One.\n\n", "Two.\n\n", "“Three.”"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("… Hello there.", ["… Hello there."]),
        ("Hello there. … ", ["Hello there. … "]),
        ("Hello there.\n\n* * *\n\nThe next part.", ["Hello there.\n\n* * *\n\n", "The next part."]),
        ("Great! 🎉", ["Great! 🎉"]),
        ("—\n\nHello.", ["—\n\nHello."]),
        ("...", ["..."]),
        (" \n", [" \n"]),
        ("", []),
        ("x" * BOUND + ".", ["x" * 80, "x" * 220 + "."]),
        ("* " * 20 + "字" * 200, ["* " * 20 + "字" * 200]),
        ("Hi. " + "字" * BOUND + "。", ["Hi. ", "字" * (BOUND - 1), "字。"]),
        ("Hi. " + "字" * BOUND + "。" + "字" * BOUND, ["Hi. ", "字" * (BOUND - 1), "字。", "字" * BOUND]),
        ("Hi! " + "word " * 60 + "🎉 🎉", ["Hi! ", "word " * 59, "word 🎉 🎉"]),
    ],
)
def test_a_piece_with_nothing_to_say_clings_to_a_neighbour(text: str, expected: list[str]) -> None:
    assert list(split(text)) == expected


# --- lengths -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "first"),
    [
        pytest.param(
            "The committee that met yesterday, in the old hall, decided without further ado to go on with the plan.",
            "The committee that met yesterday, in the old hall, ",
            id="last clause mark",
        ),
        pytest.param(
            "However, the committee that met in the old town hall decided without further ado to go on with the plan.",
            "However, the committee that met in the old town hall decided without further ",
            id="not one word",
        ),
        pytest.param("这是一个很长的句子，" * 20 + "完。", "这是一个很长的句子，" * 8, id="Chinese"),
        pytest.param("هذه جملة طويلة جدا، " * 20, "هذه جملة طويلة جدا، " * 4, id="Arabic"),
        pytest.param("ዓለም ሰላም፣ ዓለም ሰላም " * 20, "ዓለም ሰላም፣ ዓለም ሰላም " * 4 + "ዓለም ሰላም፣ ", id="Amharic"),
        pytest.param("สวัสดีครับ ผมชื่อสมชาย " * 20, "สวัสดีครับ ผมชื่อสมชาย " * 3 + "สวัสดีครับ ", id="Thai"),
        pytest.param("word—" * 60, "word—" * 16, id="dash without spaces"),
        pytest.param("x" * 100 + " yes " * 50, "x" * 100 + " ", id="no pause before first_chars"),
        pytest.param("字" * 1000, "字" * 80, id="no pause at all"),
        pytest.param("字" * 200 + "。", "字" * 200 + "。", id="one whole sentence without a pause"),
        pytest.param("Short. " + "A long sentence that goes on, " * 20, "Short. ", id="short sentence"),
    ],
)
def test_a_long_first_sentence_is_cut_early(text: str, first: str) -> None:
    pieces = list(split(text))
    assert pieces[0] == first
    assert "".join(pieces) == text


def test_first_chars_above_max_chars_means_max_chars() -> None:
    assert list(split("one two three four five", first_chars=80, max_chars=16)) == ["one two ", "three four five"]


@pytest.mark.parametrize(
    ("unit", "end"),
    [
        ("a clause of some length, ", ", "),
        ("wordy ", "wordy "),
        ("一个分句，", "，"),
        ("字", "字"),
        ("a\u00a0b ", "b "),
    ],
)
def test_a_long_sentence_is_cut_at_the_best_place_there_is(unit: str, end: str) -> None:
    pieces = list(split("Start. " + unit * 1000))
    assert len(pieces) > 3
    assert all(piece.endswith(end) for piece in pieces[1:])
    assert all(BOUND // 2 < len(piece) <= BOUND for piece in pieces[1:-1])


def test_a_late_space_is_better_than_an_early_clause_mark() -> None:
    assert list(split("Start. Now, " + "wordy " * 60))[1] == "Now, " + "wordy " * 49


def test_no_break_spaces_hold() -> None:
    text = "10\u00a0000\u202f%\u00a0et " * 60
    assert all(piece.endswith(" ") for piece in split(text))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"first_chars": 0}, "first_chars must be at least 1, not 0"), ({"max_chars": 15}, "at least 16, not 15")],
)
def test_arguments_are_checked_at_the_call_and_not_at_the_first_piece(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split("text", **arguments)


CLUSTERS = [
    *(
        "👨\u200d👩\u200d👧\u200d👦",
        "👍🏽",
        "🇩🇪",
        "🇫🇷",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
        "🏴\U000e0067\U000e0062\U000e007f",
        "👩🏽\u200d🚀",
    ),
    *("e\u0301", "a\u0323\u0308", "\r\n", "न्दी", "क्ष", "กำ", "ที่", "한", "\u1112\u1161\u11ab", "ｶﾞ", "字", "x", " "),
    *("\u1112\u1100\u1161", "\u1112\uac00", "\ud83d\ude00", "\u0600\u0661"),  # a UTF-16 pair is held together, too
]


@given(st.lists(st.sampled_from(CLUSTERS), max_size=150), st.integers(1, 80), st.integers(16, 60))
def test_no_cut_goes_through_a_cluster(clusters: list[str], first_chars: int, max_chars: int) -> None:
    pieces = list(split("".join(clusters), first_chars=first_chars, max_chars=max_chars))
    assert set(cuts(pieces)) <= set(cuts(clusters))


@pytest.mark.parametrize("cluster", [cluster for cluster in CLUSTERS if len(cluster) > 1])
def test_a_run_of_one_cluster_is_cut_between_two(cluster: str) -> None:
    for shift in range(len(cluster)):
        pieces = list(split("-" * shift + cluster * 200))
        assert len(pieces) > 1
        assert all((cut - shift) % len(cluster) == 0 for cut in cuts(pieces))


def test_a_cluster_longer_than_the_bound_is_cut_at_the_bound() -> None:
    assert [len(piece) for piece in split("a" + "\u0301" * 99, max_chars=40)] == [40, 40, 20]


# --- markup -------------------------------------------------------------------------------------------------------

MARKUP = [
    "[two words. More](/tˈu wˈɜɹdz/)",
    "[Kokoro](/kˈOkəɹO/)",
    "[a. B. C. D. E](-1)",
    "[big](+0.5)",
    "[pause:0.5s]",
    "[Pause: 300 ms]",
    "[no end. Is. Here",
    "[pause:",
    "](/x/)",
    "[a link. Of another](https://kind.org)",
]


def marked(text: str, max_chars: int = BOUND) -> list[str]:
    return list(split(text, first_chars=max_chars, max_chars=max_chars, markup=True))


@pytest.mark.parametrize("markup", MARKUP[:6])
def test_nothing_ends_or_is_cut_inside_markup(markup: str) -> None:
    for before in range(1, 100):
        text = f"{'x' * before} {markup} and more. It goes on. "
        for max_chars in (40, 60):
            pieces = list(split(text, first_chars=20, max_chars=max_chars, markup=True))
            assert "".join(pieces) == text
            assert sum(markup in piece for piece in pieces) == 1, pieces


def test_without_markup_its_sentences_are_sentences() -> None:
    text = f"This is {MARKUP[0]} and a second sentence is here."
    assert len(marked(text)) == 1
    assert sentences(text) == ["This is [two words. ", "More](/tˈu wˈɜɹdz/) and a second sentence is here."]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("He came home late. [pause:1s] and she left.", ["He came home late. ", "[pause:1s] and she left."]),
        (
            "He came home late. [Kokoro](/k/) left again then.",
            ["He came home late. ", "[Kokoro](/k/) left again then."],
        ),
        ("He said “stop.” [then](/ðɛn/) he left.", ["He said “stop.” [then](/ðɛn/) he left."]),
        (
            "She met Dr. [Smith](/smˈɪθ/) there. Nobody else came.",
            ["She met Dr. [Smith](/smˈɪθ/) there. ", "Nobody else came."],
        ),
    ],
)
def test_a_sentence_reads_on_with_the_word_in_the_markup(text: str, pieces: list[str]) -> None:
    assert marked(text) == pieces


def test_markup_longer_than_the_bound_is_text() -> None:
    long = f"[{'word. ' * 100}](/wˈɜɹd/)"
    assert "".join(marked(long)) == long
    assert max(map(len, marked(long))) <= BOUND
    fitting = f"[{'w. ' * 97}](/w/)"
    assert len(fitting) <= BOUND
    for before in range(20, 150, 7):
        pieces = marked(f"It is a sentence to begin with. {'x ' * before}{fitting} It ends.")
        assert sum(fitting in piece for piece in pieces) == 1


@given(st.lists(st.sampled_from([*MARKUP, *CLUSTERS, "Yes. ", "no, ", "wordy ", ""]), max_size=60), st.integers(40, 90))
def test_markup_anywhere_is_whole_and_nothing_is_lost(parts: list[str], max_chars: int) -> None:
    text = " ".join(parts)
    pieces = list(split(text, first_chars=20, max_chars=max_chars, markup=True))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= max_chars for piece in pieces)
    edges = set(cuts(pieces))
    for markup in MARKUP[:6]:
        at = text.find(markup)
        while at >= 0:
            assert edges.isdisjoint(range(at + 1, at + len(markup))), pieces
            at = text.find(markup, at + 1)


def test_words_are_found_in_any_script() -> None:
    text = "Don't — 3.5 你好, ok"
    assert [text[start:stop] for start, stop in words(text)] == ["Don't", "3.5", "你", "好", "ok"]


# --- whatever the text --------------------------------------------------------------------------------------------

ANYTHING = st.text(alphabet=st.characters(), max_size=400)  # surrogates (Cs) and controls included
FRAGMENTS = [
    *("Dr. ", "e.g. ", "z. B. ", "U.S. ", "J. ", "3.14", "1.000 ", "am 3. Oktober ", "core.py ", "http://a.bc/?d=e.f "),
    *(
        "Hello",
        "world ",
        "Yes. ",
        "no! ",
        "你好",
        "世界，",
        "。",
        "「行く。」",
        "안녕 ",
        "नमस्ते",
        "।",
        "مرحبا، ",
        "؟ ",
        "ที่ ",
    ),
    *(
        "👨\u200d👩\u200d👧",
        "🇩🇪",
        "👍🏽",
        "e\u0301",
        "\ud83d",
        "\udc00",
        "\x00",
        "\u200b",
        "...",
        "…",
        "?!",
        "—",
        ", ",
        "; ",
        ": ",
    ),
    *(
        '"',
        "“",
        "”",
        "« ",
        " »",
        "(",
        ")",
        "[1]",
        "*",
        " ",
        "   ",
        "\t",
        "\xa0",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "- ",
        "# ",
        "1. ",
    ),
    *("x" * 40, "字" * 40, "." * 40, " " * 40, "wordy " * 20, "a clause, " * 20),
]
MIXTURES = st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join)


@given(st.one_of(ANYTHING, MIXTURES), st.integers(1, 400), st.integers(16, 400))
def test_nothing_is_lost_or_moved_and_no_piece_is_empty_or_too_long(
    text: str, first_chars: int, max_chars: int
) -> None:
    pieces = list(split(text, first_chars=first_chars, max_chars=max_chars))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= max_chars for piece in pieces)


SPOKEN = [
    "Hello ",
    "yes. ",
    "No! ",
    "… ",
    "... ",
    "!!! ",
    "— ",
    "\n\n",
    "* * *\n\n",
    "你好",
    "。",
    "，",
    "“",
    "” ",
    "🎉 ",
    "wordy " * 12,
]


@given(st.lists(st.sampled_from(SPOKEN), max_size=60).map("".join), st.sampled_from([40, 80, BOUND]))
def test_a_silent_piece_comes_only_where_no_neighbour_has_room(text: str, max_chars: int) -> None:
    for one, other in pairwise(split(text, max_chars=max_chars)):
        assert not (silent(one) or silent(other)) or len(one) + len(other) > max_chars


def test_every_single_character_passes_alone_and_between_words() -> None:
    for code in (
        *range(0x3100),
        *range(0xD7F0, 0xE010),
        *range(0xFE00, 0x10100),
        *range(0x1F000, 0x20000, 7),
        0x10FFFF,
    ):
        for text in (chr(code), f"Word one.{chr(code)} Word two", f"字{chr(code)}字"):
            assert "".join(split(text)) == text


def test_a_megabyte_without_a_space_is_cut() -> None:
    pieces = list(split("x" * 2**20))
    assert sum(map(len, pieces)) == 2**20
    assert max(map(len, pieces)) == BOUND


# --- laziness and cost, by counting -------------------------------------------------------------------------------


class Endless(str):
    """Text of 10^12 characters that are made when a slice asks for them: whatever else reads it finds it empty."""

    __slots__ = ()
    period = "The rain went on until five. Nobody came, and Dr. Smith slept. "

    def __len__(self) -> int:
        return 10**12

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        assert isinstance(key, slice)
        start, stop, _ = key.indices(len(self))
        assert stop - start <= BOUND + AHEAD
        skipped = start % len(self.period)
        return (self.period * (2 + (stop - start) // len(self.period)))[skipped : skipped + stop - start]


def test_pieces_of_an_endless_text_come_after_one_window_each() -> None:
    pieces: Iterator[str] = split(Endless(), max_chars=BOUND)
    first, second = "The rain went on until five. ", "Nobody came, and Dr. Smith slept. "
    assert [next(pieces) for _ in range(6)] == [first, second] * 3


class Counted(str):
    """Text that counts the characters its slices hand out."""

    __slots__ = ("read",)

    def __init__(self, _text: str) -> None:
        self.read = 0

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        part = super().__getitem__(key)
        self.read += len(part)
        return part


@pytest.mark.parametrize(
    "unit",
    ["A sentence of some words. ", "x", " ", ".", "a. ", "字", "\n\n", "- ", "🇩🇪", "e\u0301", '"', "a, ", "# a\n"],
)
def test_the_characters_read_grow_with_the_pieces_and_so_with_the_text(unit: str) -> None:
    reads = []
    for times in (2_000, 4_000):
        text = Counted(unit * times)
        assert text.read == 0
        number = len(list(split(text, max_chars=BOUND)))
        assert text.read <= number * (BOUND + AHEAD)
        reads.append(text.read)
    assert reads[1] <= 2.5 * reads[0]


def test_nothing_is_read_before_the_first_piece_is_asked_for() -> None:
    text = Counted("A sentence. " * 1000)
    pieces = split(text)
    assert text.read == 0
    next(pieces)
    assert text.read <= BOUND + AHEAD
