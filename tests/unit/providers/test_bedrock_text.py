"""Answers of models that complete text, row by row."""

import json
from typing import Any

import pytest

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import StreamEvent, TextDelta, UnknownEvent
from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers.bedrock_text import TextReader, prompt_of


def read(*answers: Any) -> tuple[list[StreamEvent], str, TokenUsage | None]:
    reader = TextReader()
    out: list[StreamEvent] = []
    for answer in answers:
        reader.read(json.dumps(answer).encode(), out)
    return out, reader.stop_reason, reader.usage


@pytest.mark.parametrize(
    ("answer", "characters", "stop_reason", "tokens"),
    [
        ({"generation": "ab", "stop_reason": "stop", "prompt_token_count": 3, "generation_token_count": 1}, 2, "stop", (3, 1)),
        ({"outputText": "ab", "completionReason": "FINISH", "totalOutputTextTokenCount": 1}, 2, "FINISH", (0, 1)),
        ({"results": [{"outputText": "ab", "tokenCount": 1}, {"outputText": "c", "tokenCount": 2}]}, 3, "", (0, 3)),
        ({"outputs": [{"text": "ab", "stop_reason": "length"}]}, 2, "length", None),
        ({"completion": "ab", "stop_reason": "stop_sequence"}, 2, "stop_sequence", None),
        ({"generations": [{"text": "ab", "finish_reason": "COMPLETE"}]}, 2, "COMPLETE", None),
        ({"text": "ab", "finish_reason": "COMPLETE"}, 2, "COMPLETE", None),
        ({"inputTextTokenCount": 4, "embedding": [0.1]}, 0, "", (4, 0)),
    ],
)
def test_each_maker_has_its_names(answer: Any, characters: int, stop_reason: str, tokens: tuple[int, int] | None) -> None:
    usage = None if tokens is None else TokenUsage(input_tokens=tokens[0], output_tokens=tokens[1])
    assert read(answer) == ([TextDelta(characters)] if characters else [], stop_reason, usage)


def test_figures_of_pieces_are_totals_so_far() -> None:
    pieces = [
        {"generation": "a", "prompt_token_count": 5, "generation_token_count": 1},
        {"generation": "b", "generation_token_count": 2},
    ]
    assert read(*pieces) == ([TextDelta(1), TextDelta(1)], "", TokenUsage(input_tokens=5, output_tokens=2))


def test_answers_of_unknown_makers_are_counted_and_known_ones_without_text_are_not() -> None:
    assert read({"hologram": 1, "x": 2})[0] == [UnknownEvent("answer:hologram")]
    for known in ({"images": []}, {"generation": ""}, {"outputText": None}, {}):
        assert read(known)[0] == []


def test_a_field_of_another_type_is_refused() -> None:
    with pytest.raises(MalformedBody):
        read({"outputText": 7})


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"prompt": "p", "max_gen_len": 1}, "p"),
        ({"inputText": "p"}, "p"),
        ({"prompt": "", "inputText": "q"}, ""),
        ({"prompt": 7}, None),
        ({"texts": ["a"]}, None),
    ],
)
def test_the_prompt_of_a_request(body: Any, prompt: str | None) -> None:
    assert prompt_of(json.dumps(body).encode()) == prompt


def test_a_request_that_is_no_object_is_refused() -> None:
    with pytest.raises(MalformedBody):
        prompt_of(b"[]")
