"""The four tests of a parser for Google's interactions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers import google_interactions
from tests.support.conversations import interaction_streams
from tests.support.parsers import Looks, check_broken, check_codings, check_meaning, check_total, check_written
from tests.support.strategies import splits
from tests.support.transcripts import Transcript, bytewise, parse, transcripts

API = google_interactions.API
CASES = transcripts("interactions")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    expected, stream = data.draw(interaction_streams())
    check_written(API, expected, stream, data.draw(splits(stream)))


def test_each_byte_is_decoded_at_most_three_times_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(google_interactions.decode)
    monkeypatch.setattr(google_interactions, "decode", looks)
    streams = [case.response for case in CASES if case.is_stream and case.status == 200 and len(case.response) < 1 << 16]
    for cut in (lambda stream: [stream], bytewise):
        looks.decoded_bytes = 0
        for stream in streams:
            parse(API.stream_parser(1 << 20), cut(stream))
        assert looks.decoded_bytes <= 3 * sum(map(len, streams))


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(1, 300), st.booleans())
def test_arbitrary_bytes_give_events_or_one_wire_error_within_the_limit(
    chunks: list[bytes], max_bytes: int, is_stream: bool
) -> None:
    check_total(API.stream_parser if is_stream else API.document_parser, chunks, max_bytes)


@pytest.mark.parametrize("seed", range(300))
def test_broken_conversations_give_events_or_one_wire_error_within_the_limit(seed: int) -> None:
    check_broken(API, CASES, seed)


def test_more_open_steps_than_anybody_sends_are_refused() -> None:
    event = 'data: {"event_type":"step.start","index":%d,"step":{"type":"function_call","name":"f"}}\n\n'
    _, failure = parse(API.stream_parser(1 << 20), ["".join(event % index for index in range(4097)).encode()])
    assert "steps are open" in str(failure)
