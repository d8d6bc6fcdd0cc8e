"""The four tests of a parser for Google's embeddings."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers import google_embed_content
from tests.support.parsers import check_broken, check_codings, check_meaning, check_total
from tests.support.strategies import splits
from tests.support.transcripts import RESULT_DEFAULTS, Transcript, parse, summary, transcripts

API = google_embed_content.API
CASES = transcripts("embed_content")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)

_counts = st.integers(0, 10**6)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A summary, and embeddings that say it."""
    tokens = draw(_counts)
    body = {
        "embeddings": [{"values": draw(st.lists(st.floats(-1, 1), max_size=5))}],
        "usageMetadata": {"promptTokenCount": tokens},
    }
    found: dict[str, Any] = RESULT_DEFAULTS | {"ended": True, "complete": True}
    if tokens:
        found |= {"usage": {"input_tokens": tokens, "extra": {"tool_use_prompt": 0}}, "usage_final": True}
    return found, json.dumps(body).encode()


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    expected, body = data.draw(answers())
    for chunks in ([body], data.draw(splits(body))):
        events, failure = parse(API.document_parser(len(body) + 1), chunks)
        assert summary(events, failure, "") == expected


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(1, 300), st.booleans())
def test_arbitrary_bytes_give_events_or_one_wire_error_within_the_limit(
    chunks: list[bytes], max_bytes: int, is_stream: bool
) -> None:
    check_total(API.stream_parser if is_stream else API.document_parser, chunks, max_bytes)


@pytest.mark.parametrize("seed", range(200))
def test_broken_conversations_give_events_or_one_wire_error_within_the_limit(seed: int) -> None:
    check_broken(API, CASES, seed)


def test_the_bulk_of_an_answer_is_never_held() -> None:
    parser: Any = API.document_parser(100)
    parser.feed(b'{"embeddings":[')
    for _ in range(1000):
        parser.feed(b"0.0023064255,-0.009327292," * 10)
        assert parser.held_bytes <= 100
