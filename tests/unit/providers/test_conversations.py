"""What all conversations share: the words that end a turn, and messages of which only the beginning is known."""

import msgspec
import pytest

from aiproxyd.exceptions import MalformedBody
from aiproxyd.providers.conversation_apis import CONVERSATIONS
from aiproxyd.providers.conversations import Said, kind_of_cut, unmistakable


@pytest.mark.parametrize(
    ("said", "starts", "ends"),
    [
        (Said("response.created"), True, False),
        (Said("response.in_progress"), False, False),
        (Said("response.completed"), False, True),
        (Said("response.done"), False, True),
        (Said("error"), False, False),
        (Said("error", is_refusal=True), False, True),
    ],
)
def test_a_message_tells_whether_it_starts_or_ends_a_turn(said: Said, starts: bool, ends: bool) -> None:
    assert (said.starts, said.ends) == (starts, ends)


def test_the_type_of_a_large_message_is_found_at_its_beginning() -> None:
    assert kind_of_cut(b'{"event_id":"e", "type" : "response.create","input":[{"ty') == "response.create"
    with pytest.raises(MalformedBody):
        kind_of_cut(b'{"input":"xxxx')


@pytest.mark.parametrize("message", [b"", b"hello", b"[{}]", b'"{"', b"{", b"1"])
def test_what_is_no_object_is_malformed(message: bytes) -> None:
    with pytest.raises(MalformedBody):
        unmistakable(msgspec.json.Decoder(), message)


def test_every_conversation_reads_with_an_api_of_its_own_name() -> None:
    assert {name: make().api.name for name, make in CONVERSATIONS.items()} == {name: name for name in CONVERSATIONS}
