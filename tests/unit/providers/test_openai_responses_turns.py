"""Which messages of a Responses connection begin a turn, and where the provider's belong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.providers.conversations import Said, Turn
from aiproxyd.providers.openai_responses_turns import MAX_STEER_BYTES, MAX_STEERS, ResponsesConversation, read_turn

HEAD = RequestHead("GET", "/v1/responses", Headers())


def client(conversation: ResponsesConversation, **message: object) -> Turn | None:
    return conversation.from_client(json.dumps(message).encode(), is_whole=True)


def server(conversation: ResponsesConversation, **message: object) -> Said:
    return conversation.from_server(json.dumps(message).encode(), is_whole=True)


def test_only_a_create_begins_a_turn() -> None:
    conversation = ResponsesConversation()
    for kind in ("response.steer", "response.cancel", "session.update", ""):
        assert client(conversation, type=kind) is None
    turn = client(conversation, type="response.create", model="m", input="Hi", stream_id="left")
    assert turn is not None
    assert (turn.lane, turn.anomaly, json.loads(turn.body)["input"]) == ("left", "", "Hi")


def test_a_body_may_stand_inside_the_message() -> None:
    turn = client(ResponsesConversation(), type="response.create", response={"model": "m", "input": "Hi"})
    assert turn is not None
    facts = read_turn(turn.body, HEAD)
    assert (facts.request_model, facts.prompt, facts.streaming) == ("m", "Hi", True)


def test_a_large_create_is_a_turn_that_cannot_be_read() -> None:
    conversation = ResponsesConversation()
    turn = conversation.from_client(b'{"type":"response.create","input":"xxx', is_whole=False)
    assert turn is not None
    assert turn.anomaly
    assert conversation.from_client(b'{"type":"response.steer","input":"xxx', is_whole=False) is None
    assert conversation.from_server(b'{"type":"response.completed","resp', is_whole=False).ends


@pytest.mark.parametrize(("status", "expected"), [(429, 429), (200, 0), ("429", 0), (None, 0), (600, 0)])
def test_an_error_ends_its_turn_and_may_have_a_status(status: object, expected: int) -> None:
    said = server(ResponsesConversation(), type="error", status=status, stream_id="left")
    assert said == Said("error", "left", "left", status_code=expected, is_refusal=True)


def test_created_names_the_response() -> None:
    conversation = ResponsesConversation()
    said = server(conversation, type="response.created", response={"id": "r", "model": "m", "previous_response_id": "p"})
    assert (said.response_id, said.model, said.previous_response_id) == ("r", "m", "p")
    assert server(conversation, type="response.created").response_id == ""


def test_queued_input_is_what_a_successor_asks_unless_the_client_asks_first() -> None:
    conversation = ResponsesConversation()
    successor = Said("response.created", response_id="r2", model="m", previous_response_id="r1")
    client(conversation, type="response.steer", previous_response_id="r1", input="Smaller.")
    assert read_turn(conversation.unasked(successor).body, HEAD).prompt == "Smaller."
    assert read_turn(conversation.unasked(successor).body, HEAD).prompt is None
    client(conversation, type="response.steer", previous_response_id="r1", input="Smaller.")
    client(conversation, type="response.create", previous_response_id="r1", input=[])
    assert read_turn(conversation.unasked(successor).body, HEAD).prompt is None


def test_what_is_remembered_of_queued_input_is_bounded() -> None:
    conversation = ResponsesConversation()
    client(conversation, type="response.steer", previous_response_id="large", input="x" * MAX_STEER_BYTES)
    for number in range(MAX_STEERS + 1):
        client(conversation, type="response.steer", previous_response_id=f"r{number}", input="Hi")
    prompts = [
        read_turn(conversation.unasked(Said("response.created", previous_response_id=id_)).body, HEAD).prompt
        for id_ in ("large", "r0", "r1", f"r{MAX_STEERS}")
    ]
    assert prompts == [None, None, "Hi", "Hi"]


def test_a_warm_up_has_no_prompt_and_nothing_to_estimate() -> None:
    facts = read_turn(b'{"model":"m","input":"You are.","generate":false,"previous_response_id":"p"}', HEAD)
    assert (facts.prompt, facts.input_characters) == (None, 0)
    assert facts.metadata == {"transport": "websocket", "warmup": "true", "previous_response_id": "p"}


@given(st.binary(max_size=60), st.booleans())
def test_any_message_is_understood_or_malformed(message: bytes, is_whole: bool) -> None:
    conversation = ResponsesConversation()
    for read in (conversation.from_client, conversation.from_server):
        try:
            read(message, is_whole=is_whole)
        except MalformedBody:
            pass
    assert read_turn(message, HEAD).streaming
