import pytest

from yapit import Segment, Word
from yapit.subtitles import captions, subtitles

TEXT = "Hello, world! A <second> line & more words than will fit upon it."


def words(text: str, *, pause_after: str = "") -> tuple[Word, ...]:
    """Each word half a second long, with a second of silence after `pause_after`."""
    found, start_s, offset = [], 0.0, 0
    for word in text.split():
        offset = text.index(word, offset)
        found.append(Word(text=word, start_s=start_s, end_s=start_s + 0.5, offset=offset))
        start_s += 1.5 if word == pause_after else 0.5
        offset += len(word)
    return tuple(found)


def test_srt_is_numbered_and_keeps_the_punctuation() -> None:
    assert subtitles(TEXT, words(TEXT, pause_after="world!"), "srt") == (
        "1\n00:00:00,000 --> 00:00:01,000\nHello, world!\n\n"
        "2\n00:00:02,000 --> 00:00:06,500\nA <second> line & more words than will fit\n\n"
        "3\n00:00:06,500 --> 00:00:07,500\nupon it.\n"
    )


def test_vtt_escapes_what_would_be_markup() -> None:
    shown = subtitles(TEXT, words(TEXT), "vtt")
    assert shown.startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert "A &lt;second&gt; line &amp;" in shown
    assert subtitles("a --> b", words("a --> b"), "vtt").count("-->") == 1


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_a_cue_is_one_line(kind: str) -> None:
    text = "one\n\ntwo\r\n three"
    lines = subtitles(text, words(text), kind).splitlines()  # type: ignore[arg-type]  # parametrized
    assert lines[-1] == "one two three"


def test_scripts_without_spaces_are_not_torn_apart() -> None:
    text = "你好。世界"
    spoken = tuple(Word(text=c, start_s=i / 4, end_s=i / 4 + 0.2, offset=i) for i, c in enumerate(text) if c != "。")
    assert subtitles(text, spoken, "srt").splitlines()[2] == text


def test_nothing_said_is_no_cue() -> None:
    assert subtitles("…", (), "srt") == ""
    assert subtitles("…", (), "vtt") == "WEBVTT\n"


def test_hours_are_shown() -> None:
    late = (Word(text="late", start_s=3725.25, end_s=3725.9996, offset=0),)
    assert "01:02:05,250 --> 01:02:06,000" in subtitles("late", late, "srt")


def test_an_arrow_in_a_text_is_no_arrow_of_times() -> None:
    assert "a -> b" in subtitles("a --> b", words("a --> b"), "srt")
    said = Segment(text=" x --> y ---->\n z ", start_s=0, end_s=1)
    for kind in ("srt", "vtt"):
        assert captions([said], kind).count("-->") == 1


def test_each_segment_that_says_something_is_a_cue() -> None:
    segments = [
        Segment(text=" Hello.", start_s=-0.5, end_s=59.9996),
        Segment(text=" \n", start_s=60, end_s=61),
        Segment(text=" Again\n& again.", start_s=3599.9996, end_s=3599),
    ]
    assert captions(segments, "srt") == (
        "1\n00:00:00,000 --> 00:01:00,000\nHello.\n\n2\n01:00:00,000 --> 01:00:00,000\nAgain & again.\n"
    )
    assert captions(segments, "vtt").endswith("01:00:00.000 --> 01:00:00.000\nAgain &amp; again.\n")
    assert captions([], "vtt") == "WEBVTT\n"
