"""Bytes of an event stream (`text/event-stream`) to events. Not a parser of what the events' data means.

Facts (WHATWG HTML, "Interpreting an event stream"):
- A line ends with CR LF, LF or CR; one leading byte order mark is no part of the stream.
- A line that starts with a colon is a comment. One space after a field's colon is no part of the value.
- A blank line dispatches the event, unless it had no `data` field. Several `data` fields are joined by LF.
- Unknown fields are ignored. `id` and `retry` are for clients that reconnect; an observer does not.

Where this differs: the standard drops an event whose blank line never comes. `close` returns it, because servers exist that
end with `data: [DONE]` and no line ending, and a client that reads lines sees it. A caller that must tell a cut stream from a
careless server has the data: a cut one is most often no JSON.

Strategy: only the new bytes are searched for a line ending, and an unfinished line is kept aside until its end comes, so that
the cost is linear however the bytes are cut. Whole events in the shape that nearly all have are taken in one step; for anything
else whole lines are cut by `bytes.splitlines`, which knows exactly the three endings.
"""

import re
from typing import Final

import msgspec

from aiproxyd.exceptions import EventTooLarge

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

# A whole event of one data line, named or not, where no CR ends a line. In possessive steps, so that nothing is tried twice.
_USUAL_EVENT: Final = re.compile(rb"(?:event: (.*+)\n)?+data: (.*+)\n\n")


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event."""

    event: str
    """Its type; `message` when the stream names none."""
    data: bytes
    """Its data lines joined by LF, not decoded: the standard's UTF-8 decoding with replacement is left to who needs text."""


class EventStreamDecoder:
    """Incremental and bounded. Any split of a stream into calls gives the same events."""

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_event",
        "_failure",
        "_field_bytes",
        "_is_between",
        "_line",
        "_max_event_bytes",
        "scanned_bytes",
    )

    def __init__(self, max_event_bytes: int) -> None:
        """Return a decoder at the start of a stream.

        Args:
            max_event_bytes: Most bytes of one event's fields, or of one line, that are held. A whole stream may be longer.
        """
        self._max_event_bytes = max_event_bytes
        self._is_between = False
        """Whether the stream has begun and nothing that came is held: the next bytes begin an event."""
        self._at_start = True
        self._after_cr = False
        """The last byte was a CR, so that an LF that comes next belongs to the same line ending."""
        self._line = bytearray()
        """The unfinished line."""
        self._data: bytes | bytearray | None = None
        """Data of the unfinished event; None until it has a data line. Most events have one, which needs no copy."""
        self._event = b""
        """Type of the unfinished event."""
        self._field_bytes = 0
        """Size of the two above, with one byte for each LF that joins data lines."""
        self._failure: EventTooLarge | None = None
        self.scanned_bytes = 0
        """Bytes looked at so far, each as often as it was; a test holds it to a multiple of the bytes fed."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept of what is not finished."""
        return len(self._line) + self._field_bytes

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Return the events completed by `data`, oldest first.

        Args:
            data: The next bytes, after content decoding. May be empty.

        Raises:
            EventTooLarge: An event or a line exceeds `max_event_bytes`. The decoder is then spent: stop feeding it and keep
                forwarding the response. Events that were complete before are returned first, and the next call raises.

        Source:
            https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
        """
        if self._is_between and len(data) <= self._max_event_bytes:
            # Most often by far: one event in the usual shape.
            usual = _USUAL_EVENT.match(data)
            self.scanned_bytes += usual.end() if usual is not None else len(data)
            if usual is not None and usual.end() == len(data) and b"\r" not in data:
                name, value = usual.groups()
                return [ServerSentEvent(name.decode("utf-8", "replace") if name else "message", value)]
        self._is_between = False
        events = self._feed(data)
        self._is_between = not (
            self._at_start or self._after_cr or self._line or self._data is not None or self._event or self._failure is not None
        )
        return events

    def _feed(self, data: bytes) -> list[ServerSentEvent]:
        if self._failure is not None:
            raise self._failure
        if self._at_start:
            data = self._without_byte_order_mark(data)
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if not data:
            return []
        # Two searches from the end: the last ending is what separates whole lines from the unfinished one.
        line_feed, carriage_return = data.rfind(b"\n"), data.rfind(b"\r")
        end = max(line_feed, carriage_return) + 1
        self.scanned_bytes += 2 * len(data) - max(line_feed, 0) - max(carriage_return, 0)
        if end == 0:
            self._line += data
            return self._within_limit([])
        self._after_cr = data.endswith(b"\r")
        block = data if end == len(data) else data[:end]
        if self._line:
            # The buffer grows in place, so that a large event is copied once and not twice.
            self._line += block
            block = bytes(self._line)
            self._line = bytearray()
        if end < len(data):
            self._line += data[end:]
        return self._within_limit(self._events_of(block, is_usual=carriage_return < 0))

    def close(self) -> list[ServerSentEvent]:
        """Return the event that the end of the stream leaves unfinished, if it has data.

        Raises:
            EventTooLarge: As `feed`, when its failure has not been raised yet.
        """
        if self._failure is not None:
            raise self._failure
        line = bytes(self._line)
        self._line = bytearray()
        return self._events_of(line + b"\n\n" if line else b"\n")

    def _events_of(self, block: bytes, *, is_usual: bool = False) -> list[ServerSentEvent]:
        """Return the events that whole lines complete. With `is_usual` no CR ends one of them."""
        events: list[ServerSentEvent] = []
        data = self._data
        event = self._event
        # Sizes need looking at line by line only if all of this in one event would be too much.
        is_checked = self._field_bytes + len(block) > self._max_event_bytes
        self.scanned_bytes += len(block)
        if is_usual and not is_checked and data is None and not event:
            position = 0
            while (usual := _USUAL_EVENT.match(block, position)) is not None:
                name, value = usual.groups()
                events.append(ServerSentEvent(name.decode("utf-8", "replace") if name else "message", value))
                position = usual.end()
            if position == len(block):
                return events
            block = block[position:]
            self.scanned_bytes += len(block)
        for line in block.splitlines():
            if not line:
                if data is not None:
                    name = event.decode("utf-8", "replace") if event else "message"
                    events.append(ServerSentEvent(name, bytes(data)))
                    data = None
                event = b""
                self._field_bytes = 0
                continue
            if is_checked and self._field_bytes + len(line) > self._max_event_bytes:
                self._fail(self._field_bytes + len(line))
                return events
            if line.startswith(b"data:") or line == b"data":
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                self._field_bytes += len(value) + 1
                if data is None:
                    data = value
                    continue
                if isinstance(data, bytes):
                    data = bytearray(data)
                data += b"\n"
                data += value
            elif line.startswith(b"event:"):
                self._field_bytes -= len(event)
                event = line[7:] if line.startswith(b"event: ") else line[6:]
                self._field_bytes += len(event)
            elif line == b"event":
                self._field_bytes -= len(event)
                event = b""
        self._data = data
        self._event = event
        return events

    def _within_limit(self, events: list[ServerSentEvent]) -> list[ServerSentEvent]:
        if self._failure is None and self.held_bytes > self._max_event_bytes:
            self._fail(self.held_bytes)
        if self._failure is not None and not events:
            raise self._failure
        return events

    def _fail(self, held_bytes: int) -> None:
        self._failure = EventTooLarge(held_bytes=held_bytes, max_bytes=self._max_event_bytes)
        self._line = bytearray()
        self._data = None
        self._event = b""
        self._field_bytes = 0

    def _without_byte_order_mark(self, data: bytes) -> bytes:
        """Return what follows the mark, or nothing while it is not known whether there is one."""
        start = bytes(self._line) + data
        if len(start) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(start):
            self._line = bytearray(start)
            return b""
        self._at_start = False
        self._line = bytearray()
        return start.removeprefix(_BYTE_ORDER_MARK)
