"""The four tests of a decoder, for WebSocket frames, and its rules row by row."""

import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameProtocol

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.head import Headers
from aiproxyd.wire.websocket import HEAD_BYTES, Compression, Message, MessageFollower, agreed_compression
from tests.support.websocket_frames import MASK, Deflater, frame


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Message], bytes, dict]:
    """Draw messages, and the bytes of their frames in one of the many ways there are."""
    deflate, takeover = draw(st.booleans()), draw(st.booleans())
    deflater = Deflater(takeover=takeover)
    mask = draw(st.sampled_from([b"", MASK, b"\x00\x00\x00\x00"]))
    messages, out = [], b""
    for _ in range(draw(st.integers(0, 5))):
        data = draw(st.one_of(st.binary(max_size=300), st.just(b"tokens and tokens " * 700)))
        is_text = draw(st.booleans())
        messages.append(Message(data, is_text))
        compressed = deflate and draw(st.booleans())
        payload = deflater(data) if compressed else data
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for number, part in enumerate(parts):
            out += frame(
                part,
                (1 if is_text else 2) if number == 0 else 0,
                final=number == len(parts) - 1,
                rsv=4 if compressed and number == 0 else 0,
                mask=mask,
                wide=draw(st.sampled_from([0, 0, 2, 8])),
            )
            if draw(st.booleans()):
                out += frame(draw(st.binary(max_size=125)), draw(st.sampled_from([9, 10])), mask=mask)
    return messages, out, {"deflate": deflate, "takeover": takeover}


def follow(pieces: list[bytes], **settings: object) -> list[Message]:
    follower = MessageFollower(**{"max_message_bytes": 1 << 20, **settings})
    return [message for piece in pieces for message in follower.feed(piece)]


@given(conversations(), st.data())
def test_messages_survive_any_framing_and_any_split(conversation, data) -> None:
    messages, wire, settings = conversation
    assert follow([wire], **settings) == messages
    assert follow([wire[at : at + 1] for at in range(len(wire))], **settings) == messages
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    pieces = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert follow(pieces, **settings) == messages


@given(conversations())
def test_each_byte_is_looked_at_once(conversation) -> None:
    _, wire, settings = conversation
    follower = MessageFollower(max_message_bytes=1 << 20, **settings)
    for at in range(len(wire)):
        follower.feed(wire[at : at + 1])
    assert follower.steps == len(wire)


@given(st.lists(st.binary(max_size=200), max_size=6), st.booleans(), st.booleans())
@example([b"\xc1\x00", b"x"], True, True)
def test_any_bytes_give_messages_or_a_malformed_body(pieces, deflate, takeover) -> None:
    follower = MessageFollower(max_message_bytes=100, deflate=deflate, takeover=takeover)
    failures = set()
    for piece in pieces:
        try:
            follower.feed(piece)
        except MalformedBody as exc:
            failures.add(str(exc))
    assert len(failures) <= 1, "a follower that raised is spent and says so again"


@given(st.lists(st.binary(max_size=400), max_size=10), st.booleans())
def test_what_is_held_is_bounded(payloads, deflate) -> None:
    follower = MessageFollower(max_message_bytes=1000, deflate=deflate)
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    for number, payload in enumerate(payloads):
        part = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH) if deflate else payload
        follower.feed(frame(part, 1 if number == 0 else 0, final=False, rsv=4 if deflate and number == 0 else 0))
        assert follower.held_bytes <= max(1000, HEAD_BYTES) + 14


def test_a_message_above_the_limit_is_told_by_its_head_and_the_next_one_whole() -> None:
    deflater = Deflater(takeover=True)
    large, small = b"abcdefgh" * 2000, b"abcdefgh" * 10
    wire = frame(deflater(large), rsv=4) + frame(deflater(small), rsv=4)
    follower = MessageFollower(max_message_bytes=10_000, deflate=True)
    assert follower.feed(wire) == [Message(large[:HEAD_BYTES], True, is_whole=False), Message(small, True)]


def test_a_bomb_ends_the_following() -> None:
    # The attack: a megabyte that inflates to a gigabyte, on every proxy in between.
    wire = frame(Deflater(takeover=True)(bytes(2_000_000)), rsv=4)
    with pytest.raises(MalformedBody, match="inflates beyond"):
        MessageFollower(max_message_bytes=10_000, deflate=True).feed(wire)


def test_what_a_real_implementation_sends_is_understood() -> None:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    sender = FrameProtocol(client=True, extensions=[extension])
    texts = ["hello", "Ünïcode 🦊", "x" * 200_000, ""]
    wire = b"".join(sender.send_data(text.encode().decode()) for text in texts) + sender.close(CloseReason.NORMAL_CLOSURE)
    follower = MessageFollower(max_message_bytes=1 << 20, deflate=True)
    assert follower.feed(wire + b"anything") == [Message(text.encode(), True) for text in texts]
    assert follower.is_closed
    assert follower.feed(b"more") == []


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("continuation of nothing", frame(b"x", 0)),
        ("a message inside a message", frame(b"x", 1, final=False) + frame(b"y", 1)),
        ("opcode of nobody", frame(b"x", 3)),
        ("control opcode of nobody", frame(b"x", 11)),
        ("control frame in parts", frame(b"x", 9, final=False)),
        ("control frame too long", frame(b"x" * 126, 9)),
        ("bits of nobody", frame(b"x", 1, rsv=2)),
        ("compressed without agreement", frame(b"x", 1, rsv=4)),
        ("length with the highest bit", b"\x81\x7f" + b"\xff" * 8),
    ],
)
def test_what_is_no_frame_is_malformed_after_what_was_one(name: str, wire: bytes) -> None:
    follower = MessageFollower(max_message_bytes=1000)
    assert follower.feed(frame(b"first") + wire) == [Message(b"first", True)]
    with pytest.raises(MalformedBody):
        follower.feed(b"")
    assert follower.held_bytes == 0


def test_a_final_deflate_block_ends_the_window_only() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    ended = deflate.compress(b"one") + deflate.flush(zlib.Z_FINISH) + b"\x00"
    wire = frame(ended, rsv=4) + frame(Deflater(takeover=True)(b"two"), rsv=4)
    messages = follow([wire], deflate=True)
    assert [message.data for message in messages] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Compression()),
        ("permessage-deflate", Compression(deflate=True)),
        (
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=10",
            Compression(deflate=True, client_takeover=False),
        ),
        ("Permessage-Deflate;server_no_context_takeover", Compression(deflate=True, server_takeover=False)),
    ],
)
def test_the_handshake_tells_the_compression(value: str | None, expected: Compression) -> None:
    headers = Headers([] if value is None else [("Sec-WebSocket-Extensions", value)])
    assert agreed_compression(headers) == expected


def test_an_extension_of_nobody_cannot_be_followed() -> None:
    with pytest.raises(MalformedBody, match="x-shout"):
        agreed_compression(Headers([("Sec-WebSocket-Extensions", "x-shout")]))
