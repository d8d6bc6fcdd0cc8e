"""Anthropic's figures: merged over a stream, split by lifetime, with what stands in iterations."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.usage import MAX_TOKENS, TokenUsage
from aiproxyd.providers.anthropic_usage import Usage, merge, usage_reported

NO_EXTRA = {"web_search_requests": 0, "cache_ephemeral_5m_input": 0, "cache_ephemeral_1h_input": 0}


def usage(**figures: Any) -> Usage:
    return msgspec.convert(figures, Usage)


@pytest.mark.parametrize(
    ("news", "merged"),
    [
        pytest.param(
            {"output_tokens": 9}, {"input_tokens": 5, "cache_read_input_tokens": 6, "output_tokens": 9}, id="output alone"
        ),
        pytest.param(
            {"input_tokens": None, "output_tokens": None},
            {"input_tokens": 5, "cache_read_input_tokens": 6, "output_tokens": 1},
            id="nulls",
        ),
        pytest.param(
            {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 9},
            {"input_tokens": 5, "cache_read_input_tokens": 6, "output_tokens": 9},
            id="an input side of zeros",
        ),
        pytest.param(
            {"input_tokens": 0, "cache_read_input_tokens": 11, "output_tokens": 9},
            {"input_tokens": 0, "cache_read_input_tokens": 11, "output_tokens": 9},
            id="a zero beside a figure",
        ),
        pytest.param(
            {"service_tier": "batch"},
            {"input_tokens": 5, "cache_read_input_tokens": 6, "output_tokens": 1, "service_tier": "batch"},
            id="a fact",
        ),
    ],
)
def test_news_replace_what_they_tell(news: dict[str, Any], merged: dict[str, Any]) -> None:
    known = usage(input_tokens=5, cache_read_input_tokens=6, output_tokens=1)
    merge(known, usage(**news))
    assert known == usage(**merged)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        pytest.param({}, TokenUsage(extra=NO_EXTRA), id="nothing"),
        pytest.param(
            {"input_tokens": -5, "output_tokens": 10**15},
            TokenUsage(output_tokens=MAX_TOKENS, extra=NO_EXTRA),
            id="absurd figures",
        ),
        pytest.param(
            {
                "cache_creation_input_tokens": 10,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 8},
            },
            TokenUsage(
                cache_write_input_tokens=10,
                cache_write_5m_input_tokens=2,
                cache_write_1h_input_tokens=8,
                extra=NO_EXTRA | {"cache_ephemeral_5m_input": 2, "cache_ephemeral_1h_input": 8},
            ),
            id="parts stay within the whole",
        ),
        pytest.param(
            {"output_tokens": 3, "output_tokens_details": {"thinking_tokens": 5}},
            TokenUsage(output_tokens=3, reasoning_output_tokens=3, extra=NO_EXTRA),
            id="reasoning stays within the output",
        ),
        pytest.param(
            {"server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}},
            TokenUsage(extra=NO_EXTRA | {"web_search_requests": 2, "web_fetch_requests": 1}),
            id="server tools",
        ),
        pytest.param(
            {
                "input_tokens": 1,
                "iterations": [{"type": "message", "input_tokens": 1}, {"type": "fallback_message", "input_tokens": 1}],
            },
            TokenUsage(input_tokens=1, extra=NO_EXTRA),
            id="iterations that the totals hold",
        ),
        pytest.param(
            {
                "input_tokens": 1,
                "output_tokens": 2,
                "iterations": [{"type": "compaction", "input_tokens": 10, "output_tokens": 20}] * 2,
            },
            TokenUsage(input_tokens=21, output_tokens=42, extra=NO_EXTRA),
            id="compactions",
        ),
        pytest.param(
            {"iterations": [{"type": "advisor_message", "input_tokens": 10, "output_tokens": 20}] * 2},
            TokenUsage(
                extra=NO_EXTRA
                | {"advisor_input": 20, "advisor_output": 40, "advisor_cache_read_input": 0, "advisor_cache_write_input": 0}
            ),
            id="an advisor's",
        ),
    ],
)
def test_the_figures_that_are_reported(figures: dict[str, Any], expected: TokenUsage) -> None:
    report = usage_reported(usage(**figures), is_final=True)
    assert report.usage == expected
    assert report.final
    assert report.metadata == {}


def test_facts_beside_the_figures_are_told_and_cut() -> None:
    report = usage_reported(usage(service_tier="priority", speed="fast", inference_geo="x" * 100), is_final=False)
    assert report.metadata == {"service_tier": "priority", "speed": "fast", "inference_geo": "x" * 64}
    assert not report.final


_counts = st.none() | st.integers(-10, 10**13) | st.floats()
_figures = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"), _counts)
_split = st.none() | st.fixed_dictionaries({"ephemeral_5m_input_tokens": _counts, "ephemeral_1h_input_tokens": _counts})


@given(st.fixed_dictionaries(_figures | {"cache_creation": _split}))
def test_no_figure_is_negative_and_no_part_above_its_whole(figures: dict[str, Any]) -> None:
    found = usage_reported(usage(**figures), is_final=True).usage
    assert min(found.input_tokens, found.output_tokens, found.cache_read_input_tokens, found.cache_write_1h_input_tokens) >= 0
    assert 0 <= found.cache_write_5m_input_tokens + found.cache_write_1h_input_tokens <= found.cache_write_input_tokens
