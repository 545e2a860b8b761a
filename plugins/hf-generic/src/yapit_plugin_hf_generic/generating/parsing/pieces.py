"""What comes out of a parser: text, reasoning and calls, in the order of the answer."""

import secrets
import string
from typing import Literal

from yapit import TextChunk, ToolCallPart

_ALPHANUMERIC = string.ascii_letters + string.digits
_SHORT_ID = 9  # characters: Mistral's templates take no other ids back


class Pieces:
    """Collects the pieces of one answer.

    Args:
        parallel: False keeps the first call only.
        short_ids: calls get an id of 9 letters and digits.
    """

    def __init__(self, *, parallel: bool = True, short_ids: bool = False) -> None:
        self._parallel = parallel
        self._short_ids = short_ids
        self._calls = 0
        self._muted = False
        self._found: list[tuple[Literal["text", "reasoning"], str] | ToolCallPart] = []

    @property
    def called(self) -> bool:
        """Whether a function was called."""
        return self._calls > 0

    def text(self, text: str) -> None:
        """Add to the text."""
        if text:
            self._found.append(("text", text))

    def reasoning(self, text: str) -> None:
        """Add to the reasoning."""
        if text:
            self._found.append(("reasoning", text))

    def call(self, name: str) -> None:
        """Begin a call."""
        self._muted = self._calls > 0 and not self._parallel
        if not self._muted:
            self._found.append(ToolCallPart(index=self._calls, id=self._new_id(), name=name))
            self._calls += 1

    def arguments(self, text: str) -> None:
        """Add to the arguments of the call that began last."""
        if text and not self._muted:
            self._found.append(ToolCallPart(index=self._calls - 1, arguments=text))

    def take(self) -> list[TextChunk]:
        """Return what was found since the last time; neighbours of one kind are one chunk."""
        found, self._found = self._found, []
        chunks: list[TextChunk] = []
        kept: list[str] = []
        parts: list[ToolCallPart] = []
        kind = ""
        for piece in found:
            now = "tool_calls" if isinstance(piece, ToolCallPart) else piece[0]
            if now != kind:
                chunks += _chunk(kind, kept, parts)
                kind, kept, parts = now, [], []
            if isinstance(piece, ToolCallPart):
                _join(parts, piece)
            else:
                kept.append(piece[1])
        return chunks + _chunk(kind, kept, parts)

    def _new_id(self) -> str:
        if self._short_ids:
            return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(_SHORT_ID))
        return f"call_{secrets.token_hex(12)}"


def _join(parts: list[ToolCallPart], part: ToolCallPart) -> None:
    """Add `part`, to the last one if both are of one call."""
    if parts and parts[-1].index == part.index:
        last = parts[-1]
        parts[-1] = ToolCallPart(
            index=last.index, id=last.id, name=last.name, arguments=last.arguments + part.arguments
        )
    else:
        parts.append(part)


def _chunk(kind: str, kept: list[str], parts: list[ToolCallPart]) -> list[TextChunk]:
    if kind == "text":
        return [TextChunk(text="".join(kept))]
    if kind == "reasoning":
        return [TextChunk(reasoning="".join(kept))]
    return [TextChunk(tool_calls=tuple(parts))] if parts else []
