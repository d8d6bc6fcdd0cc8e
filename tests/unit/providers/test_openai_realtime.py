"""OpenAI's Realtime API: messages that begin turns, and what an answer says."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import (
    ProviderErrorReported,
    ResponseEnded,
    ResponseStarted,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolKind,
    UnknownEvent,
    UsageReported,
)
from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.model.outcome import ErrorType
from aiproxyd.providers.openai_realtime import API, MAX_ITEM_BYTES, RealtimeConversation

HEAD = RequestHead("GET", "/v1/realtime?model=gpt-realtime", Headers())


def events(*messages: dict[str, object]) -> list[StreamEvent]:
    parser = API.stream_parser(1 << 20)
    found = [event for message in messages for event in parser.feed(json.dumps(message).encode())]
    return found + parser.close()


def said_by_client(conversation: RealtimeConversation, *messages: dict[str, object]) -> list[object]:
    return [conversation.from_client(json.dumps(message).encode(), is_whole=True) for message in messages]


def done(**response: object) -> dict[str, object]:
    return {"type": "response.done", "response": {"id": "r", "status": "completed", **response}}


def test_an_answer_gives_text_calls_and_figures() -> None:
    item = {"type": "function_call", "id": "i", "call_id": "c", "name": "wave"}
    usage = {"input_tokens": 10, "output_tokens": 4, "input_token_details": {"cached_tokens": 3, "audio_tokens": 2}}
    found = events(
        {"type": "response.created", "response": {"id": "r", "model": "m"}},
        {"type": "response.output_text.delta", "delta": "ab"},
        {"type": "response.output_audio_transcript.delta", "delta": "cde"},
        {"type": "response.output_item.added", "output_index": 1, "item": item},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{"},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "}"},
        {"type": "response.function_call_arguments.done", "output_index": 1, "arguments": "{}"},
        {"type": "response.output_item.done", "output_index": 1, "item": item | {"arguments": "{}"}},
        done(usage=usage),
    )
    assert found[:-2] == [
        ResponseStarted("r", "m"),
        TextDelta(2),
        TextDelta(3),
        ToolCallStarted(1, "wave", "c", "i", ToolKind.FUNCTION),
        ToolCallDelta(1, "{"),
        ToolCallDelta(1, "}"),
        ToolCallEnded(1),
    ]
    reported, ended = found[-2:]
    assert isinstance(reported, UsageReported)
    assert reported.final
    assert (reported.usage.input_tokens, reported.usage.cache_read_input_tokens, reported.usage.output_tokens) == (7, 3, 4)
    assert reported.usage.extra == {"prompt_audio": 2, "prompt_image": 0, "completion_audio": 0, "total_tokens": 14}
    assert ended == ResponseEnded("completed")


@pytest.mark.parametrize("where", ["arguments.done", "item.done"])
def test_arguments_may_come_whole(where: str) -> None:
    item = {"type": "mcp_call", "id": "i", "name": "wave", "server_label": "s"}
    added = {"type": "response.output_item.added", "output_index": 0, "item": item}
    whole = (
        {"type": "response.mcp_call_arguments.done", "output_index": 0, "arguments": "{}"}
        if where == "arguments.done"
        else {"type": "response.output_item.done", "output_index": 0, "item": item | {"arguments": "{}"}}
    )
    started, delta, *_ = events(added, whole)
    assert started == ToolCallStarted(0, "wave", "", "i", ToolKind.HOSTED, "s")
    assert delta == ToolCallDelta(0, "{}")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ({"status": "incomplete", "status_details": {"reason": "max_output_tokens"}}, ["incomplete:max_output_tokens", True]),
        ({"status": "cancelled", "status_details": {"reason": "turn_detected"}}, ["cancelled:turn_detected", True]),
        ({"status": "failed"}, ["failed", False]),
        ({"status": "failed", "status_details": {"error": {"code": "server_error", "message": "No."}}}, ["failed", False]),
    ],
)
def test_an_answer_may_end_early(response: dict[str, object], expected: list[object]) -> None:
    *before, ended = events(done(**response))
    assert isinstance(ended, ResponseEnded)
    assert [ended.finish_reason, ended.complete] == expected
    assert bool(before) is not ended.complete


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
@pytest.mark.parametrize("is_done", [False, True])
def test_a_call_that_was_cut_says_so(status: str, is_done: bool) -> None:
    item = {"type": "function_call", "id": "i", "call_id": "c", "name": "wave", "status": "incomplete"}
    messages: list[dict[str, object]] = [
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"status": "in_progress"}},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a'},
    ]
    if is_done:
        messages.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    found = events(*messages, done(status=status))
    assert [event for event in found if isinstance(event, ToolCallEnded)] == [ToolCallEnded(0, truncated=True)]


def test_sound_that_was_read_from_the_cache_is_told_apart() -> None:
    details = {"cached_tokens": 64, "audio_tokens": 50, "cached_tokens_details": {"text_tokens": 34, "audio_tokens": 30}}
    reported, _ = events(done(usage={"input_tokens": 132, "output_tokens": 1, "input_token_details": details}))
    assert isinstance(reported, UsageReported)
    assert (reported.usage.input_tokens, reported.usage.cache_read_input_tokens) == (68, 64)
    assert (reported.usage.extra["prompt_audio"], reported.usage.extra["cached_audio"]) == (50, 30)


def test_an_error_message_fails_the_answer() -> None:
    found = events({"type": "error", "error": {"type": "server_error", "message": "Oh."}})
    assert found == [ProviderErrorReported(ErrorType.SERVER_ERROR, "Oh."), ResponseEnded("error", complete=False)]


def test_what_is_not_known_is_counted() -> None:
    assert events(
        {"type": "response.future"},
        {"type": "response.output_item.added", "item": {"type": "hologram"}},
        {"type": "response.output_item.done", "item": {"type": "hologram"}},
        {"type": "response.output_item.added", "item": {"type": "message"}},
        {"type": "response.output_audio.delta", "delta": "AAAA"},
    ) == [UnknownEvent("event:response.future"), UnknownEvent("item:hologram")]


def test_a_turn_asks_with_what_came_last_before_it_and_only_once() -> None:
    conversation = RealtimeConversation()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    add, ask = {"type": "conversation.item.create", "item": item}, {"type": "response.create"}
    *_, first, second = said_by_client(conversation, add, ask, ask)
    assert API.read_request(first.body, HEAD).prompt == "Hi"  # type: ignore[attr-defined]
    facts = API.read_request(second.body, HEAD)  # type: ignore[attr-defined]
    assert (facts.prompt, facts.request_model, facts.streaming) == (None, "gpt-realtime", True)


def test_a_turn_may_bring_its_own_input_and_the_session_names_the_model() -> None:
    conversation = RealtimeConversation()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Aside"}]}
    _, turn = said_by_client(
        conversation,
        {"type": "session.update", "session": {"model": "gpt-realtime-2"}},
        {"type": "response.create", "response": {"conversation": "none", "input": [item], "metadata": {"topic": "x"}}},
    )
    facts = API.read_request(turn.body, HEAD)  # type: ignore[attr-defined]
    assert (facts.prompt, facts.request_model) == ("Aside", "gpt-realtime-2")


def test_a_greeting_that_crosses_the_clients_configuration_does_not_undo_it() -> None:
    conversation = RealtimeConversation()
    said_by_client(conversation, {"type": "session.update", "session": {"model": "asked-for"}})
    for kind, model, expected in (("created", "default", "asked-for"), ("updated", "granted", "granted")):
        message = {"type": f"session.{kind}", "session": {"model": model}}
        conversation.from_server(json.dumps(message).encode(), is_whole=True)
        (turn,) = said_by_client(conversation, {"type": "response.create"})
        assert API.read_request(turn.body, HEAD).request_model == expected  # type: ignore[attr-defined]


def test_an_item_that_is_too_large_is_not_remembered() -> None:
    conversation = RealtimeConversation()
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "A" * MAX_ITEM_BYTES}]}
    _, turn = said_by_client(conversation, {"type": "conversation.item.create", "item": item}, {"type": "response.create"})
    assert len(turn.body) < 100  # type: ignore[attr-defined]
    assert conversation.from_client(b'{"type":"conversation.item.create","item":{"x', is_whole=False) is None
    assert conversation.from_server(b'{"type":"response.done","response":{"x', is_whole=False).ends


def test_only_an_error_about_a_turn_refuses_one() -> None:
    conversation = RealtimeConversation()
    said_by_client(conversation, {"type": "response.create", "event_id": "e1"})

    def refuses(error: dict[str, object]) -> bool:
        return conversation.from_server(json.dumps({"type": "error", "error": error}).encode(), is_whole=True).is_refusal

    assert refuses({"event_id": "e1"})
    assert refuses({"code": "conversation_already_has_active_response"})
    assert not refuses({"event_id": "e0"})
    assert not refuses({})


@given(
    st.binary(max_size=80),
    st.dictionaries(st.sampled_from(["type", "item", "response", "delta", "error"]), st.text(), max_size=4),
)
def test_any_message_gives_events_or_a_malformed_body(data: bytes, fields: dict[str, str]) -> None:
    for message in (data, msgspec.json.encode(fields | {"type": "response.done"}), msgspec.json.encode(fields)):
        parser = API.stream_parser(1000)
        conversation = RealtimeConversation()
        for read in (
            lambda: parser.feed(message),
            lambda: conversation.from_client(message, is_whole=True),
            lambda: conversation.from_server(message, is_whole=True),
        ):
            try:
                read()
            except MalformedBody:
                pass
