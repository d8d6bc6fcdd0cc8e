"""The four tests of a parser for Cohere's chat."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers import cohere_chat
from tests.support.parsers import check_broken, check_codings, check_meaning, check_total
from tests.support.strategies import splits
from tests.support.transcripts import RESULT_DEFAULTS, Transcript, parse, summary, transcripts

API = cohere_chat.API
CASES = transcripts("chat")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)

_counts = st.integers(0, 10**6)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A summary, and a stream that says it."""
    found: dict[str, Any] = RESULT_DEFAULTS | {"thoughts": [], "tools": [], "response_id": "c1"}
    events: list[dict[str, Any]] = [{"type": "message-start", "id": "c1"}]
    for index in range(draw(st.integers(0, 3))):
        kind, text = draw(st.sampled_from(["text", "thinking"])), draw(st.text(max_size=10))
        half = len(text) // 2
        events.append({"type": "content-start", "index": index, "delta": {"message": {"content": {"type": kind, kind: ""}}}})
        events += [
            {"type": "content-delta", "index": index, "delta": {"message": {"content": {kind: piece}}}}
            for piece in (text[:half], text[half:])
        ]
        events.append({"type": "content-end", "index": index})
        if kind == "text":
            found["text_characters"] += len(text)
        elif text:
            found["thoughts"].append({"source": "thinking", "content": text})
    for index in range(draw(st.integers(0, 2))):
        arguments = json.dumps({"a": draw(st.text(max_size=5))})
        call = {"id": f"call_{index}", "type": "function", "function": {"name": "f", "arguments": ""}}
        events.append({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": call}}})
        pieces = [{"function": {"arguments": piece}} for piece in (arguments[:4], arguments[4:])]
        events += [{"type": "tool-call-delta", "index": index, "delta": {"message": {"tool_calls": piece}}} for piece in pieces]
        events.append({"type": "tool-call-end", "index": index})
        found["tools"].append({"name": "f", "kind": "function", "arguments": arguments, "call_id": f"call_{index}"})
    tokens = draw(st.integers(1, 10**6))
    usage = {"billed_units": {"input_tokens": tokens, "output_tokens": 2}, "tokens": {"input_tokens": 10**7}}
    events.append({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}})
    found |= {"usage": {"input_tokens": tokens, "output_tokens": 2, "extra": {}}, "usage_final": True}
    found |= {"finish_reason": "COMPLETE", "ended": True, "complete": True}
    named = draw(st.booleans())
    lines = [(f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n" for event in events]
    return found, "".join(lines).encode()


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    expected, body = data.draw(streams())
    for chunks in ([body], data.draw(splits(body))):
        events, failure = parse(API.stream_parser(len(body) + 1), chunks)
        assert summary(events, failure, "") == expected


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(1, 300), st.booleans())
def test_arbitrary_bytes_give_events_or_one_wire_error_within_the_limit(
    chunks: list[bytes], max_bytes: int, is_stream: bool
) -> None:
    check_total(API.stream_parser if is_stream else API.document_parser, chunks, max_bytes)


@pytest.mark.parametrize("seed", range(200))
def test_broken_conversations_give_events_or_one_wire_error_within_the_limit(seed: int) -> None:
    check_broken(API, CASES, seed)


def test_more_tool_calls_than_anybody_makes_are_refused() -> None:
    call = b'data: {"type":"tool-call-start","index":1,"delta":{"message":{"tool_calls":{"id":"a"}}}}\n\n'
    _, failure = parse(API.stream_parser(1 << 20), [call * 4097])
    assert "tool calls and reasonings" in str(failure)
