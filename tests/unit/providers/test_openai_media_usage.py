"""Figures of images and sound, row by row."""

import json
from typing import Any

import pytest

from aiproxyd.model.usage import MAX_TOKENS, TokenUsage
from aiproxyd.providers.decoding import decode
from aiproxyd.providers.openai_media_usage import USAGE, media_token_usage, of_seconds


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, None),
        ({"input_tokens": 0, "output_tokens": 0}, None),
        ({"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}, TokenUsage(3, 4)),
        (
            {"input_tokens": 3, "input_tokens_details": {"image_tokens": 2, "text_tokens": 1}},
            TokenUsage(3, extra={"input_image": 2}),
        ),
        (
            {"input_tokens": 3, "input_token_details": {"audio_tokens": 3, "text_tokens": 0}},
            TokenUsage(3, extra={"input_audio": 3}),
        ),
        ({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 2}}, TokenUsage(1, cache_read_input_tokens=2)),
        ({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 4}}, TokenUsage(0, cache_read_input_tokens=4)),
        (
            {"output_tokens": 5, "output_tokens_details": {"image_tokens": 4, "text_tokens": 1}},
            TokenUsage(0, 5, extra={"output_image": 4, "output_text": 1}),
        ),
        ({"type": "duration", "seconds": 1.2345}, TokenUsage(extra={"audio_milliseconds": 1234})),
        ({"type": "duration", "seconds": 0}, None),
    ],
)
def test_figures_become_ours(figures: dict[str, Any], expected: TokenUsage | None) -> None:
    assert media_token_usage(decode(USAGE, json.dumps(figures).encode())) == expected


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_what_is_no_length_is_none(seconds: float) -> None:
    assert of_seconds(seconds) is None


def test_a_length_is_bounded() -> None:
    assert of_seconds(1e300) == TokenUsage(extra={"audio_milliseconds": MAX_TOKENS})
