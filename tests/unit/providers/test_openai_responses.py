"""The four tests of a parser for responses, and the rules of its requests row by row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody
from aiproxyd.providers import openai_responses
from aiproxyd.providers.api import RequestFacts
from tests.support.conversations import response_streams
from tests.support.parsers import Looks, check_broken, check_codings, check_meaning, check_total, check_written
from tests.support.strategies import splits
from tests.support.transcripts import Transcript, bytewise, parse, transcripts

API = openai_responses.API
CASES = transcripts("responses")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    expected, stream = data.draw(response_streams())
    check_written(API, expected, stream, data.draw(splits(stream)))


def test_each_byte_is_decoded_at_most_three_times_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    # Once for the kind of an event, once for the event, once for what stands raw in it.
    looks = Looks(openai_responses.decode)
    monkeypatch.setattr(openai_responses, "decode", looks)
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


def user(content: str) -> str:
    return f'[{{"role":"user","content":{content}}}]'


@pytest.mark.parametrize(
    ("items", "prompt", "is_anomaly"),
    [
        pytest.param("null", None, False, id="null"),
        pytest.param("[]", None, False, id="no item"),
        pytest.param('"ask"', "ask", False, id="string"),
        pytest.param('""', "", False, id="empty string is found"),
        pytest.param("7", None, True, id="number"),
        pytest.param(
            '[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]', None, False, id="last role is not user"
        ),
        pytest.param(user('"a"'), "a", False, id="content string"),
        pytest.param(user('""'), "", False, id="empty content string is found"),
        pytest.param(
            user('[{"type":"input_text","text":"a"},{"type":"input_image"},{"type":"input_text","text":"b"}]'),
            "a\nb",
            False,
            id="all texts joined",
        ),
        pytest.param(user('[{"type":"input_image"}]'), None, False, id="only images"),
        pytest.param(user("[]"), None, False, id="empty array"),
        pytest.param(user('[{"type":"input_text","text":7}]'), None, False, id="text is no string"),
        pytest.param(user("null"), None, False, id="content null"),
        pytest.param('[{"role":"user"}]', None, False, id="content missing"),
        pytest.param(user("7"), None, True, id="content number"),
        pytest.param('[{"type":"item_reference","id":"x"}]', None, False, id="an item without a role"),
    ],
)
def test_the_last_user_prompt(items: str, prompt: str | None, is_anomaly: bool) -> None:
    facts = read(b'{"model":"m","input":%s}' % items.encode())
    assert (facts.request_model, facts.prompt, bool(facts.anomaly)) == ("m", prompt, is_anomaly)


def test_a_request_without_input_has_no_prompt_and_no_anomaly() -> None:
    assert read(b'{"model":"m"}') == RequestFacts(request_model="m", input_characters=13)


@pytest.mark.parametrize(
    ("last", "call_id"),
    [
        pytest.param('{"type":"function_call_output","call_id":"call_b","output":"2"}', "call_b", id="a function's output"),
        pytest.param(
            '{"type":"custom_tool_call_output","call_id":"call_c","output":"2"}', "call_c", id="a custom tool's output"
        ),
        pytest.param('{"type":"shell_call_output","call_id":"call_d","output":[]}', "call_d", id="a shell's output"),
        pytest.param('{"type":"function_call_output","output":"2"}', "", id="an output without an id"),
        pytest.param('{"role":"user","content":"and"}', "", id="a user's message after it"),
        pytest.param('{"type":"reasoning","summary":[]}', "", id="another item after it"),
    ],
)
def test_the_tool_call_that_is_answered(last: str, call_id: str) -> None:
    body = f'{{"input":[{{"type":"function_call_output","call_id":"call_a","output":"1"}},{last}]}}'
    assert read(body.encode()).correlating_tool_call_id == call_id


def test_session_candidates_are_handed_over_as_they_are() -> None:
    body = (
        b'{"input":"a","prompt_cache_key":" k ","client_metadata":{"session_id":"s","turn_id":"t"},"metadata":{"user_id":"u"}}'
    )
    facts = read(body)
    assert facts.client_session_id == ""
    assert facts.metadata == {"prompt_cache_key": "k", "client_metadata.session_id": "s", "user_id": "u"}


def test_more_items_than_any_response_has_are_refused() -> None:
    event = 'event: response.output_item.added\ndata: {{"output_index":{},"item":{{"type":"message"}}}}\n\n'
    stream = "".join(event.format(index) for index in range(5000)).encode()
    events, failure = parse(API.stream_parser(1 << 20), [stream])
    assert events == []
    assert isinstance(failure, MalformedBody)


def test_events_that_say_nothing_give_no_event() -> None:
    quiet = [
        b'event: keepalive\ndata: {"type":"keepalive"}\n\n',
        b'event: response.reasoning_text.done\ndata: {"output_index":7}\n\n',
        b'event: response.function_call_arguments.delta\ndata: {"output_index":7,"delta":"{}"}\n\n',
        b'event: response.function_call_arguments.done\ndata: {"output_index":7,"arguments":"{}"}\n\n',
        b'event: response.output_text.delta\ndata: {"output_index":7,"delta":""}\n\n',
        b'event: response.audio.transcript.delta\ndata: {"delta":""}\n\n',
    ]
    assert parse(API.stream_parser(1 << 20), quiet) == ([], None)
