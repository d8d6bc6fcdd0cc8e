"""Samples of what a parser does not know: their shape, and nothing that anybody said. Pure.

Kept are the names of fields, the kinds of values, the length of texts and, as a provider's own word, the value of `type`. Fails
closed: what does not look like a name or such a word is told by its length, what is no JSON by its size.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import StreamEvent, UnknownEvent
from aiproxyd.providers.decoding import decode, short

MAX_SAMPLES: Final = 8
"""Samples of one response. A provider's release brings a few kinds at once."""

MAX_SAMPLE_CHARACTERS: Final = 1500

MAX_SAMPLED_BYTES: Final = 1 << 20
"""A larger event or document has no sample: one is not worth the time."""

MAX_KEPT_BYTES: Final = 16 << 10
"""Of each of three events of a stream; where a field is missing, the small events tell it."""

_MAX_DEPTH: Final = 8
_MAX_FIELDS: Final = 40
_MAX_ITEMS: Final = 3

_ANY: Final = msgspec.json.Decoder()
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:/-]{0,63}\Z")


class Samples:
    """Of one response: a sample of each unknown kind, and what it takes to show where a field is missing."""

    __slots__ = ("_before_last", "_first", "_last", "by_kind")

    def __init__(self) -> None:
        self.by_kind: dict[str, str] = {}
        """The redacted shape of what first became an UnknownEvent of this kind."""
        self._first = self._before_last = self._last = b""

    def take(self, events: Sequence[StreamEvent], since: int, data: bytes) -> None:
        """Keep a sample of each kind of unknown event that has none.

        Args:
            events: Of the response so far.
            since: Index of the first one that `data` gave.
            data: What gave them: an event's data, a frame or a document.
        """
        if len(data) <= MAX_KEPT_BYTES and data.startswith(b"{"):
            if self._last:
                self._before_last = self._last
            elif not self._first:
                self._first = data
            self._last = data
        for index in range(since, len(events)):
            event = events[index]
            if type(event) is UnknownEvent and event.kind not in self.by_kind and len(self.by_kind) < MAX_SAMPLES:
                self.by_kind[event.kind] = redacted_sample(data, event.kind)

    def take_document(self, events: Sequence[StreamEvent], body: bytes) -> None:
        """As `take`, for a body that is read at once: it may be larger."""
        self.take(events, 0, body)
        if len(body) <= MAX_SAMPLED_BYTES:
            self._first = self._last = body

    def of_missing(self) -> str:
        """Return the shape of the response's first event and of its last two, or of the document; empty when none was kept."""
        kept = [data for data in dict.fromkeys((self._first, self._before_last, self._last)) if data]
        return "\n".join(redacted_sample(data, "") for data in kept)[:MAX_SAMPLE_CHARACTERS]


def redacted_sample(data: bytes, kind: str) -> str:
    """Return the shape of `data`, or of the part of it that `kind` names, as JSON text of at most MAX_SAMPLE_CHARACTERS.

    Args:
        data: JSON text, or anything.
        kind: As in `UnknownEvent.kind`.
    """
    if len(data) > MAX_SAMPLED_BYTES:
        return _sized(len(data), "bytes")
    try:
        value = decode(_ANY, data)
    except MalformedBody:
        return _sized(len(data), "bytes")
    part = _part_of_type(value, kind.partition(":")[2], _MAX_DEPTH)
    text = msgspec.json.encode(_shape(value if part is None else part, _MAX_DEPTH)).decode()
    return text if len(text) <= MAX_SAMPLE_CHARACTERS else f"{text[:MAX_SAMPLE_CHARACTERS]}…"


def _part_of_type(value: Any, word: str, depth: int) -> Any:
    """Return the first object inside whose type is `word`, or None."""
    if depth and isinstance(value, dict):
        if isinstance(value.get("type"), str) and short(value["type"]) == word:
            return value
        children: Any = value.values()
    elif depth and isinstance(value, list):
        children = value
    else:
        return None
    return next((found for child in children if (found := _part_of_type(child, word, depth - 1)) is not None), None)


def _shape(value: Any, depth: int) -> Any:
    match value:
        case None | bool():
            return value
        case int() | float():
            return 0
        case str():
            return _sized(len(value), "characters")
        case _ if not depth:
            return "…"
        case list():
            shape = [_shape(item, depth - 1) for item in value[:_MAX_ITEMS]]
            return [*shape, f"… {len(value)} items"] if len(value) > _MAX_ITEMS else shape
        case _:
            fields = list(value.items())
            shapes = {_name(name): _field(name, field, depth - 1) for name, field in fields[:_MAX_FIELDS]}
            return shapes | {"…": f"{len(fields)} fields"} if len(fields) > _MAX_FIELDS else shapes


def _field(name: str, value: Any, depth: int) -> Any:
    if name == "type" and isinstance(value, str) and _WORD.match(value):
        return value
    return _shape(value, depth)


def _name(name: str) -> str:
    return name if _WORD.match(name.lstrip("$_")) else _sized(len(name), "characters")


def _sized(size: int, unit: str) -> str:
    return f"<{size} {unit}>"
