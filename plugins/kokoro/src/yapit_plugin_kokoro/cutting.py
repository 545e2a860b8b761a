"""Cuts phonemes that are too many for one call of the model, at the pause where it is heard least."""

import re

LONGEST = 510  # phonemes of one call: the model reads 512 tokens, of which two are its own

# After the marks that end sentences, then clauses, then at commas and dashes, then between words.
_WATERFALL = tuple(re.compile(pattern) for pattern in (r"[!.?…]+[)”\"]?", r"[:;]+[)”\"]?", r"[,—]+[)”\"]?", r" "))


def cut(phonemes: str, longest: int = LONGEST) -> list[tuple[int, int]]:
    """Return the edges of pieces of at most `longest` characters, which joined are the whole."""
    edges, start = list[tuple[int, int]](), 0
    while len(phonemes) - start > longest:
        stop = _pause(phonemes, start, start + longest)
        edges.append((start, stop))
        start = stop
    edges.append((start, len(phonemes)))
    return edges


def _pause(phonemes: str, start: int, limit: int) -> int:
    """Return where the last pause up to `limit` ends, else `limit`."""
    for marks in _WATERFALL:
        ends = [match.end() for match in marks.finditer(phonemes, start + 1, limit) if phonemes[start : match.start()]]
        if ends:
            # The space after a mark goes with it, so that no piece begins with one.
            return ends[-1] + 1 if ends[-1] < limit and phonemes[ends[-1]] == " " else ends[-1]
    return limit
