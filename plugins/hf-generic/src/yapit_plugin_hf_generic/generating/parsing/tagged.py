"""Answers with tags: reasoning first, then text with calls in it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import regex

from yapit_plugin_hf_generic.generating.parsing.calls import OBJECT, CallReader, Outcome
from yapit_plugin_hf_generic.generating.parsing.pieces import Pieces
from yapit_plugin_hf_generic.generating.parsing.scanning import begun, first_of, trailing_space
from yapit_plugin_hf_generic.generating.parsing.styles import FORMATS, AnswerStyle, Format

_BARE = regex.compile(r"(?:[;,]\s*)?(?:```(?:json)?\s*)?(?P<call>(?:\[\s*)?" + OBJECT + ")")


class TaggedReader:
    """Reads an answer in which tags mark reasoning and calls.

    Each step takes what is certain from the held text, and says whether it goes on; so it does not matter in which
    portions the text comes.

    Args:
        style: of the model.
        tools: the functions' parameters by their names; calls are looked for if there are any.
        prefix: what the prompt has written of the answer.
        out: takes the pieces.
    """

    def __init__(self, style: AnswerStyle, tools: Mapping[str, Any], prefix: str, out: Pieces) -> None:
        self._tags = style.reasoning
        self._tools = tools
        self._format = FORMATS[style.tools] if tools else None
        self._marks = (*self._format.begin, *self._format.around) if self._format else ()
        self._out = out
        self._held = ""
        self._final = False
        self._opened = ""  # the mark of a call, and the white space before it
        self._call: CallReader | None = None
        self._trims = False  # white space that comes next only separates
        self._step: Callable[[], bool] = self._start
        if prefix.strip():
            self._go_on(prefix)

    def feed(self, text: str, *, final: bool = False) -> None:
        """Read a further portion; `final` says that it is the last."""
        self._held += text
        self._final = final
        while self._step():
            pass

    def _go_on(self, prefix: str) -> None:
        """Begin where the prompt has stopped."""
        self._step = self._text
        if self._tags is None:
            return
        _, found, thought = prefix.rpartition(self._tags.open)
        if found and self._tags.close not in thought:
            self._trims, self._step = not thought.strip(), self._think
        elif self._tags.close in prefix and not prefix.rpartition(self._tags.close)[2].strip():
            self._step = self._first

    def _start(self) -> bool:
        """Look for reasoning, before anything else."""
        body = self._held.lstrip()
        if self._tags is not None and body.startswith(self._tags.open):
            self._held, self._trims, self._step = body[len(self._tags.open) :], True, self._think
            return True
        if self._tags is not None and not self._final and self._tags.open.startswith(body):
            return False
        self._step = self._first
        return True

    def _think(self) -> bool:
        assert self._tags is not None  # noqa: S101 - else this step is never taken
        if not self._trimmed():
            return False
        thought, found, rest = self._held.partition(self._tags.close)
        if found:
            self._out.reasoning(thought.rstrip())
            self._held, self._trims, self._step = rest, True, self._first
            return True
        self._release(self._out.reasoning, (self._tags.close,))
        return False

    def _first(self) -> bool:
        """Look whether the text is a call that nothing marks."""
        body = self._held.lstrip()
        if self._format is None or not self._format.bare or self._is_no_call(body):
            self._step = self._text
            return True
        found = _BARE.match(body)
        if found is None:
            return False
        self._read(self._format, opened="", rest=body[found.start("call") :])
        return True

    def _is_no_call(self, body: str) -> bool:
        assert self._format is not None  # noqa: S101 - else this is not asked
        found = _BARE.match(body)
        if found is None:
            return self._final or _BARE.fullmatch(body, partial=True) is None
        return not self._format.any_name and json.loads(found["name"]) not in self._tools

    def _text(self) -> bool:
        if not self._trimmed():
            return False
        found = first_of(self._marks, self._held)
        if found is None:
            self._release(self._out.text, self._marks)
            return False
        assert self._format is not None  # noqa: S101 - else there are no marks
        at, mark = found
        said = self._held[:at].rstrip()
        end = at + len(mark)
        self._out.text(said)
        if mark in self._format.around:
            self._held, self._trims = self._held[end:], True
        else:
            self._read(self._format, opened=self._held[len(said) : end], rest=self._held[end:])
        return True

    def _read(self, kind: Format, *, opened: str, rest: str) -> None:
        self._call = CallReader(kind, self._tools, self._out)
        self._opened, self._held, self._step = opened, rest, self._calling

    def _calling(self) -> bool:
        assert self._call is not None  # noqa: S101 - else this step is never taken
        self._held, outcome = self._call.read(self._held, final=self._final)
        if outcome is Outcome.MORE:
            return False
        if outcome is Outcome.NO_CALL:
            self._out.text(self._opened)
            self._trims, self._step = False, self._text
        else:
            self._trims, self._step = True, self._first
        return True

    def _trimmed(self) -> bool:
        """Drop the white space that only separates, and tell whether anything is left."""
        if self._trims:
            self._held = self._held.lstrip()
            self._trims = not self._held
        return bool(self._held)

    def _release(self, out: Callable[[str], None], marks: tuple[str, ...]) -> None:
        """Let out what is no part of a mark, nor white space before one."""
        end = len(self._held)
        if not self._final and marks:
            end -= begun(marks, self._held)
            end -= trailing_space(self._held[:end])
        out(self._held[:end])
        self._held = self._held[end:]
