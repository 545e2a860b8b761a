"""Reads calls of functions, in the order in which their text comes."""

import json
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

import regex

from yapit_plugin_hf_generic.generating.parsing.pieces import Pieces
from yapit_plugin_hf_generic.generating.parsing.scanning import JsonEnd
from yapit_plugin_hf_generic.generating.parsing.styles import Format
from yapit_plugin_hf_generic.generating.parsing.values import arguments_of, parsed, value_of

OBJECT = (
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*(?P<name>"(?:[^"\\]|\\.){0,200}+")\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_OBJECT = regex.compile(r"\s*" + OBJECT)
_FENCE = "```"


class Outcome(Enum):
    """How far a call is read."""

    MORE = auto()
    DONE = auto()
    NO_CALL = auto()


class CallReader:
    """Reads what follows the mark of a call, up to the call's end, or the end of a list of calls.

    Args:
        kind: the format.
        tools: the functions' parameters by their names.
        out: takes the pieces, a call's name when its arguments begin.
    """

    def __init__(self, kind: Format, tools: Mapping[str, Any], out: Pieces) -> None:
        self._format = kind
        self._tools = tools
        self._out = out
        self._held = ""
        self._final = False
        self._seen = ""  # everything, as long as it may be no call
        self._sure = False
        self._listed = False
        self._passed = ""
        self._parameters = 0
        self._properties: Mapping[str, Any] = {}
        self._json = JsonEnd()
        self._step: Callable[[], Outcome | None] = self._body

    def read(self, text: str, *, final: bool) -> tuple[str, Outcome]:
        """Read a further portion; return what of it is not the call's, and the outcome.

        After `NO_CALL` that is everything since the mark.
        """
        self._held += text
        self._final = final
        if not self._sure:
            self._seen += text
        outcome = None
        while outcome is None:
            outcome = self._step()
        if outcome is Outcome.MORE:
            return "", outcome
        return (self._seen if outcome is Outcome.NO_CALL else self._held), outcome

    def _body(self) -> Outcome | None:
        """Find out in which form the call is written."""
        body = self._held.lstrip()
        if not body:
            return self._no_call() if self._final else Outcome.MORE
        if body[0] == "[" and not self._listed:
            self._listed = True
            self._held = body[1:]
            return None
        if body[0] == "{":
            self._step = self._object
            return None
        pattern = self._format.markup.name if self._format.markup else self._format.head
        found = pattern.match(body) if pattern else None
        if found is not None:
            self._begin(found["name"], body[found.end() :])
            self._step = self._parameter if self._format.markup else self._arguments
            return None
        if self._final or pattern is None or pattern.fullmatch(body, partial=True) is None:
            return self._no_call()
        return Outcome.MORE

    def _object(self) -> Outcome | None:
        """Read a call that is an object; its arguments go out as they come if the name is before them."""
        found = _OBJECT.match(self._held)
        if found is not None:
            self._begin(json.loads(found["name"]), self._held[found.end() :])
            self._passed = "{"
            self._step = self._arguments
        elif self._final or _OBJECT.fullmatch(self._held, partial=True) is None:
            self._held = self._held.lstrip()
            self._passed, self._json = "", JsonEnd()
            self._step = self._whole
        else:
            return Outcome.MORE
        return None

    def _whole(self) -> Outcome | None:
        """Read a call that is an object, to its end."""
        said, length = self._json.take(self._held)
        self._passed += said
        self._held = self._held[length:]
        if not self._json.closed:
            return self._no_call() if self._json.broken or self._final else Outcome.MORE
        call = parsed(self._passed)
        arguments = arguments_of(call)
        if arguments is None:
            return self._no_call()
        self._begin(call["name"], self._held)
        self._out.arguments(arguments)
        self._step = self._end
        return None

    def _begin(self, name: str, rest: str) -> None:
        self._out.call(name)
        self._sure, self._seen, self._held = True, "", rest
        self._passed, self._parameters, self._json = "", 0, JsonEnd()
        self._properties = (self._tools.get(name) or {}).get("properties") or {}

    def _arguments(self) -> Outcome | None:
        said, length = self._json.take(self._held)
        self._out.arguments(said)
        self._held = self._held[length:]
        if self._json.closed or self._json.broken:
            inside = self._passed and self._json.closed
            self._passed, self._json = "", JsonEnd(depth=1)
            self._step = self._object_end if inside else self._end
            return None
        return Outcome.DONE if self._final else Outcome.MORE

    def _object_end(self) -> Outcome | None:
        """Pass over what is in the object after the arguments; what is no JSON is text."""
        body = self._held.lstrip()
        if not self._passed and body[:1] not in ("}", ",", ""):
            self._step = self._end
            return None
        said, length = self._json.take(body if not self._passed else self._held)
        self._held = body[length:] if not self._passed else self._held[length:]
        self._passed += said
        if self._json.broken or (self._final and not self._json.closed):
            self._out.text(self._passed)
        elif not self._json.closed:
            return Outcome.MORE
        self._step = self._end
        return None

    def _end(self) -> Outcome | None:
        """Pass over what ends a call; another may follow in a list."""
        options = (*((",", "]") if self._listed else ()), _FENCE, *self._format.end)
        body = self._held.lstrip()
        found = next((option for option in options if body.startswith(option)), None)
        if found is None:
            begun = any(option.startswith(body) for option in options)
            return Outcome.MORE if begun and not self._final else Outcome.DONE
        self._held = body[len(found) :]
        if found in self._format.end:
            return Outcome.DONE
        if found == ",":
            self._step = self._body
        elif found == "]":
            self._listed = False
        return None

    def _parameter(self) -> Outcome | None:
        """Read a parameter that is marked by tags."""
        markup = self._format.markup
        assert markup is not None  # noqa: S101 - else this step is never taken
        body = self._held.lstrip()
        if not self._final and markup.lead.startswith(body):
            return Outcome.MORE
        if not body.startswith(markup.lead):
            return self._parameters_end(body, markup.done)
        key = markup.key.match(body)
        at = body.find(markup.close, key.end()) if key is not None else -1
        if key is not None and at >= 0:
            self._argument(key[1], value_of(body[key.end() : at], self._properties.get(key[1])))
            self._held = body[at + len(markup.close) :]
            return None
        if not self._final:
            return Outcome.MORE
        if key is not None:  # it was cut off: what is there goes out, without an end
            self._argument(key[1], json.dumps(body[key.end() :].removeprefix("\n"), ensure_ascii=False)[:-1])
            self._held = ""
        return Outcome.DONE

    def _parameters_end(self, body: str, done: str | None) -> Outcome | None:
        if done is not None and not self._final and done.startswith(body) and done != body:
            return Outcome.MORE
        self._out.arguments("}" if self._parameters else "{}")
        self._held = body.removeprefix(done or "")
        self._step = self._end
        return None

    def _argument(self, key: str, value: str) -> None:
        lead = ", " if self._parameters else "{"
        self._out.arguments(f"{lead}{json.dumps(key, ensure_ascii=False)}: {value}")
        self._parameters += 1

    def _no_call(self) -> Outcome:
        """Tell that this is no call; after a first one in a list, that the calls have ended."""
        return Outcome.DONE if self._sure else Outcome.NO_CALL
