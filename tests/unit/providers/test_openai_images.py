"""The four tests of a parser for images."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers import openai_images
from tests.support.parsers import check_broken, check_codings, check_meaning, check_total
from tests.support.strategies import splits
from tests.support.transcripts import RESULT_DEFAULTS, Transcript, parse, summary, transcripts

API = openai_images.API
CASES = transcripts("images")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)

_counts = st.integers(0, 10**6)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, Any], bytes, bool]:
    """A summary, and a document or a stream that says it, and whether it is a stream."""
    usages = [
        {
            "input_tokens": draw(st.integers(1, 10**6)),
            "output_tokens": draw(_counts),
            "input_tokens_details": {"image_tokens": 7},
        }
        for _ in range(draw(st.integers(1, 3)))
    ]
    is_stream = len(usages) > 1 or draw(st.booleans())
    figures = {name: sum(int(usage[name]) for usage in usages) for name in ("input_tokens", "output_tokens")}  # type: ignore[call-overload]
    found = RESULT_DEFAULTS | {"ended": True, "complete": True, "usage_final": True}
    found["usage"] = {name: count for name, count in figures.items() if count} | {"extra": {"input_image": 7 * len(usages)}}
    if not is_stream:
        return found, json.dumps({"created": 1, "data": [{"b64_json": "iVBO"}], "usage": usages[0]}).encode(), False
    prefix = draw(st.sampled_from(["image_generation", "image_edit"]))
    events: list[dict[str, Any]] = []
    for usage in usages:
        events += [{"type": f"{prefix}.partial_image", "b64_json": "iVBO"}] * draw(st.integers(0, 2))
        events.append({"type": f"{prefix}.completed", "usage": usage})
    return found, b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events), True


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    expected, body, is_stream = data.draw(answers())
    for chunks in ([body], data.draw(splits(body))):
        events, failure = parse((API.stream_parser if is_stream else API.document_parser)(len(body) + 1), chunks)
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
