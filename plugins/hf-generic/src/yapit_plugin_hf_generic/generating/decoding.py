"""From tokens to text as they come: whole characters only, no special tokens, and nothing past a stop text."""

from collections.abc import Collection, Sequence
from typing import Any

_BROKEN = "\ufffd"  # what an incomplete character decodes to
_WINDOW = 6  # tokens decoded again before the new ones, since some tokenizers join what stands beside each other


class Detokenizer:
    """Decodes the tokens of one answer.

    Args:
        tokenizer: the model's.
        marks: special tokens whose text is wanted; all others are left out.
    """

    def __init__(self, tokenizer: Any, marks: Collection[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        kept = {tokenizer.convert_tokens_to_ids(mark) for mark in marks}
        self._dropped = frozenset(tokenizer.all_special_ids) - kept
        self._known: list[int] = []  # a few tokens whose text has gone out …
        self._known_text = ""
        self._new: list[int] = []  # … and those whose text has not

    def feed(self, token: int) -> str:
        """Return the text that has become whole with this token."""
        if token in self._dropped:
            return ""
        self._new.append(token)
        return self._advance(final=False)

    def end(self) -> str:
        """Return what is left, with a mark in the place of a character that was not completed."""
        return self._advance(final=True) if self._new else ""

    def _advance(self, *, final: bool) -> str:
        text = self._decode([*self._known, *self._new])
        if text.endswith(_BROKEN) and not final:
            return ""
        fresh = text[len(self._known_text) :]
        self._known, self._known_text, self._new = [*self._known, *self._new], text, []
        if len(self._known) > 2 * _WINDOW:
            self._known = self._known[-_WINDOW:]
            self._known_text = self._decode(self._known)
        return fresh

    def _decode(self, ids: Sequence[int]) -> str:
        if self._backend is not None:
            # Without the layers above it, which take ten times as long as the decoding.
            return str(self._backend.decode(ids, skip_special_tokens=False))
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


class Stops:
    """Looks for the texts that end an answer, also where they come in pieces.

    Args:
        texts: none of them empty.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(text for text in texts if text)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """Return the text that surely comes before any stop."""
        if not self._texts:
            return text
        whole = self._held + text
        places = [place for stop in self._texts if (place := whole.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return whole[: min(places)]
        cut = len(whole) - self._beginning(whole)
        self._held = whole[cut:]
        return whole[:cut]

    def end(self) -> str:
        """Return what was held back and is no stop after all."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Return the length of the longest end of `text` that a stop begins with."""
        longest = max(len(stop) for stop in self._texts) - 1
        for length in range(min(longest, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._texts):
                return length
        return 0
