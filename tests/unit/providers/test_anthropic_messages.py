"""The four tests of a parser for messages, and the rules of its requests row by row."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody
from aiproxyd.providers import anthropic_messages
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.decoding import MAX_OPEN_PARTS
from tests.support.conversations import message_streams
from tests.support.parsers import Looks, check_broken, check_codings, check_meaning, check_total, check_written
from tests.support.strategies import splits
from tests.support.transcripts import Transcript, bytewise, parse, transcripts

API = anthropic_messages.API
CASES = transcripts("messages")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    expected, stream = data.draw(message_streams())
    check_written(API, expected, stream, data.draw(splits(stream)))


def test_each_byte_is_decoded_at_most_three_times_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    # Once for the kind of an event, once for the event, once for what stands raw in it.
    looks = Looks(anthropic_messages.decode)
    monkeypatch.setattr(anthropic_messages, "decode", looks)
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


def prompt_of(messages: str) -> tuple[str | None, bool]:
    facts = read(b'{"model":"m","messages":%s}' % messages.encode())
    assert facts.request_model == "m"
    return facts.prompt, bool(facts.anomaly)


@pytest.mark.parametrize(
    ("messages", "prompt", "is_anomaly"),
    [
        # Claude Code puts its environment behind the user's words, for models that take system messages there.
        ('[{"role":"user","content":"Hi"},{"role":"system","content":"# Environment"}]', "Hi", False),
        ('[{"role":"user","content":"Hi"},{"role":"assistant","content":"Ho"},{"role":"system","content":"x"}]', None, False),
        ('[{"role":"system","content":"x"}]', None, False),
        ('[{"role":"user","content":"Hi"}' + ',{"role":"system","content":"x"}' * 9 + "]", None, False),
        pytest.param("null", None, False, id="null"),
        pytest.param("[]", None, False, id="no message"),
        pytest.param("{}", None, True, id="no array"),
        pytest.param(
            '[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]', None, False, id="last role is not user"
        ),
        pytest.param('[{"role":"user","content":"a"}]', "a", False, id="string"),
        pytest.param('[{"role":"user","content":""}]', "", False, id="empty string counts as found"),
        pytest.param(
            '[{"role":"user","content":[{"type":"image"},{"type":"text","text":"first"},{"type":"text","text":"last"}]}]',
            "last",
            False,
            id="last text block",
        ),
        pytest.param(
            '[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":7}]}]', "a", False, id="no string"
        ),
        pytest.param('[{"role":"user","content":[]}]', None, False, id="empty array"),
        pytest.param('[{"role":"user","content":[{"type":"image"}]}]', None, False, id="only images"),
        pytest.param(
            '[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"}]}]', None, False, id="only tool results"
        ),
        pytest.param(
            '[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"},{"type":"text","text":"stop"}]}]',
            "stop",
            False,
            id="an interjection after tool results",
        ),
        pytest.param('[{"role":"user","content":7}]', None, True, id="content of another type"),
        pytest.param('[{"role":"user","content":null}]', None, False, id="content null"),
        pytest.param('["user"]', None, True, id="a message that is no object"),
        pytest.param(
            '[{"role":"user","content":"<system-reminder>x</system-reminder>"}]',
            "<system-reminder>x</system-reminder>",
            False,
            id="nothing is stripped",
        ),
    ],
)
def test_the_last_user_prompt(messages: str, prompt: str | None, is_anomaly: bool) -> None:
    assert prompt_of(messages) == (prompt, is_anomaly)


def test_a_request_without_messages_has_no_prompt_and_no_anomaly() -> None:
    assert read(b'{"model":"m"}') == RequestFacts(request_model="m", input_characters=13)


@pytest.mark.parametrize(
    ("content", "call_id"),
    [
        pytest.param(
            '[{"type":"tool_result","tool_use_id":"a"},{"type":"tool_result","tool_use_id":"b"}]', "b", id="the last of several"
        ),
        pytest.param(
            '[{"type":"tool_result","tool_use_id":"a"},{"type":"tool_result","tool_use_id":""}]', "a", id="not an empty one"
        ),
        pytest.param('[{"type":"tool_result","tool_use_id":"a"},{"type":"text","text":"and"}]', "a", id="before a text"),
        pytest.param('"plain"', "", id="a plain text"),
        pytest.param('[{"type":"tool_result"}]', "", id="without an id"),
    ],
)
def test_the_tool_call_that_is_answered(content: str, call_id: str) -> None:
    earlier = '{"role":"user","content":[{"type":"tool_result","tool_use_id":"earlier"}]}'
    body = f'{{"messages":[{earlier},{{"role":"user","content":{content}}}]}}'
    assert read(body.encode()).correlating_tool_call_id == call_id


@pytest.mark.parametrize(
    ("metadata", "session_id", "candidates"),
    [
        pytest.param({"user_id": "user_abc123_account_456_session_9f0e-1"}, "9f0e-1", False, id="old form"),
        pytest.param(
            {"user_id": '{"device_id":"d","account_uuid":"","session_id":" 54c1eb09 "}'}, "54c1eb09", False, id="JSON text"
        ),
        pytest.param(
            {"user_id": '{"device_id":"d_session_x","session_id":""}'}, "", True, id="JSON text, empty session, no fallback"
        ),
        pytest.param({"user_id": '{"device_id":"d"}'}, "", True, id="JSON text without session"),
        pytest.param({"user_id": '{"session_id":5}'}, "", True, id="JSON text, session no string"),
        pytest.param({"user_id": "user_abc123_account_456"}, "", True, id="no session"),
        pytest.param({"user_id": "  "}, "", False, id="blank"),
        pytest.param({"user_id": 7}, "", False, id="no string"),
        pytest.param({}, "", False, id="no user_id"),
        pytest.param(None, "", False, id="no metadata"),
        pytest.param([], "", False, id="metadata of another type"),
    ],
)
def test_the_session_in_the_user_id(metadata: object, session_id: str, candidates: bool) -> None:
    facts = read(json.dumps({"metadata": metadata, "messages": []}).encode())
    assert facts.client_session_id == session_id
    assert set(facts.metadata) == ({"user_id"} if candidates else set())
    assert not facts.anomaly


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b'"a"', b"\xff\xfe", b'{"model":"m"', b"[" * 100_000])
def test_a_body_that_is_no_object_is_an_anomaly(body: bytes) -> None:
    facts = read(body)
    assert facts.anomaly.startswith("request body: ")
    assert facts == RequestFacts(anomaly=facts.anomaly, input_characters=len(body))


def test_events_come_in_the_order_of_the_stream() -> None:
    case = next(case for case in CASES if case.case == "streamed_tool_use")
    events, failure = parse(case.parser(), [case.response])
    assert failure is None
    assert [type(event).__name__ for event in events] == [
        "ResponseStarted",
        "UsageReported",
        *["TextDelta"] * 5,
        "ToolCallStarted",
        *["ToolCallDelta"] * 8,
        "ToolCallEnded",
        "UsageReported",
        "ResponseEnded",
    ]


def test_more_open_blocks_than_any_response_has_are_refused() -> None:
    start = 'event: content_block_start\ndata: {{"index":{},"content_block":{{"type":"tool_use"}}}}\n\n'
    stream = "".join(start.format(index) for index in range(5000)).encode()
    events, failure = parse(API.stream_parser(1 << 20), [stream])
    assert len(events) == MAX_OPEN_PARTS
    assert isinstance(failure, MalformedBody)
