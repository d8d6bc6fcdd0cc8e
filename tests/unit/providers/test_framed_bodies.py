"""Bodies of frames, whatever the frames mean."""

import pytest

from aiproxyd.exceptions import EventTooLarge, MalformedBody
from aiproxyd.model.events import StreamEvent, TextDelta, UnknownEvent
from aiproxyd.providers.framed_bodies import FramedBody
from aiproxyd.wire.json_array import JsonArrayDecoder


def body_of(max_bytes: int = 100) -> FramedBody[bytes]:
    def read(frame: bytes, out: list[StreamEvent]) -> None:
        out.append(TextDelta(len(frame)))
        if frame == b'{"bad"}':
            raise MalformedBody("bad")

    return FramedBody(JsonArrayDecoder(max_bytes), read, lambda out: out.append(UnknownEvent("end")))


def test_frames_are_read_as_they_come_and_the_end_has_its_say() -> None:
    body = body_of()
    assert body.feed(b"[{},[") == [TextDelta(2)]
    assert body.held_bytes == 1
    assert body.feed(b"]]") == [TextDelta(2)]
    assert body.close() == [UnknownEvent("end")]


def test_events_before_a_fault_are_returned_and_the_next_call_raises_it() -> None:
    body = body_of()
    assert body.feed(b'[{},{"bad"},{}]') == [TextDelta(2), TextDelta(7)]
    for again in (lambda: body.feed(b""), body.close):
        with pytest.raises(MalformedBody, match="bad"):
            again()


def test_a_fault_without_events_is_raised_at_once() -> None:
    body = body_of(3)
    with pytest.raises(EventTooLarge):
        body.feed(b'[{"a":1}]')
    with pytest.raises(EventTooLarge):
        body.close()


def test_a_fault_of_the_framing_after_events_is_raised_at_the_end_at_the_latest() -> None:
    body = body_of()
    assert body.feed(b"[{}{") == [TextDelta(2)]
    for _ in range(2):
        with pytest.raises(MalformedBody, match="comma"):
            body.close()
