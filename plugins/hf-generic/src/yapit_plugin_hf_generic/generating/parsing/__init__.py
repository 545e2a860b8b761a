"""What a model's text means: reasoning, text, and calls of functions, told apart while it is written."""

from collections.abc import Mapping
from typing import Any

from yapit import GenerateRequest, TextChunk
from yapit_plugin_hf_generic.generating.parsing.harmony import HarmonyReader
from yapit_plugin_hf_generic.generating.parsing.pieces import Pieces
from yapit_plugin_hf_generic.generating.parsing.styles import AnswerStyle, Tags, ToolsFormat
from yapit_plugin_hf_generic.generating.parsing.tagged import TaggedReader

__all__ = ["AnswerParser", "AnswerStyle", "Tags", "ToolsFormat"]


class AnswerParser:
    """Tells reasoning, text and calls of one answer apart.

    No character is lost: what only looks like a call is text. White space next to a tag belongs to the tag.

    Args:
        style: of the model.
        request: whose answer it is; calls are looked for if it has tools, nothing is if it continues a bare prompt.
        prefix: what the prompt has written of the answer already.
    """

    def __init__(self, style: AnswerStyle, request: GenerateRequest, prefix: str = "") -> None:
        self._out = Pieces(parallel=request.parallel_tool_calls, short_ids=style.tools.startswith("mistral"))
        self._reader: TaggedReader | HarmonyReader | None = None
        if request.prompt is None:
            reader = HarmonyReader if style.tools == "harmony" else TaggedReader
            self._reader = reader(style, _parameters(request), prefix, self._out)

    @property
    def called(self) -> bool:
        """Whether a function was called."""
        return self._out.called

    def feed(self, text: str) -> list[TextChunk]:
        """Read a further piece of the answer, and return what is certain."""
        if self._reader is None:
            self._out.text(text)
        else:
            self._reader.feed(text)
        return self._out.take()

    def end(self) -> list[TextChunk]:
        """Return what was held back; the answer has ended."""
        if self._reader is not None:
            self._reader.feed("", final=True)
        return self._out.take()


def _parameters(request: GenerateRequest) -> Mapping[str, Any]:
    """Return the schemas of the functions' parameters by their names."""
    functions = (tool.get("function") or {} for tool in request.tools)
    return {function["name"]: function.get("parameters") or {} for function in functions if "name" in function}
