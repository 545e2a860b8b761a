import pytest
from hypothesis import given
from hypothesis import strategies as st

from yapit_plugin_espeak.pieces import Piece, cut, speakable, speakable_markup, without_tags

LETTERS = st.text(alphabet="ab .,!?\n。、\"'", max_size=120)


@given(LETTERS, st.integers(1, 30))
def test_no_character_is_lost_and_no_piece_is_longer_than_the_limit(text: str, limit: int) -> None:
    pieces = list(cut(text, limit))
    assert "".join(piece.text for piece in pieces) == text
    assert all(0 < len(piece.text) <= limit for piece in pieces)
    assert all(text.startswith(piece.text, piece.offset) for piece in pieces)


def test_a_text_that_fits_is_one_piece_and_ends_without_a_pause() -> None:
    assert list(cut("One. Two.", 20)) == [Piece("One. Two.", 0, end_pause=False)]
    assert list(cut("")) == []


@pytest.mark.parametrize(
    ("text", "first", "pause"),
    [
        ("One, two. Three, four five.", "One, two. ", True),
        ("One, two three four five", "One, ", True),
        ("One two three four five", "One two three four ", False),
        ("“One.” Two three four five", "“One.” ", True),
        ("Line one\nline two three", "Line one\n", True),
        ("一二三。四五六七八九十一二三四五六七八九十", "一二三。", True),
        ("3.14159 26535 8979323846", "3.14159 26535 ", False),
        ("abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrst", False),
    ],
)
def test_a_text_is_cut_after_sentences_then_clauses_then_words(text: str, first: str, pause: bool) -> None:  # noqa: FBT001 - a case's column
    piece = next(cut(text, 20))
    assert (piece.text, piece.end_pause) == (first, pause)


def test_what_the_library_must_not_see_becomes_a_space() -> None:
    assert speakable("a\0b\x01c\ud800d\x7fe\tf\ng") == "a b c d e\tf\ng"
    assert speakable("é😀ب\u200d") == "é😀ب\u200d"


@given(st.text(alphabet=st.characters(), max_size=50))
def test_every_text_can_be_encoded_and_keeps_its_length(text: str) -> None:
    assert len(speakable(text)) == len(text)
    speakable(text).encode()


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("A.B.C.D.E.F.G.H.I.J.", "A B C D E F G H I J "),
        ("_.я_.я" * 5, "  я  я" * 5),
        ("s'" * 9, "s " * 9),
        ("a((((((((((((." * 9, ("a" + 13 * " ") * 9),
        ("?s" * 10, " s" * 10),
        (",-x", ", x"),
        ("-x", " x"),
    ],
)
def test_what_crashes_the_library_is_taken_apart(text: str, safe: str) -> None:
    assert speakable(text) == safe


@pytest.mark.parametrize(
    "text",
    [
        "U.S.A. e.g. i.e.",
        "rock 'n' roll's",
        "well-known (-5) a - b",
        "Well. . . Hm....",
        "1+2+3+4+5+6+7+8+9+0",
        "😀" * 12,
    ],
)
def test_what_is_harmless_stays(text: str) -> None:
    assert speakable(text) == text


def test_markup_is_made_speakable_between_its_tags() -> None:
    text = "<!-- ,-x --><say-as interpret-as='-x'>,-x\0</say-as>"
    assert speakable_markup(text) == "<!-- ,-x --><say-as interpret-as='-x'>, x </say-as>"


def test_tags_become_spaces() -> None:
    assert without_tags("<b>Hi</b> a < b") == "   Hi     a < b"
