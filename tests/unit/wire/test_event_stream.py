"""The four tests of a decoder, and the standard's examples row by row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import EventTooLarge
from aiproxyd.wire.event_stream import EventStreamDecoder, ServerSentEvent
from tests.support.strategies import event_streams, splits

MANY = 1 << 20


def decode(chunks: list[bytes], *, max_event_bytes: int = MANY) -> list[ServerSentEvent]:
    decoder = EventStreamDecoder(max_event_bytes)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()


def message(data: bytes) -> ServerSentEvent:
    return ServerSentEvent("message", data)


ROWS = [
    ("nothing", b"", []),
    ("one line", b"data: a\n\n", [message(b"a")]),
    ("a type", b"event: ping\ndata: {}\n\n", [ServerSentEvent("ping", b"{}")]),
    ("the last type counts", b"event: a\nevent: b\ndata: x\n\n", [ServerSentEvent("b", b"x")]),
    ("an empty type is none", b"event: a\nevent\ndata: x\n\n", [message(b"x")]),
    ("a type does not outlive its event", b"event: a\n\ndata: x\n\n", [message(b"x")]),
    ("several data lines", b"data: YHOO\ndata: +2\ndata: 10\n\n", [message(b"YHOO\n+2\n10")]),
    ("a comment, an event, one with an id", b": test stream\n\ndata: first event\nid: 1\n\n", [message(b"first event")]),
    ("one space is not data, the second is", b"data:  third event\n\n", [message(b" third event")]),
    ("no space is needed", b"data:test\n\ndata: test\n\n", [message(b"test"), message(b"test")]),
    ("data without a value", b"data\n\ndata\ndata\n\ndata:\n\n", [message(b""), message(b"\n"), message(b"")]),
    ("no data, no event", b"event: a\nid: 7\n\n", []),
    ("id does not dispatch", b"id: 7\n\n\n\ndata: x\n\n", [message(b"x")]),
    ("CR", b"event: a\rdata: b\r\r", [ServerSentEvent("a", b"b")]),
    ("CR LF", b"event: a\r\ndata: b\r\n\r\n", [ServerSentEvent("a", b"b")]),
    ("mixed endings", b"data: a\rdata: b\ndata: c\r\n\r", [message(b"a\nb\nc")]),
    ("CR CR LF is two endings", b"data: a\r\r\ndata: b\n\n", [message(b"a"), message(b"b")]),
    ("a byte order mark", b"\xef\xbb\xbfdata: a\n\n", [message(b"a")]),
    ("two byte order marks", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    ("a byte order mark alone", b"\xef\xbb\xbf", []),
    ("half a byte order mark", b"\xef\xbb", []),
    ("half a mark before a field spoils it", b"\xef\xbbdata: a\n\n", []),
    ("names are exact", b"Data: a\n data: b\ndata : c\ndatax: d\n\n", []),
    ("U+2028 ends no line", "data: a\u2028b\u0085c\n\n".encode(), [message("a\u2028b\u0085c".encode())]),
    ("VT and FF end no line", b"data: a\x0bb\x0cc\x1cd\n\n", [message(b"a\x0bb\x0cc\x1cd")]),
    ("data need not be UTF-8", b"data: \xff\xfe\n\n", [message(b"\xff\xfe")]),
    ("a type that is not UTF-8", b"event: \xff\ndata: a\n\n", [ServerSentEvent("\ufffd", b"a")]),
    ("the end stands for the blank line", b"data: a\n\ndata: b\n", [message(b"a"), message(b"b")]),
    ("the end stands for the line ending", b"data: [DONE]", [message(b"[DONE]")]),
    ("the end completes no comment", b"data: a\n\n: b", [message(b"a")]),
]


@pytest.mark.parametrize(("stream", "events"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_it_reads_the_standards_cases_whole_byte_by_byte_and_with_more_behind(
    stream: bytes, events: list[ServerSentEvent]
) -> None:
    assert decode([stream]) == events
    assert decode([stream[index : index + 1] for index in range(len(stream))]) == events
    for cut in range(len(stream)):
        assert decode([stream[:cut], b"", stream[cut:]]) == events
    if stream.endswith(b"\n\n"):
        decoder = EventStreamDecoder(MANY)
        assert decoder.feed(stream + b"data: behind") == events


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    events, stream = data.draw(event_streams())
    assert decode(data.draw(splits(stream))) == events


@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(1, 100))
def test_arbitrary_bytes_give_events_or_say_that_one_is_too_large(chunks: list[bytes], max_event_bytes: int) -> None:
    decoder = EventStreamDecoder(max_event_bytes)
    for chunk in chunks:
        try:
            decoder.feed(chunk)
        except EventTooLarge:
            with pytest.raises(EventTooLarge):
                decoder.feed(b"")
            with pytest.raises(EventTooLarge):
                decoder.close()
            return
        assert decoder.held_bytes <= max_event_bytes + len(chunk)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"data: " + b"x" * 20_000 + b"\n\n", id="one long line"),
        pytest.param(b"x" * 20_000, id="one line that never ends"),
        pytest.param(b"\r\n" * 10_000, id="blank lines"),
        pytest.param(b"data: a\n\n" * 3_000, id="many events"),
        pytest.param(b"data: a\n" * 3_000 + b"\n", id="one event of many lines"),
    ],
)
def test_the_cost_is_linear_however_the_bytes_are_cut(stream: bytes) -> None:
    # Each byte is looked at by two searches for a line ending, once for whether its event is a usual one, and once as a part of its line.
    for size in (1, 2, 7, 1000, len(stream)):
        decoder = EventStreamDecoder(MANY)
        for start in range(0, len(stream), size):
            decoder.feed(stream[start : start + size])
        assert decoder.scanned_bytes <= 4 * len(stream)


@given(st.data())
def test_which_events_are_too_large_does_not_depend_on_the_split(data: st.DataObject) -> None:
    _, stream = data.draw(event_streams())
    max_event_bytes = data.draw(st.integers(1, 60))

    def outcome(chunks: list[bytes]) -> tuple[list[ServerSentEvent], str]:
        decoder = EventStreamDecoder(max_event_bytes)
        events: list[ServerSentEvent] = []
        try:
            for chunk in chunks:
                events += decoder.feed(chunk)
            events += decoder.close()
        except EventTooLarge as exc:
            return events, type(exc).__name__
        return events, ""

    assert outcome(data.draw(splits(stream))) == outcome([stream])


def test_an_event_at_the_limit_is_read_and_one_byte_more_is_refused() -> None:
    assert decode([b"data: abcd\n\n"], max_event_bytes=10) == [message(b"abcd")]
    with pytest.raises(EventTooLarge, match="an unfinished event holds 11 bytes; the limit is 10 bytes"):
        decode([b"data: abcde\n\n"], max_event_bytes=10)


def test_events_before_one_that_is_too_large_are_returned_first() -> None:
    decoder = EventStreamDecoder(20)
    assert decoder.feed(b"data: a\n\ndata: " + b"x" * 40) == [message(b"a")]
    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: b\n\n")


def test_a_carriage_return_ends_a_line_also_in_an_event_that_comes_alone() -> None:
    decoder = EventStreamDecoder(max_event_bytes=MANY)
    assert decoder.feed(b"data: a\n\n") == [message(b"a")]
    assert decoder.feed(b"data: b\rdata: c\n\n") == [message(b"b\nc")]


def test_an_event_that_comes_alone_is_held_against_the_limit() -> None:
    decoder = EventStreamDecoder(max_event_bytes=20)
    assert decoder.feed(b"data: a\n\n") == [message(b"a")]
    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: " + b"b" * 20 + b"\n\n")


def test_lines_without_meaning_are_not_held_against_the_limit_of_their_event() -> None:
    stream = b"data: a\n" + b": keep-alive\n" * 1000 + b"\n"
    assert decode([stream], max_event_bytes=32) == [message(b"a")]


def test_a_stream_may_be_longer_than_an_event_may_be() -> None:
    assert len(decode([b"data: abc\n\n" * 1000], max_event_bytes=16)) == 1000
