"""The four tests of a parser for chat completions, and the rules of its requests row by row."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody
from aiproxyd.providers import openai_chat
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.decoding import MAX_OPEN_PARTS
from tests.support.conversations import chunk_streams
from tests.support.parsers import Looks, check_broken, check_codings, check_meaning, check_total, check_written
from tests.support.strategies import splits
from tests.support.transcripts import Transcript, bytewise, parse, transcripts

API = openai_chat.API
CASES = transcripts("chat_completions")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    expected, stream = data.draw(chunk_streams())
    check_written(API, expected, stream, data.draw(splits(stream)))


def test_each_byte_is_decoded_at_most_three_times_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    # Once for the kind of an event, once for the event, once for what stands raw in it.
    looks = Looks(openai_chat.decode)
    monkeypatch.setattr(openai_chat, "decode", looks)
    stream = b"".join(case.response for case in CASES if case.is_stream and case.status == 200 and len(case.response) < 1 << 16)
    for chunks in ([stream], bytewise(stream)):
        looks.decoded_bytes = 0
        parse(API.stream_parser(1 << 20), chunks)
        assert looks.decoded_bytes <= 3 * len(stream)


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(1, 300), st.booleans())
def test_arbitrary_bytes_give_events_or_one_wire_error_within_the_limit(
    chunks: list[bytes], max_bytes: int, is_stream: bool
) -> None:
    check_total(API.stream_parser if is_stream else API.document_parser, chunks, max_bytes)


@pytest.mark.parametrize("seed", range(300))
def test_broken_conversations_give_events_or_one_wire_error_within_the_limit(seed: int) -> None:
    check_broken(API, CASES, seed)


def read(body: bytes) -> RequestFacts:
    return API.read_request(body, CASES[0].head())


@pytest.mark.parametrize(
    ("messages", "prompt", "is_anomaly"),
    [
        pytest.param("null", None, True, id="null"),
        pytest.param("[]", None, True, id="no messages"),
        pytest.param("{}", None, True, id="no array"),
        pytest.param(
            '[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]', None, False, id="last role is not user"
        ),
        pytest.param('[{"role":"user","content":"a"}]', "a", False, id="string"),
        pytest.param('[{"role":"user","content":""}]', None, False, id="empty string is none"),
        pytest.param('[{"role":"user","content":null}]', None, False, id="null content"),
        pytest.param(
            '[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"},{"type":"text","text":"b"},{"type":"file"}]}]',
            "b",
            False,
            id="last text part",
        ),
        pytest.param(
            '[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":""}]}]', None, False, id="empty part"
        ),
        pytest.param('[{"role":"user","content":[{"type":"image_url"}]}]', None, False, id="no text part"),
        pytest.param('[{"role":"user","content":[]}]', None, False, id="empty array"),
        pytest.param('[{"role":"user","content":7}]', None, True, id="content of another type"),
    ],
)
def test_the_last_user_prompt(messages: str, prompt: str | None, is_anomaly: bool) -> None:
    facts = read(b'{"model":"m","messages":%s}' % messages.encode())
    assert (facts.request_model, facts.prompt, bool(facts.anomaly)) == ("m", prompt, is_anomaly)


def test_a_request_without_messages_is_an_anomaly() -> None:
    assert read(b'{"model":"m"}').anomaly == "request body: no messages"


@pytest.mark.parametrize(
    ("last", "call_id"),
    [
        pytest.param('{"role":"tool","tool_call_id":"call_b","content":"2"}', "call_b", id="a tool's answer"),
        pytest.param('{"role":"user","content":"and"}', "", id="a user's message after it"),
        pytest.param('{"role":"tool","content":"2"}', "", id="an answer without an id"),
    ],
)
def test_the_tool_call_that_is_answered(last: str, call_id: str) -> None:
    body = f'{{"messages":[{{"role":"tool","tool_call_id":"call_a","content":"1"}},{last}]}}'
    assert read(body.encode()).correlating_tool_call_id == call_id


@pytest.mark.parametrize("value", ["true", "false", "null", '"true"'])
def test_streaming_is_what_the_body_asks_for(value: str) -> None:
    assert read(b'{"stream":%s,"messages":[]}' % value.encode()).streaming is (value == "true")


@pytest.mark.parametrize("what", ["choices", "tool calls"])
def test_more_parts_than_any_response_has_are_refused(what: str) -> None:
    delta = {"tool_calls": [{"id": "c", "function": {"name": "f"}}]}
    chunks = [
        {"choices": [{"index": number, "delta": {}}]} if what == "choices" else {"choices": [{"index": 0, "delta": delta}]}
        for number in range(5000)
    ]
    if what == "tool calls":
        for number, chunk in enumerate(chunks):
            chunk["choices"] = [
                {"index": 0, "delta": {"tool_calls": [{"index": number, "id": f"c{number}", "function": {"name": "f"}}]}}
            ]
    stream = b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks)
    events, failure = parse(API.stream_parser(1 << 20), [stream])
    assert len(events) <= MAX_OPEN_PARTS
    assert isinstance(failure, MalformedBody)


def test_pieces_that_say_nothing_give_no_event() -> None:
    parts = [
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": ""},
        {"type": "thinking", "thinking": []},
        {"type": "thinking", "thinking": None},
    ]
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": parts, "audio": {"id": "a"}, "function_call": {}}}]})
    events, failure = parse(API.stream_parser(1 << 20), [b"data:\n\n", b"data: %s\n\n" % chunk.encode()])
    assert [type(event).__name__ for event in events] == ["ToolCallStarted"]
    assert failure is None
