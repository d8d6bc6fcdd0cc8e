"""Cohere's figures, row by row."""

from typing import Any

import msgspec
import pytest

from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers.cohere_usage import Usage, token_usage


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, None),
        ({"billed_units": {}, "tokens": {"input_tokens": 0}}, None),
        ({"billed_units": {"input_tokens": 3}}, TokenUsage(input_tokens=3)),
        ({"billed_units": {"input_tokens": 3, "output_tokens": 1}, "tokens": {"input_tokens": 70}}, TokenUsage(3, 1)),
        ({"billed_units": {}, "tokens": {"input_tokens": 70, "output_tokens": 2}}, TokenUsage(70, 2)),
        ({"tokens": {"output_tokens": 2}}, TokenUsage(output_tokens=2)),
        ({"billed_units": {"search_units": 1}}, TokenUsage(extra={"search_units": 1})),
        ({"billed_units": {"image_tokens": 9, "input_tokens": 1}}, TokenUsage(10, extra={"input_image": 9})),
        ({"billed_units": {"input_tokens": 3}, "cached_tokens": 2}, TokenUsage(3, extra={"cached_tokens": 2})),
    ],
)
def test_what_is_billed_counts(figures: dict[str, Any], expected: TokenUsage | None) -> None:
    assert token_usage(msgspec.convert(figures, Usage)) == expected
