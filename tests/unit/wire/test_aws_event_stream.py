"""The four tests of a decoder, the format's own rules row by row, and the decoder of the official SDK as a second opinion."""

import struct
import zlib

import pytest
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import EventTooLarge, MalformedBody, WireError
from aiproxyd.wire.aws_event_stream import MAX_HEADERS_BYTES, AwsEventMessage, AwsEventStreamDecoder
from tests.support.strategies import splits
from tests.support.wire_formats import aws_frame, aws_header, aws_message

MANY = 1 << 20

_names = st.text(max_size=20).filter(lambda name: len(name.encode()) <= 255)
_texts = st.text(max_size=40)
_others = st.one_of(
    st.sampled_from([(0, b""), (1, b"")]),
    st.binary(min_size=1, max_size=1).map(lambda value: (2, value)),
    st.binary(min_size=2, max_size=2).map(lambda value: (3, value)),
    st.binary(min_size=4, max_size=4).map(lambda value: (4, value)),
    st.binary(min_size=8, max_size=8).map(lambda value: (5, value)),
    st.binary(max_size=30).map(lambda value: (6, struct.pack("!H", len(value)) + value)),
    st.binary(min_size=8, max_size=8).map(lambda value: (8, value)),
    st.binary(min_size=16, max_size=16).map(lambda value: (9, value)),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[AwsEventMessage], bytes]:
    """Messages, and a stream that has them."""
    messages: list[AwsEventMessage] = []
    stream = b""
    for _ in range(draw(st.integers(0, 5))):
        texts: dict[str, str] = {}
        headers = b""
        for _ in range(draw(st.integers(0, 4))):
            name = draw(_names)
            if name not in texts and draw(st.booleans()):
                texts[name] = draw(_texts)
                value = texts[name].encode()
                headers += aws_header(name, 7, struct.pack("!H", len(value)) + value)
            else:
                headers += aws_header(name, *draw(_others))
        payload = draw(st.binary(max_size=60))
        messages.append(AwsEventMessage(texts, payload))
        stream += aws_frame(payload, headers)
    return messages, stream


def decode(chunks: list[bytes], *, max_message_bytes: int = MANY) -> list[AwsEventMessage]:
    decoder = AwsEventStreamDecoder(max_message_bytes)
    messages = [message for chunk in chunks for message in decoder.feed(chunk)]
    return messages + decoder.close()


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    messages, stream = data.draw(streams())
    assert decode(data.draw(splits(stream))) == messages


def test_it_reads_what_the_official_sdk_reads() -> None:
    stream = aws_message(b'{"bytes":"e30="}', {":event-type": "chunk", ":message-type": "event"}) + aws_message(b"", {})
    official = EventStreamBuffer()
    official.add_data(stream)
    assert [(message.headers, message.payload) for message in decode([stream])] == [
        (message.headers, message.payload) for message in official
    ]


def test_it_reads_the_documented_encoding_of_an_empty_message() -> None:
    empty = bytes.fromhex("000000100000000005c248eb7d98c8ff")
    assert decode([empty]) == [AwsEventMessage({}, b"")]


def test_a_stream_that_is_cut_inside_a_message_ends_without_it() -> None:
    message = aws_message(b"payload", {"a": "b"})
    for cut in range(1, len(message)):
        assert decode([message, message[:cut]]) == [AwsEventMessage({"a": "b"}, b"payload")]


def _with(message: bytes, at: int, byte: int) -> bytes:
    return message[:at] + bytes([message[at] ^ byte]) + message[at + 1 :]


GOOD = aws_message(b"payload", {"name": "value"})
BROKEN = [
    ("a length is changed", _with(GOOD, 3, 1)),
    ("the length of the headers is changed", _with(GOOD, 7, 1)),
    ("a header is changed", _with(GOOD, 14, 1)),
    ("the payload is changed", _with(GOOD, len(GOOD) - 6, 1)),
    ("the checksum is changed", _with(GOOD, len(GOOD) - 1, 1)),
    ("an event stream of text", b"data: {}\n\ndata: {}\n\n"),
    ("a header of an unknown type", aws_frame(b"", aws_header("a", 10, b""))),
    ("a header without a value", aws_frame(b"", aws_header("a", 7, b""))),
    ("a header whose text is cut", aws_frame(b"", aws_header("a", 7, b"\x00\x05ab"))),
    ("a header whose name is cut", aws_frame(b"", b"\x05ab")),
    ("a header whose type is cut", aws_frame(b"", b"\x02ab")),
]


@pytest.mark.parametrize("stream", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_it_refuses_what_is_broken_and_is_spent(stream: bytes) -> None:
    for chunks in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        decoder = AwsEventStreamDecoder(MANY)
        with pytest.raises(MalformedBody):
            _ = [decoder.feed(chunk) for chunk in chunks]
        assert decoder.held_bytes == 0
        with pytest.raises(MalformedBody):
            decoder.feed(GOOD)
        with pytest.raises(MalformedBody):
            decoder.close()


def test_lengths_that_contradict_each_other_are_refused_before_anything_is_held_for_them() -> None:
    for total, headers in ((15, 0), (20, 5), (MANY, MAX_HEADERS_BYTES + 1)):
        lengths = struct.pack("!II", total, headers)
        with pytest.raises(MalformedBody, match=f"a message of {total} bytes announces {headers} bytes of headers"):
            AwsEventStreamDecoder(MANY).feed(lengths + struct.pack("!I", zlib.crc32(lengths)))


def test_a_message_that_announces_too_much_is_refused_by_its_first_bytes() -> None:
    with pytest.raises(EventTooLarge, match=f"holds {len(GOOD)} bytes; the limit is 30 bytes"):
        AwsEventStreamDecoder(30).feed(GOOD[:12])


def test_messages_before_a_fault_are_returned_before_it_is_raised() -> None:
    decoder = AwsEventStreamDecoder(MANY)
    assert decoder.feed(GOOD + BROKEN[0][1]) == [AwsEventMessage({"name": "value"}, b"payload")]
    with pytest.raises(MalformedBody):
        decoder.close()


def test_each_byte_is_looked_at_about_once_however_the_stream_is_cut() -> None:
    stream = aws_message(bytes(1000), {"a": "b" * 100}) * 20
    for size in (1, 7, 1000, len(stream)):
        decoder = AwsEventStreamDecoder(MANY)
        messages = [found for at in range(0, len(stream), size) for found in decoder.feed(stream[at : at + size])]
        assert len(messages) == 20
        assert decoder.scanned_bytes <= 2 * len(stream)


@given(
    st.lists(st.binary(max_size=60) | st.just(GOOD) | st.binary(max_size=9).map(lambda rest: GOOD[:12] + rest), max_size=8),
    st.integers(16, 60),
)
def test_arbitrary_bytes_give_messages_or_one_wire_error_within_the_limit(chunks: list[bytes], max_bytes: int) -> None:
    decoder = AwsEventStreamDecoder(max_bytes)
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            assert decoder.held_bytes <= max_bytes
        decoder.close()
    except WireError:
        with pytest.raises(WireError):
            decoder.feed(b"")
