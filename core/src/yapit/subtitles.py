"""Words and segments with times as subtitles: SubRip (srt) and WebVTT (vtt)."""

import html
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from yapit.schemas import Segment, Word

Kind = Literal["srt", "vtt"]
_LONGEST_CHARS = 42  # what broadcasters put on a line
_LONGEST_PAUSE_S = 0.5


class _Cue(NamedTuple):
    start_s: float
    end_s: float
    text: str


def subtitles(text: str, words: tuple[Word, ...], kind: Kind) -> str:
    """Return `text` as subtitles, cut before words so that a line is short and shows nothing across a pause.

    Args:
        text: what is said, with its punctuation.
        words: its words in order, with their offsets in `text`.
        kind: SubRip or WebVTT.
    """
    cues: list[list[Word]] = []
    for word in words:
        if cues and _same_cue(cues[-1], word):
            cues[-1].append(word)
        else:
            cues.append([word])
    # What stands before the first word belongs to its cue, what stands after a word to the word's.
    edges = [0, *(cue[0].offset for cue in cues[1:]), len(text)]
    lines = (text[edges[number] : edges[number + 1]] for number in range(len(cues)))
    return _written((_Cue(cue[0].start_s, cue[-1].end_s, line) for cue, line in zip(cues, lines, strict=True)), kind)


def captions(segments: Iterable[Segment], kind: Kind) -> str:
    """Return a transcript as subtitles, a cue for each segment that says something."""
    return _written((_Cue(part.start_s, part.end_s, part.text) for part in segments if part.text.strip()), kind)


def _same_cue(cue: list[Word], word: Word) -> bool:
    length = word.offset + len(word.text) - cue[0].offset
    return length <= _LONGEST_CHARS and word.start_s - cue[-1].end_s <= _LONGEST_PAUSE_S


def _written(cues: Iterable[_Cue], kind: Kind) -> str:
    blocks = ["WEBVTT\n"] if kind == "vtt" else []
    for number, cue in enumerate(cues, 1):
        # An arrow in the text would be read as the times of another cue.
        line = re.sub("--+>", "->", " ".join(cue.text.split()))
        if kind == "srt":
            blocks.append(f"{number}\n{_times(cue, ',')}\n{line}\n")
        else:
            blocks.append(f"{_times(cue, '.')}\n{html.escape(line, quote=False)}\n")
    return "\n".join(blocks)


def _times(cue: _Cue, mark: str) -> str:
    return f"{_clock(cue.start_s, mark)} --> {_clock(max(cue.start_s, cue.end_s), mark)}"


def _clock(seconds: float, mark: str) -> str:
    minutes, milliseconds = divmod(round(max(0.0, seconds) * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{whole:02}{mark}{milliseconds:03}"
