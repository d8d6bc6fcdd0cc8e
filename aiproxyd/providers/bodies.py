"""The shapes of a response body, each a `ResponseParser` around what one API makes of it.

Not a parser of any API: an API gives a `StreamReader`, or a function that reads one document. Here stand what is the same for
all: framing, limits, the rule that a parser that raised is spent, and what the end of a body means.
"""

from collections.abc import Callable
from typing import Final, Protocol

from aiproxyd.exceptions import MalformedBody, WireError
from aiproxyd.model.events import StreamEvent
from aiproxyd.providers.samples import Samples
from aiproxyd.wire.event_stream import EventStreamDecoder, ServerSentEvent
from aiproxyd.wire.json_document import DocumentCollector

# No line of an event stream starts so; a JSON or HTML body under an event stream's content type does.
_FOREIGN_STARTS: Final = b"{[<"
_SKIPPED_AT_START: Final = b" \t\r\n\xef\xbb\xbf"


class StreamReader(Protocol):
    """What one API's event stream means. Holds the state of one response."""

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        """Append what `event` says to `out`.

        Raises:
            MalformedBody: The event's data is not what the API documents. The reader is then spent.
        """

    def finish(self, out: list[StreamEvent]) -> None:
        """Append what only the end of the stream says."""


class EventStreamBody:
    """A `ResponseParser` of an event stream. Events before a fault are returned; the next call raises it."""

    __slots__ = ("_at_start", "_decoder", "_failure", "_reader", "samples")

    def __init__(self, max_event_bytes: int, reader: StreamReader, samples: Samples | None = None) -> None:
        self._decoder = EventStreamDecoder(max_event_bytes)
        self._reader = reader
        self._failure: WireError | None = None
        self._at_start = True
        self.samples = samples or Samples()
        """As `ResponseParser.samples`."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept of what is not finished."""
        return self._decoder.held_bytes

    def feed(self, data: bytes) -> list[StreamEvent]:
        """As `ResponseParser.feed`."""
        if self._failure is not None:
            raise self._failure
        out: list[StreamEvent] = []
        try:
            if self._at_start:
                self._check_start(data)
            for event in self._decoder.feed(data):
                before = len(out)
                self._reader.read(event, out)
                self.samples.take(out, before, event.data)
        except WireError as exc:
            self._failure = exc
            if not out:
                raise
        return out

    def close(self) -> list[StreamEvent]:
        """As `ResponseParser.close`."""
        if self._failure is not None:
            raise self._failure
        out: list[StreamEvent] = []
        try:
            tail = self._decoder.close()
        except WireError as exc:
            self._failure = exc
            raise
        for event in tail:
            part: list[StreamEvent] = []
            try:
                self._reader.read(event, part)
            except MalformedBody:
                # The blank line after this event never came: the stream was cut inside it, which is no fault of its grammar.
                continue
            out += part
        self._reader.finish(out)
        return out

    def _check_start(self, data: bytes) -> None:
        start = data.lstrip(_SKIPPED_AT_START)
        if not start:
            return
        self._at_start = False
        if start[0] in _FOREIGN_STARTS:
            raise MalformedBody(f"the body starts with {start[:1].decode()!r}: it is no event stream")


class DocumentBody:
    """A `ResponseParser` of a body that is one document, read when it is complete."""

    __slots__ = ("_collector", "_failure", "_read", "samples")

    def __init__(self, max_body_bytes: int, read: Callable[[bytes], list[StreamEvent]]) -> None:
        self._collector = DocumentCollector(max_body_bytes)
        self._read = read
        self._failure: WireError | None = None
        self.samples = Samples()
        """As `ResponseParser.samples`."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept of the unfinished document."""
        return self._collector.held_bytes

    def feed(self, data: bytes) -> list[StreamEvent]:
        """As `ResponseParser.feed`; always empty."""
        if self._failure is not None:
            raise self._failure
        self._collector.feed(data)
        return []

    def close(self) -> list[StreamEvent]:
        """As `ResponseParser.close`."""
        if self._failure is not None:
            raise self._failure
        try:
            body = self._collector.close()
            out = self._read(body)
        except WireError as exc:
            self._failure = exc
            raise
        self.samples.take_document(out, body)
        return out


class MessageBody:
    """A `ResponseParser` of a response that comes as messages which are framed already: each call of `feed` takes one, whole."""

    __slots__ = ("_failure", "_reader", "samples")

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader
        self._failure: WireError | None = None
        self.samples = Samples()
        """As `ResponseParser.samples`."""

    def feed(self, data: bytes) -> list[StreamEvent]:
        """As `ResponseParser.feed`, but for one message; no bytes are none."""
        if self._failure is not None:
            raise self._failure
        out: list[StreamEvent] = []
        if data:
            try:
                self._reader.read(ServerSentEvent("message", data), out)
            except WireError as exc:
                self._failure = exc
                raise
            self.samples.take(out, 0, data)
        return out

    def close(self) -> list[StreamEvent]:
        """As `ResponseParser.close`."""
        if self._failure is not None:
            raise self._failure
        out: list[StreamEvent] = []
        self._reader.finish(out)
        return out
