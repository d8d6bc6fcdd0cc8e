"""Spans as OTLP writes them: the few protobuf messages of a trace, encoded directly. Sends nothing and knows no meaning.

Facts:

* A protobuf message is a sequence of fields, each a tag (field number and wire type), for what has no fixed size its length, and
  the value. The order of fields is free, and the bytes of two messages one after the other are the two merged.
* Field numbers of OTLP are stable: https://github.com/open-telemetry/opentelemetry-proto, v1.8.0, `trace.proto`, `common.proto`,
  `resource.proto`, `trace_service.proto`. The tests decode with the messages that are generated from there.

Strategy: the attributes that all spans of a request share are encoded once and their bytes repeated. The SDK makes and copies
objects for each of them, which cost more CPU time than the whole rest of a request.
"""

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

type Value = str | bool | int | float | tuple[str, ...]
"""What an attribute may hold."""

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3
"""Kinds of spans."""

_SPAN_ATTRIBUTE, _SPAN_EVENT, _SPAN_STATUS = 9, 11, 15
_EVENT_ATTRIBUTE = 3
_RESOURCE_ATTRIBUTE = 1
_ERROR: Final = b"\x18\x02"
"""Status.code: STATUS_CODE_ERROR."""

# SpanFlags: sampled, and whether the parent is remote is known, or even so.
_FLAGS: Final = struct.pack("<HI", 0x0185, 0x101)
_FLAGS_REMOTE: Final = struct.pack("<HI", 0x0185, 0x301)

_ROOT: Final = struct.Struct("<2s16s2s8s")
_CHILD: Final = struct.Struct("<2s16s2s8s2s8s")
_TIMES: Final = struct.Struct("<BQBQ")
_FIXED: Final = struct.Struct("<BQ")
_DOUBLE: Final = struct.Struct("<Bd")

_MAX_INT: Final = 2**63 - 1

_KNOWN_ATTRIBUTES: Final = 4096
_MAX_KNOWN_CHARACTERS: Final = 200
"""So that what is kept of them is at most a few megabytes."""


def _varint(number: int) -> bytes:
    """Return a number of at least 0 as protobuf writes lengths and integers."""
    if number < 128:
        return _SMALL[number]
    if number < 16384:
        return bytes((number & 127 | 128, number >> 7))
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


_SMALL: Final = [bytes((number,)) for number in range(128)]


def _field(number: int, content: bytes) -> bytes:
    """Return a field that holds bytes, a text or a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode("utf-8", "replace"))


def _any_value(value: Value) -> bytes:
    if isinstance(value, str):
        return _text(1, value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        # 64 bits with a sign; a count beyond them is none.
        bounded = max(-_MAX_INT, min(_MAX_INT, value))
        return b"\x18" + _varint(bounded if bounded >= 0 else bounded + 2**64)
    if isinstance(value, float):
        return _DOUBLE.pack(4 << 3 | 1, value)
    return _field(5, b"".join(_field(1, _any_value(item)) for item in value))


def _key_value(number: int, name: str, value: Value) -> bytes:
    return _field(number, _text(1, name) + _field(2, _any_value(value)))


# Most values come again and again: names of models, users and routes. By type as well, because 1 == True.
_known_key_value = lru_cache(_KNOWN_ATTRIBUTES, typed=True)(_key_value)


def _key_values(number: int, attributes: Mapping[str, Value]) -> bytes:
    encoded = [
        (_key_value if type(value) is str and len(value) > _MAX_KNOWN_CHARACTERS else _known_key_value)(number, name, value)
        for name, value in attributes.items()
    ]
    return b"".join(encoded)


def attributes_of_span(attributes: Mapping[str, Value]) -> bytes:
    """Return attributes as a part of a span; parts can be put one behind the other."""
    return _key_values(_SPAN_ATTRIBUTE, attributes)


def event_of_span(name: str, at: int, attributes: Mapping[str, Value]) -> bytes:
    """Return an event as a part of a span.

    Args:
        name: Of the event.
        at: Unix time in nanoseconds.
        attributes: Its own.
    """
    return _field(_SPAN_EVENT, _FIXED.pack(0x09, at) + _text(2, name) + _key_values(_EVENT_ATTRIBUTE, attributes))


def error_of_span(message: str) -> bytes:
    """Return the status of a span that failed, as a part of it."""
    return _field(_SPAN_STATUS, (_text(2, message) if message else b"") + _ERROR)


def span(  # noqa: PLR0917  (in the order in which a span is told)
    name: str,
    trace_id: bytes,
    span_id: bytes,
    parent_id: bytes,
    begin: int,
    end: int,
    parts: bytes,
    kind: int = INTERNAL,
    *,
    has_remote_parent: bool = False,
) -> bytes:
    """Return a sampled span, framed for `export_request`.

    Args:
        name: Of the span.
        trace_id: 16 bytes.
        span_id: 8 bytes.
        parent_id: 8 bytes; none for the first of a trace.
        begin: Unix time in nanoseconds.
        end: Likewise, not before `begin`.
        parts: What the functions `…_of_span` return, one behind the other.
        kind: `INTERNAL`, `SERVER` or `CLIENT`.
        has_remote_parent: Whether the parent is another process' span.
    """
    ids = (
        _CHILD.pack(b"\x0a\x10", trace_id, b"\x12\x08", span_id, b"\x22\x08", parent_id)
        if parent_id
        else _ROOT.pack(b"\x0a\x10", trace_id, b"\x12\x08", span_id)
    )
    flags = _FLAGS_REMOTE if has_remote_parent else _FLAGS
    message = b"".join((ids, _name_and_kind(name, kind), _TIMES.pack(0x39, begin, 0x41, end), parts, flags))
    return b"\x12" + _varint(len(message)) + message


@lru_cache(64)
def _name_and_kind(name: str, kind: int) -> bytes:
    return _text(5, name) + bytes((0x30, kind))


class Envelope:
    """Who says the spans: the resource and the scope around them."""

    def __init__(self, resource: Mapping[str, Value], *, scope: str, version: str, schema_url: str) -> None:
        self._resource = _field(1, _key_values(_RESOURCE_ATTRIBUTE, resource))
        self._scope = _field(1, _text(1, scope) + _text(2, version))
        self._schema_url = _text(3, schema_url)

    def export_request(self, spans: Iterable[bytes]) -> bytes:
        """Return an `ExportTraceServiceRequest` with `spans`."""
        scope_spans = b"".join((self._scope, *spans, self._schema_url))
        return _field(1, self._resource + _field(2, scope_spans))
