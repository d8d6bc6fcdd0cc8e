"""Usages add up, and counts are counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.usage import MAX_TOKENS, TokenUsage, token_count

counts = st.integers(0, 10**9)
usages = st.builds(
    TokenUsage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_input_tokens=counts,
    cache_write_input_tokens=counts,
    cache_write_5m_input_tokens=counts,
    cache_write_1h_input_tokens=counts,
    reasoning_output_tokens=counts,
    extra=st.dictionaries(st.sampled_from(["a", "b", "c"]), counts),
)


@given(usages, usages, usages)
def test_addition_associates_commutes_and_has_a_zero(a, b, c):
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + TokenUsage() == a


def test_the_whole_input_is_the_sum_of_its_disjoint_parts():
    usage = TokenUsage(input_tokens=1, cache_read_input_tokens=10, cache_write_input_tokens=100, cache_write_1h_input_tokens=60)
    assert usage.total_input_tokens == 111


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        (7.9, 7),
        (-3, 0),
        (10**30, MAX_TOKENS),
        (float("nan"), 0),
        (float("inf"), 0),
        (True, 0),
        ("7", 0),
        (None, 0),
        ([], 0),
    ],
)
def test_what_is_no_count_is_zero(value, expected):
    assert token_count(value) == expected
