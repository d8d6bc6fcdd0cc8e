"""Bodies of which a few members matter, or nothing."""

from collections.abc import Mapping

import pytest

from aiproxyd.exceptions import EventTooLarge, MalformedBody
from aiproxyd.model.events import StreamEvent, TextDelta
from aiproxyd.providers.members_body import MembersBody, UnreadBody


def read(members: Mapping[str, bytes]) -> list[StreamEvent]:
    if "usage" not in members:
        raise MalformedBody("no usage")
    return [TextDelta(len(members["usage"]))]


def test_the_members_are_read_at_the_end() -> None:
    body = MembersBody(100, ("usage",), read)
    assert body.feed(b'{"data":[1,2],"us') == []
    assert body.feed(b'age":{"a":1}}') == []
    assert body.held_bytes == 7
    assert body.close() == [TextDelta(7)]


def test_what_cannot_be_read_is_told_at_the_end_and_the_parser_is_spent() -> None:
    body = MembersBody(100, ("usage",), read)
    body.feed(b"{}")
    for again in (body.close, body.close, lambda: body.feed(b"")):
        with pytest.raises(MalformedBody, match="no usage"):
            again()


def test_what_is_no_object_or_too_large_is_told_at_once() -> None:
    for limit, data, error in ((100, b"[]", MalformedBody), (3, b'{"usage":1234', EventTooLarge)):
        body = MembersBody(limit, ("usage",), read)
        for again in (lambda body=body, data=data: body.feed(data), lambda body=body: body.feed(b""), body.close):
            with pytest.raises(error):
                again()


def test_an_unread_body_says_and_holds_nothing() -> None:
    body = UnreadBody()
    assert body.feed(b"\x00" * 1000) == []
    assert body.held_bytes == 0
    assert body.close() == []
