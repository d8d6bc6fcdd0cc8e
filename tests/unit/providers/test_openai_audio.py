"""The four tests of a parser for transcriptions and speech."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers import openai_audio
from tests.support.parsers import check_broken, check_codings, check_meaning, check_total
from tests.support.strategies import splits
from tests.support.transcripts import RESULT_DEFAULTS, Transcript, parse, summary, transcripts

API = openai_audio.TRANSCRIPTIONS
CASES = transcripts("transcriptions")
names = pytest.mark.parametrize("transcript", CASES, ids=lambda transcript: transcript.name)

_counts = st.integers(0, 10**6)


@names
def test_a_conversation_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)


@names
def test_a_conversation_means_the_same_in_every_content_coding(transcript: Transcript) -> None:
    check_codings(transcript)


SPOKEN = transcripts("speech")


@pytest.mark.parametrize("transcript", SPOKEN, ids=lambda transcript: transcript.name)
def test_a_speech_means_what_its_files_say_however_it_is_cut(transcript: Transcript) -> None:
    check_meaning(transcript)
    check_codings(transcript)


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, Any], bytes, bool]:
    """A summary, and a document or a stream that says it, and whether it is a stream."""
    texts = draw(st.lists(st.text(max_size=10), max_size=4))
    usage = {"type": "tokens", "input_tokens": draw(st.integers(1, 10**6)), "output_tokens": draw(_counts)}
    figures = {"input_tokens": usage["input_tokens"], "output_tokens": usage["output_tokens"]}
    found = RESULT_DEFAULTS | {"ended": True, "complete": True, "usage_final": True}
    found["usage"] = {name: count for name, count in figures.items() if count} | {"extra": {}}
    text = "".join(texts)
    if draw(st.booleans()):
        return found, json.dumps({"text": text, "words": [{"word": text}], "usage": usage}).encode(), False
    events: list[dict[str, Any]] = [{"type": "transcript.text.delta", "delta": piece} for piece in texts]
    events.append({"type": "transcript.text.done", "text": text, "usage": usage})
    found["text_characters"] = len(text)
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


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_sound_says_nothing(chunks: list[bytes]) -> None:
    assert parse(openai_audio.SPEECH.document_parser(1), chunks) == ([], None)


def test_a_transcription_of_nothing_holds_nothing() -> None:
    parser: Any = API.document_parser(100)
    assert parser.feed(b"\xef\xbb\xbf\n") == []
    assert parser.held_bytes == 0
    parser.feed(b'{"usage":{"a":1}')
    assert parser.held_bytes == 7
