"""The four tests of a parser for `generateContent`, in both forms of its streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import EventTooLarge, MalformedBody
from aiproxyd.providers import google_generate_content
from tests.support.conversations import gemini_streams
from tests.support.parsers import Looks, check_broken, check_codings, check_meaning, check_total, check_written
from tests.support.strategies import splits
from tests.support.transcripts import Transcript, bytewise, parse, transcripts

API = google_generate_content.API
CASES = transcripts("generate_content")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    expected, stream = data.draw(gemini_streams())
    check_written(API, expected, stream, data.draw(splits(stream)))


def test_each_byte_is_decoded_at_most_four_times_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    # Once for Code Assist's envelope, once for the chunk, once for a part, and once more for a part without content.
    looks = Looks(google_generate_content.decode)
    monkeypatch.setattr(google_generate_content, "decode", looks)
    streams = [case.response for case in CASES if case.is_stream and case.status == 200 and len(case.response) < 1 << 16]
    for cut in (lambda stream: [stream], bytewise):
        looks.decoded_bytes = 0
        for stream in streams:
            parse(API.stream_parser(1 << 20), cut(stream))
        assert looks.decoded_bytes <= 4 * sum(map(len, streams))


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(1, 300), st.booleans())
def test_arbitrary_bytes_give_events_or_one_wire_error_within_the_limit(
    chunks: list[bytes], max_bytes: int, is_stream: bool
) -> None:
    check_total(API.stream_parser if is_stream else API.document_parser, chunks, max_bytes)


@pytest.mark.parametrize("seed", range(300))
def test_broken_conversations_give_events_or_one_wire_error_within_the_limit(seed: int) -> None:
    check_broken(API, CASES, seed)


def test_arguments_in_pieces_are_bounded() -> None:
    piece = b'data: {"candidates":[{"content":{"parts":[{"functionCall":{"willContinue":true,"partialArgs":[{"jsonPath":"$.a"}]}}]}}]}'
    parser = API.stream_parser(200)
    with pytest.raises(EventTooLarge):
        _ = [parser.feed(piece + b"\n\n") for _ in range(100)]


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ('{"functionCall":{"name":"a"}}', "tool calls and reasonings"),
        ('{"text":"a","thought":true},{"text":"b"}', "tool calls and reasonings"),
    ],
)
def test_more_parts_than_anybody_sends_are_refused(part: str, what: str) -> None:
    body = f'{{"candidates":[{{"content":{{"parts":[{",".join([part] * 4097)}]}}}}]}}'.encode()
    _, failure = parse(API.document_parser(1 << 20), [body])
    assert isinstance(failure, MalformedBody)
    assert what in str(failure)


def test_more_candidates_and_searches_than_anybody_sends_are_refused() -> None:
    candidates = ",".join(f'{{"index":{index}}}' for index in range(4097))
    _, failure = parse(API.document_parser(1 << 20), [f'{{"candidates":[{candidates}]}}'.encode()])
    assert "candidates" in str(failure)
    queries = ",".join(f'"{number}"' for number in range(4097))
    grounding = f'{{"candidates":[{{"groundingMetadata":{{"webSearchQueries":[{queries}]}}}}]}}'
    _, failure = parse(API.document_parser(1 << 20), [grounding.encode()])
    assert "searches" in str(failure)


def test_a_stream_of_nothing_holds_nothing_and_says_nothing() -> None:
    parser = API.stream_parser(100)
    assert parser.feed(b"\xef\xbb") == []
    assert parser.feed(b"\xbf \r\n") == []
    assert parser.held_bytes == 0  # type: ignore[attr-defined]
    assert parser.close() == []
