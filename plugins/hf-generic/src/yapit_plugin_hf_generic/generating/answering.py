"""One answer: tokens in; text, reasoning, tool calls and log-probabilities out, up to the reason it ended."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from yapit import TextChunk, TokenLogprob, Usage
from yapit_plugin_hf_generic.generating.decoding import Detokenizer, Stops
from yapit_plugin_hf_generic.generating.picking import Likely, Picker
from yapit_plugin_hf_generic.generating.spelling import Spelling

_LOOKED_AT = 64  # tokens without text at most


class Parser(Protocol):
    """What takes an answer's text apart."""

    @property
    def called(self) -> bool:
        """Whether a function was called."""

    def feed(self, text: str) -> list[TextChunk]:
        """Return what is known to be text, reasoning or a call."""

    def end(self) -> list[TextChunk]:
        """Return the rest."""


class Answer:
    """Makes chunks of the tokens of one answer.

    Args:
        spelling: of the model's tokens.
        detokenizer: of this answer.
        stops: texts that end it.
        parser: of its text.
        picker: that chose its tokens, and has their log-probabilities.
    """

    def __init__(
        self, spelling: Spelling, detokenizer: Detokenizer, stops: Stops, parser: Parser, picker: Picker
    ) -> None:
        self._spelling = spelling
        self._detokenizer = detokenizer
        self._stops = stops
        self._parser = parser
        self._picker = picker
        self._unsaid: list[TokenLogprob] = []  # of tokens whose text has not gone out
        self._noted = 0
        self._thinking = 0
        self.written = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found: no further token is wanted."""
        return self._stops.found

    def feed(self, tokens: Sequence[int], ends: Sequence[int]) -> Iterator[TextChunk]:
        """Yield what these tokens add; those after a stop are not looked at."""
        if not self._picker.notes and len(tokens) > 1:
            text = "".join([self._detokenizer.feed(token) for token in tokens if token not in ends])
            yield from self._parsed(text, len(tokens))
            return
        for token in tokens:
            if self.stopped:
                return
            text = "" if token in ends else self._detokenizer.feed(token)
            self._note(token, ended=token in ends)
            yield from self._parsed(text, 1)

    def end(self, reason: str, read: int) -> Iterator[TextChunk]:
        """Yield the rest, and last the reason and the usage.

        Args:
            reason: `stop` or `length`, if no text stopped it.
            read: tokens of the prompt.
        """
        if not self.stopped:
            yield from self._said(self._parser.feed(self._stops.feed(self._detokenizer.end()) + self._stops.end()))
        yield from self._said(self._parser.end())
        if self.stopped:
            reason = "stop"
        if reason == "stop" and self._parser.called:
            reason = "tool_calls"
        usage = Usage(input_tokens=read, output_tokens=self.written, reasoning_tokens=self._thinking)
        yield TextChunk(finish_reason=reason, usage=usage)

    def _parsed(self, text: str, tokens: int) -> Iterator[TextChunk]:
        self.written += tokens
        sure = self._stops.feed(text) if text else ""
        chunks = self._parser.feed(sure) if sure else []
        if chunks and all(chunk.reasoning and not chunk.text for chunk in chunks):
            self._thinking += tokens
        yield from self._said(chunks)

    def _said(self, chunks: list[TextChunk]) -> Iterator[TextChunk]:
        for chunk in chunks:
            if chunk.text and self._unsaid:
                yield TextChunk(text=chunk.text, tool_calls=chunk.tool_calls, logprobs=self._take(chunk.text))
                continue
            if not chunk.text:
                # Reasoning, or a call: what made it is not listed; the newest token may have begun a text as well.
                self._unsaid = self._unsaid[-1:]
            yield chunk

    def _take(self, text: str) -> tuple[TokenLogprob, ...]:
        """Return the tokens of this text, and forget those before it: of reasoning, of calls, of tags.

        Tokens whose text is held back stay. All are returned where the text does not begin and end with tokens.
        """
        unsaid = self._unsaid
        for end in range(1, min(len(unsaid), _LOOKED_AT) + 1):
            for begin in range(end):
                data = b"".join([token.data for token in unsaid[begin:end]])
                if data.decode("utf-8", "replace") == text:
                    self._unsaid = unsaid[end:]
                    return tuple(unsaid[begin:end])
        self._unsaid = []
        return tuple(unsaid)

    def _note(self, token: int, *, ended: bool) -> None:
        if self._noted >= len(self._picker.noted):
            return
        likely: Likely = self._picker.noted[self._noted]
        self._noted += 1
        if not ended:
            self._unsaid.append(self._spelling.listed(token, likely))
