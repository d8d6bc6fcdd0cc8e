"""The four tests of a parser for embeddings."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers import openai_embeddings
from tests.support.parsers import check_broken, check_codings, check_meaning, check_total
from tests.support.strategies import splits
from tests.support.transcripts import RESULT_DEFAULTS, Transcript, parse, summary, transcripts

API = openai_embeddings.API
CASES = transcripts("embeddings")
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
    """A summary, and a list of embeddings that says it, its members in any order."""
    tokens, model = draw(st.integers(1, 10**6)), draw(st.text(max_size=10))
    numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5)
    name = draw(st.sampled_from(["prompt_tokens", "total_tokens"]))
    members: list[tuple[str, Any]] = [
        ("object", "list"),
        ("data", [{"embedding": draw(numbers), "index": index} for index in range(draw(st.integers(0, 3)))]),
        ("model", model),
        ("usage", {name: tokens}),
        ("holiday", draw(st.recursive(st.none() | st.text(max_size=5), st.lists, max_leaves=4))),
    ]
    body = json.dumps(dict(draw(st.permutations(members))), indent=draw(st.sampled_from([None, 1]))).encode()
    found = {"response_model": model, "usage": {"input_tokens": tokens, "extra": {}}, "usage_final": True}
    return RESULT_DEFAULTS | found | {"ended": True, "complete": True}, body


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
    parser.feed(b'{"data":[')
    for _ in range(1000):
        parser.feed(b"0.0023064255,-0.009327292," * 10)
        assert parser.held_bytes <= 100
