"""The four tests of a parser for legacy completions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers import openai_completions
from tests.support.parsers import check_broken, check_codings, check_meaning, check_total
from tests.support.strategies import splits
from tests.support.transcripts import RESULT_DEFAULTS, Transcript, parse, summary, transcripts

API = openai_completions.API
CASES = transcripts("completions")
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
    texts = draw(st.lists(st.text(max_size=10), max_size=5))
    place = draw(st.sampled_from(["none", "last", "finish", "every"]))
    usage = {"prompt_tokens": draw(st.integers(1, 10**6)), "completion_tokens": draw(_counts)}
    base = {"id": "cmpl-1", "model": "m"}
    chunks = [{**base, "choices": [{"text": text, "index": 0, "finish_reason": None}]} for text in texts]
    if place == "every":
        chunks = [{**chunk, "usage": usage} for chunk in chunks]
    end: dict[str, Any] = {**base, "choices": [{"text": "", "index": 0, "finish_reason": "stop"}]}
    chunks.append({**end, "usage": usage} if place in {"finish", "every"} else end)
    if place == "last":
        chunks.append({**base, "choices": [], "usage": usage})
    found = {"response_id": "cmpl-1", "response_model": "m", "text_characters": sum(map(len, texts)), "finish_reason": "stop"}
    found = RESULT_DEFAULTS | found | {"ended": True, "complete": True}
    if place != "none":
        figures = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"], "extra": EXTRA}
        found |= {"usage": {name: count for name, count in figures.items() if count}, "usage_final": True}
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return found, body + (b"data: [DONE]\n\n" if draw(st.booleans()) else b"")


EXTRA = dict.fromkeys(
    (
        "prompt_audio",
        "completion_accepted_prediction",
        "completion_rejected_prediction",
        "completion_audio",
        "completion_reasoning",
    ),
    0,
)


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


def test_a_chunk_may_itself_be_the_error() -> None:
    parser = API.stream_parser(1 << 20)
    stream = (
        b'data: {"id":"c","choices":[{"text":"a"}]}\n\ndata: {"object":"error","message":"No.","code":500}\n\ndata: [DONE]\n\n'
    )
    *_, reported, ended = parser.feed(stream)
    assert (reported.message, ended.complete) == ("No.", False)  # type: ignore[union-attr]
