"""Where things end in text that is not complete yet."""

import json
import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[\s0-9+\-.eEtrufalsn,:]+")
_INSIDE = re.compile(r'[^"\\\x00-\x1f]+')


class JsonEnd:
    """Follows JSON text, given in any portions, to the end of its first object or list.

    `closed` is true once that has come, `broken` once the text cannot be JSON.

    Args:
        depth: how many objects are open already.
    """

    def __init__(self, *, depth: int = 0) -> None:
        self.closed = False
        self.broken = False
        self._depth = depth
        self._in_string = False
        self._escaped = False

    def take(self, text: str) -> tuple[str, int]:
        """Follow a further portion; return the JSON that is in it, and how many of its characters that took.

        A control character in a string, which JSON forbids but models write, comes out as its escape.
        """
        out: list[str] = []
        at = 0
        while at < len(text) and not self.closed and not self.broken:
            found = _INSIDE.match(text, at) if self._in_string and not self._escaped else None
            if found is None and not self._in_string:
                found = _PLAIN.match(text, at)
            if found is not None:
                out.append(found.group())
                at = found.end()
            elif (said := self._one(text[at])) is not None:
                out.append(said)
                at += 1
        return "".join(out), at

    def _one(self, char: str) -> str | None:
        """Follow one character, and return what it is in JSON, None if it does not belong to it."""
        if self._in_string:
            if char < " ":
                self._escaped = False
                return json.dumps(char)[1:-1]
            self._in_string = char != '"' or self._escaped
            self._escaped = char == "\\" and not self._escaped
        elif char == '"':
            self._in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            self.closed = self._depth == 0
        else:
            self.broken = True
            return None
        return char


def first_of(marks: Iterable[str], text: str) -> tuple[int, str] | None:
    """Return where the first of the marks is, and which; None if none is there."""
    found = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
    return min(found, key=lambda item: (item[0], -len(item[1]))) if found else None


def begun(marks: Iterable[str], text: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of a mark."""
    longest = 0
    for mark in marks:
        for length in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:length]):
                longest = length
                break
    return longest


def trailing_space(text: str) -> int:
    """Return how many characters of white space are at the end of `text`."""
    return len(text) - len(text.rstrip())
