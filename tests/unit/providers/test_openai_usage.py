"""OpenAI's figures, and those of servers that speak its APIs."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers.openai_usage import ChatUsage, ResponseUsage, chat_token_usage, response_token_usage

CHAT_EXTRA = {
    "prompt_audio": 0,
    "completion_accepted_prediction": 0,
    "completion_rejected_prediction": 0,
    "completion_audio": 0,
    "completion_reasoning": 0,
}


def chat(**figures: Any) -> TokenUsage | None:
    return chat_token_usage(msgspec.convert(figures, ChatUsage))


def response(**figures: Any) -> TokenUsage:
    return response_token_usage(msgspec.convert(figures, ResponseUsage))


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None, id="zeros"),
        pytest.param({"prompt_tokens": 19, "completion_tokens": 10}, TokenUsage(19, 10, extra=CHAT_EXTRA), id="plain"),
        pytest.param(
            {
                "prompt_tokens": 33,
                "completion_tokens": 7,
                "citation_tokens": 20,
                "num_search_queries": 2,
                "reasoning_tokens": 73,
            },
            TokenUsage(33, 7, extra=CHAT_EXTRA | {"citation": 20, "web_search_requests": 2, "research_reasoning": 73}),
            id="a research of Perplexity",
        ),
        pytest.param(
            {"prompt_tokens": 19, "completion_tokens": 10, "num_sources_used": 3, "reasoning_tokens": 4},
            TokenUsage(19, 10, extra=CHAT_EXTRA | {"web_search_sources": 3}),
            id="a live search of xAI",
        ),
        pytest.param(
            {"prompt_tokens": 19, "prompt_tokens_details": {"cached_tokens": 11904}},
            TokenUsage(0, 0, 11904, extra=CHAT_EXTRA),
            id="more cached than prompt",
        ),
        pytest.param(
            {"prompt_tokens": 19, "prompt_cache_hit_tokens": 9}, TokenUsage(10, 0, 9, extra=CHAT_EXTRA), id="DeepSeek"
        ),
        pytest.param({"prompt_tokens": 19, "cached_tokens": 9}, TokenUsage(10, 0, 9, extra=CHAT_EXTRA), id="Moonshot"),
        pytest.param(
            {"prompt_tokens": 19, "prompt_cache_hit_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}},
            TokenUsage(19, extra=CHAT_EXTRA),
            id="the documented place wins",
        ),
        pytest.param(
            {"prompt_tokens": 19, "prompt_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 5}},
            TokenUsage(5, 0, 9, 5, extra=CHAT_EXTRA),
            id="cache writes",
        ),
        pytest.param(
            {
                "prompt_tokens": 1,
                "completion_tokens": 9,
                "completion_tokens_details": {"reasoning_tokens": 4},
                "total_tokens": 10,
            },
            TokenUsage(1, 9, reasoning_output_tokens=4, extra=CHAT_EXTRA | {"completion_reasoning": 4}),
            id="reasoning within the completion",
        ),
        pytest.param(
            {
                "prompt_tokens": 1,
                "completion_tokens": 9,
                "completion_tokens_details": {"reasoning_tokens": 4},
                "total_tokens": 14,
            },
            TokenUsage(1, 13, reasoning_output_tokens=4, extra=CHAT_EXTRA | {"completion_reasoning": 4}),
            id="reasoning beside the completion",
        ),
    ],
)
def test_the_figures_of_a_chat_completion(figures: dict[str, Any], expected: TokenUsage | None) -> None:
    assert chat(**figures) == expected


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        pytest.param({}, TokenUsage(extra={"output_reasoning": 0, "total_tokens": 0}), id="nothing"),
        pytest.param(
            {
                "input_tokens": 12033,
                "input_tokens_details": {"cached_tokens": 11904},
                "output_tokens": 44,
                "total_tokens": 12077,
            },
            TokenUsage(129, 44, 11904, extra={"output_reasoning": 0, "total_tokens": 12077}),
            id="cached",
        ),
        pytest.param(
            {"input_tokens": 30, "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 15}, "output_tokens": 4},
            TokenUsage(5, 4, 10, 15, extra={"output_reasoning": 0, "total_tokens": 34}),
            id="cache writes, total left out",
        ),
        pytest.param(
            {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 10}, "output_tokens": 4, "total_tokens": 7},
            TokenUsage(0, 4, 10, extra={"output_reasoning": 0, "total_tokens": 7}),
            id="more cached than input",
        ),
        pytest.param(
            {"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 7},
            TokenUsage(3, 4, reasoning_output_tokens=4, extra={"output_reasoning": 5, "total_tokens": 7}),
            id="reasoning stays within the output",
        ),
    ],
)
def test_the_figures_of_a_response(figures: dict[str, Any], expected: TokenUsage) -> None:
    assert response(**figures) == expected


_counts = st.none() | st.integers(-10, 10**13) | st.floats()


@given(
    st.fixed_dictionaries(dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"), _counts)),
    st.fixed_dictionaries({"cached_tokens": _counts, "cache_write_tokens": _counts}),
    _counts,
)
def test_no_figure_is_negative_and_no_part_above_its_whole(
    whole: dict[str, Any], details: dict[str, Any], reasoning: Any
) -> None:
    found = chat(**whole, prompt_tokens_details=details, completion_tokens_details={"reasoning_tokens": reasoning})
    other = response(
        input_tokens=whole["prompt_tokens"],
        output_tokens=whole["completion_tokens"],
        input_tokens_details=details,
        output_tokens_details={"reasoning_tokens": reasoning},
    )
    for usage in (found or TokenUsage(), other):
        assert min(usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens, usage.cache_write_input_tokens) >= 0
        assert 0 <= usage.reasoning_output_tokens <= usage.output_tokens
