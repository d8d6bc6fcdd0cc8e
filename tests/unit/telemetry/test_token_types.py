import pytest

from aiproxyd.model.usage import TokenUsage
from aiproxyd.telemetry.token_types import token_amounts

# The figures of Coder's own test fixtures.
CASES = [
    (
        "openai.responses",
        TokenUsage(input_tokens=129, output_tokens=44, cache_read_input_tokens=11904),
        {
            "input": 129,
            "output": 44,
            "cache_read_input_tokens": 11904,
            "cache_write_input_tokens": 0,
            "input_cached": 11904,
            "output_reasoning": 0,
            "total_tokens": 12077,
        },
    ),
    (
        "anthropic.messages",
        TokenUsage(input_tokens=2, output_tokens=66, cache_read_input_tokens=13993, cache_write_input_tokens=22),
        {
            "input": 2,
            "output": 66,
            "cache_read_input_tokens": 13993,
            "cache_write_input_tokens": 22,
            "cache_read_input": 13993,
            "cache_creation_input": 22,
            "cache_ephemeral_1h_input": 0,
            "cache_ephemeral_5m_input": 0,
            "web_search_requests": 0,
        },
    ),
    (
        "openai.chat_completions",
        TokenUsage(input_tokens=19, output_tokens=200),
        {
            "input": 19,
            "output": 200,
            "cache_read_input_tokens": 0,
            "cache_write_input_tokens": 0,
            "prompt_audio": 0,
            "prompt_cached": 0,
            "completion_accepted_prediction": 0,
            "completion_rejected_prediction": 0,
            "completion_audio": 0,
            "completion_reasoning": 0,
        },
    ),
]


@pytest.mark.parametrize(("api", "usage", "amounts"), CASES, ids=[case[0] for case in CASES])
def test_each_type_of_an_api_is_given_also_when_it_is_0(api, usage, amounts):
    assert dict(token_amounts(api, usage)) == amounts


def test_the_parts_of_cache_writes_and_reasoning_are_given():
    usage = TokenUsage(cache_write_input_tokens=9, cache_write_5m_input_tokens=4, cache_write_1h_input_tokens=5)
    amounts = dict(token_amounts("anthropic.messages", usage))
    assert (amounts["cache_ephemeral_5m_input"], amounts["cache_ephemeral_1h_input"]) == (4, 5)
    amounts = dict(token_amounts("openai.chat_completions", TokenUsage(output_tokens=7, reasoning_output_tokens=3)))
    assert amounts["completion_reasoning"] == 3


def test_what_a_provider_reports_besides_is_given_under_its_own_name():
    usage = TokenUsage(extra={"web_search_requests": 2, "novelties": 3})
    amounts = list(token_amounts("anthropic.messages", usage))
    assert amounts.count(("web_search_requests", 2)) == 1
    assert ("novelties", 3) in amounts


def test_a_total_that_the_provider_reports_wins_over_the_sum():
    usage = TokenUsage(input_tokens=1, output_tokens=1, extra={"total_tokens": 7})
    assert dict(token_amounts("openai.responses", usage))["total_tokens"] == 7


def test_an_unknown_api_gives_the_common_types():
    assert dict(token_amounts("new", TokenUsage(input_tokens=1))) == {
        "input": 1,
        "output": 0,
        "cache_read_input_tokens": 0,
        "cache_write_input_tokens": 0,
    }


def test_a_negative_figure_counts_as_0():
    assert dict(token_amounts("new", TokenUsage(input_tokens=-1, extra={"x": -2})))["x"] == 0
