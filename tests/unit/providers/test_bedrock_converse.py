"""The four tests of a parser for Converse and ConverseStream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers import bedrock_converse
from tests.support.conversations import converse_streams
from tests.support.parsers import Looks, check_broken, check_codings, check_meaning, check_total, check_written
from tests.support.strategies import splits
from tests.support.transcripts import Transcript, bytewise, parse, transcripts
from tests.support.wire_formats import aws_event

API = bedrock_converse.API
CASES = transcripts("converse")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    expected, stream = data.draw(converse_streams())
    check_written(API, expected, stream, data.draw(splits(stream)))


def test_each_byte_is_decoded_at_most_three_times_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(bedrock_converse.decode)
    monkeypatch.setattr(bedrock_converse, "decode", looks)
    streams = [case.response for case in CASES if case.is_stream and case.status == 200 and len(case.response) < 1 << 16]
    for cut in (lambda stream: [stream], bytewise):
        looks.decoded_bytes = 0
        for stream in streams:
            parse(API.stream_parser(1 << 20), cut(stream))
        assert looks.decoded_bytes <= 3 * sum(map(len, streams))


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(16, 300), st.booleans())
def test_arbitrary_bytes_give_events_or_one_wire_error_within_the_limit(
    chunks: list[bytes], max_bytes: int, is_stream: bool
) -> None:
    check_total(API.stream_parser if is_stream else API.document_parser, chunks, max_bytes)


@pytest.mark.parametrize("seed", range(300))
def test_broken_conversations_give_events_or_one_wire_error_within_the_limit(seed: int) -> None:
    check_broken(API, CASES, seed)


def test_more_open_blocks_than_anybody_sends_are_refused() -> None:
    start = {"start": {"toolUse": {"toolUseId": "t", "name": "f"}}}
    stream = b"".join(aws_event("contentBlockStart", {"contentBlockIndex": index, **start}) for index in range(4097))
    _, failure = parse(API.stream_parser(1 << 20), [stream])
    assert "content blocks are open" in str(failure)
