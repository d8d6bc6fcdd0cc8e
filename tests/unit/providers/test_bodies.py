"""What the two shapes of bodies have in common for all APIs."""

import pytest

from aiproxyd.exceptions import EventTooLarge, MalformedBody
from aiproxyd.model.events import StreamEvent, TextDelta, UnknownEvent
from aiproxyd.providers.bodies import DocumentBody, EventStreamBody
from aiproxyd.wire.event_stream import ServerSentEvent


class Echo:
    """Tells the length of each event's data; refuses `bad`, after telling of it."""

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        out.append(TextDelta(len(event.data)))
        if event.data == b"bad":
            raise MalformedBody("bad")

    def finish(self, out: list[StreamEvent]) -> None:
        out.append(UnknownEvent("end"))


def test_events_before_a_fault_are_returned_and_the_next_call_raises_it() -> None:
    body = EventStreamBody(100, Echo())
    assert body.feed(b"data: ab\n\ndata: bad\n\ndata: abc\n\n") == [TextDelta(2), TextDelta(3)]
    for again in (lambda: body.feed(b""), body.close):
        with pytest.raises(MalformedBody, match="bad"):
            again()


def test_a_cut_last_event_is_let_go_and_the_stream_ends() -> None:
    body = EventStreamBody(100, Echo())
    assert body.feed(b"data: ab\n\ndata: bad") == [TextDelta(2)]
    assert body.held_bytes == 9
    assert body.close() == [UnknownEvent("end")]


def test_a_whole_last_event_counts_without_its_blank_line() -> None:
    body = EventStreamBody(100, Echo())
    assert body.feed(b"data: a") == []
    assert body.close() == [TextDelta(1), UnknownEvent("end")]


@pytest.mark.parametrize("start", [b"{", b" \r\n[", b"\xef\xbb\xbf<", b"\n\n{"])
def test_a_body_that_is_no_event_stream_is_refused_at_its_first_byte(start: bytes) -> None:
    for chunks in ([start], [start[at : at + 1] for at in range(len(start))]):
        body = EventStreamBody(100, Echo())
        *before, last = chunks
        assert [event for chunk in before for event in body.feed(chunk)] == []
        with pytest.raises(MalformedBody, match="no event stream"):
            body.feed(last)


def test_an_event_that_is_too_large_ends_the_stream() -> None:
    body = EventStreamBody(10, Echo())
    assert body.feed(b"data: a\n\ndata: " + b"x" * 20) == [TextDelta(1)]
    with pytest.raises(EventTooLarge):
        body.feed(b"")
    with pytest.raises(EventTooLarge):
        body.close()


def test_an_event_that_is_too_large_shows_at_the_end_when_nothing_follows_it() -> None:
    body = EventStreamBody(10, Echo())
    assert body.feed(b"data: a\n\ndata: abcdefghijk\n") == [TextDelta(1)]
    for _ in range(2):
        with pytest.raises(EventTooLarge):
            body.close()


def test_a_document_is_read_once_it_is_whole() -> None:
    body = DocumentBody(10, lambda data: [TextDelta(len(data))])
    assert body.feed(b"abc") == []
    assert body.feed(b"de") == []
    assert body.held_bytes == 5
    assert body.close() == [TextDelta(5)]


def test_a_document_that_is_too_large_or_refused_is_spent() -> None:
    body = DocumentBody(4, lambda data: [TextDelta(len(data))])
    for call in (lambda: body.feed(b"abcde"), lambda: body.feed(b""), body.close):
        with pytest.raises(MalformedBody, match="exceeds 4 bytes"):
            call()

    def refuse(data: bytes) -> list[StreamEvent]:
        raise MalformedBody(data.decode())

    body = DocumentBody(4, refuse)
    body.feed(b"no")
    for call in (body.close, lambda: body.feed(b""), body.close):
        with pytest.raises(MalformedBody, match="no"):
            call()
