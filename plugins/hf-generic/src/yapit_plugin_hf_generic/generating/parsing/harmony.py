"""Answers in OpenAI's harmony format: messages in channels, each with a header (gpt-oss)."""

from collections.abc import Callable, Mapping
from typing import Any

import regex

from yapit_plugin_hf_generic.generating.parsing.pieces import Pieces
from yapit_plugin_hf_generic.generating.parsing.scanning import begun, first_of
from yapit_plugin_hf_generic.generating.parsing.styles import AnswerStyle

_MESSAGE = "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_TO = regex.compile(r"\bto=(?:functions\.)?([^\s<]+)")
_CHANNEL = regex.compile(r"<\|channel\|>\s*(\w+)")
_HEADER = ("<|start|>", "<|channel|>")


class HarmonyReader:
    """Reads messages: those of the channel `analysis` are reasoning, those to a function calls, all others text.

    Args:
        style: of the model; nothing in it matters here.
        tools: the functions' parameters by their names; without any, a message to one is text.
        prefix: what the prompt has written of the answer: text, if anything.
        out: takes the pieces.
    """

    def __init__(self, style: AnswerStyle, tools: Mapping[str, Any], prefix: str, out: Pieces) -> None:
        del style
        self._tools = tools
        self._out = out
        self._held = ""
        self._final = False
        self._take: Callable[[str], None] = out.text
        self._step = self._content if prefix.strip() else self._header

    def feed(self, text: str, *, final: bool = False) -> None:
        """Read a further portion; `final` says that it is the last."""
        self._held += text
        self._final = final
        while self._step():
            pass

    def _header(self) -> bool:
        body = self._held.lstrip()
        if not any(body.startswith(mark) or (mark.startswith(body) and not self._final) for mark in _HEADER):
            self._take, self._step = self._out.text, self._content  # it writes text with no header
            return bool(self._held)
        header, found, rest = self._held.partition(_MESSAGE)
        if not found:
            if self._final:
                self._out.text(self._held)
                self._held = ""
            return False
        self._held, self._step = rest, self._content
        self._take = self._out.text
        to, channel = _TO.search(header), _CHANNEL.search(header)
        if to is not None and self._tools:
            self._out.call(to[1])
            self._take = self._out.arguments
        elif channel is not None and channel[1] == "analysis":
            self._take = self._out.reasoning
        return True

    def _content(self) -> bool:
        found = first_of(_ENDS, self._held)
        if found is not None:
            at, mark = found
            self._take(self._held[:at])
            self._held = self._held[at + (0 if mark == "<|start|>" else len(mark)) :]
            self._step = self._header
            return bool(self._held)
        end = len(self._held) - (0 if self._final else begun(_ENDS, self._held))
        self._take(self._held[:end])
        self._held = self._held[end:]
        return False
